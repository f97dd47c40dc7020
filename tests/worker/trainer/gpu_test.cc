// What needs a GPU; each test is skipped, with the reason, where there is none. The program can be carried to a host
// with one: beside it libattnfleet_cuda.so, and LD_LIBRARY_PATH=.../torch/lib.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/cuda_module.h"
#include "worker/trainer/data_loader.h"
#include "worker/trainer/training.h"

namespace attnfleet::trainer {
namespace {

using testing::StartsWith;

// The GPU, opened once; its sampler ends with the process.
const absl::StatusOr<std::unique_ptr<CudaDevice>>& Gpu() {
  static const auto* const gpu = new absl::StatusOr<std::unique_ptr<CudaDevice>>(OpenCudaDevice());
  return *gpu;
}

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Gpu().ok()) GTEST_SKIP() << Gpu().status().message();
    gpu_ = Gpu()->get();
  }

  static RunHooks Hooks() {
    return {[](const Environment&, int64_t) {}, [](const Progress&) {}, [] { return false; }};
  }

  static Config SmallConfig() {
    Config config;
    config.batch = 4;
    config.sequence_length = 128;
    config.model.layers = 2;
    config.warmup_steps = 2;
    config.timed_steps = 10;
    config.learning_rate = 1e-5;
    config.data_loader_threads = 4;
    return config;
  }

  CudaDevice* gpu_ = nullptr;
};

TEST_F(GpuTest, DeviceSaysWhatItIs) {
  const CudaDeviceInfo info = gpu_->Info();
  EXPECT_THAT(info.uuid, StartsWith("GPU-"));
  EXPECT_EQ(info.uuid.size(), 40u);
  EXPECT_GT(info.memory_bytes, 1e9);
  EXPECT_THAT(info.cuda_version, StartsWith("13."));
  EXPECT_FALSE(info.name.empty());
  EXPECT_FALSE(info.cudnn_version.empty());
}

TEST_F(GpuTest, EveryBackendMeasuresTheModelThatPeopleTrain) {
  for (const Backend* backend : Backends()) {
    const RunResult result = RunTraining(SmallConfig(), *backend, gpu_, Hooks());
    if (result.outcome == Outcome::kUnsupported) continue;
    ASSERT_EQ(result.outcome, Outcome::kMeasured) << backend->name << ": " << result.reason;
    EXPECT_EQ(result.environment.precision, "bf16-mixed");
    EXPECT_EQ(result.measurement.step_seconds.size(), 10u);
    double sum = 0;
    for (const double seconds : result.measurement.step_seconds) sum += seconds;
    EXPECT_NEAR(sum / result.measurement.wall_seconds, 1, 0.2) << backend->name;
    EXPECT_NEAR(result.measurement.first_loss, std::log(10.0), 0.5) << backend->name;
  }
}

// The largest error of a matrix product tells the precision that was used: fp32 1e-6, TF32 1e-3, bf16 1e-2.
TEST_F(GpuTest, EveryPrecisionTrainsAndIsTheOneThatIsNamed) {
  for (const auto& [precision, name] :
       {std::pair{Precision::kFp32, "fp32"}, std::pair{Precision::kTf32, "tf32"},
        std::pair{Precision::kBf16Mixed, "bf16-mixed"}, std::pair{Precision::kBf16, "bf16"}}) {
    Config config = SmallConfig();
    config.precision = precision;
    const RunResult result = RunTraining(config, *FindBackend("sdpa").value(), gpu_, Hooks());
    ASSERT_EQ(result.outcome, Outcome::kMeasured) << name << ": " << result.reason;
    EXPECT_EQ(result.environment.precision, name);
    EXPECT_NEAR(result.measurement.first_loss, std::log(10.0), 0.5) << name;
    const at::Tensor a = at::randn({512, 512}).to(at::kCUDA), b = at::randn({512, 512}).to(at::kCUDA);
    const at::Tensor exact = at::matmul(a.to(at::kDouble), b.to(at::kDouble));
    const double error = (at::matmul(a, b) - exact).norm().item<double>() / exact.norm().item<double>();
    EXPECT_EQ(error > 1e-5, precision == Precision::kTf32) << name << ": " << error;
  }
}

TEST_F(GpuTest, MemoryPeaksAreOrderedAndGrowWithTheBatch) {
  int64_t before = 0;
  for (const int64_t batch : {2, 8, 32}) {
    Config config = SmallConfig();
    config.batch = batch;
    const RunResult result = RunTraining(config, *FindBackend("eager").value(), gpu_, Hooks());
    ASSERT_EQ(result.outcome, Outcome::kMeasured) << result.reason;
    EXPECT_GT(result.measurement.peak_allocated_bytes, before);
    EXPECT_GE(result.measurement.peak_reserved_bytes, result.measurement.peak_allocated_bytes);
    EXPECT_GE(result.measurement.peak_device_bytes, result.measurement.peak_allocated_bytes);
    before = result.measurement.peak_allocated_bytes;
  }
}

Model GpuModel(bool biases) {
  ModelConfig config = {.layers = 2, .hidden_dropout = 0, .attention_dropout = 0};
  config.relative_bias = config.spatial_bias = biases;
  Model model = MakeModel(config, at::Device(at::kCUDA, 0), 1);
  if (biases) {
    for (at::Tensor* table : {&model.rel_pos_bias, &model.rel_pos_x_bias, &model.rel_pos_y_bias}) table->normal_(0, 8);
  }
  return model;
}

// Output and gradient of one pass, in bf16 autocast or fp32.
struct Pass {
  at::Tensor logits, gradient;
};

Pass RunPass(const Model& model, const Backend& backend, const Batch& batch, bool mixed) {
  at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCUDA, mixed);
  const ModelOutput output = Forward(model, backend, batch, mixed ? at::kBFloat16 : at::kFloat, /*training=*/true);
  at::autocast::set_autocast_enabled(at::kCUDA, false);
  at::autocast::clear_cache();
  at::Tensor weight = model.layers[0].query.weight;
  weight.mutable_grad().reset();
  output.loss.backward();
  return {output.logits.detach().to(at::kFloat), weight.grad().clone()};
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).norm().item<double>() / b.norm().item<double>();
}

TEST_F(GpuTest, EveryBackendAgreesWithEager) {
  SyntheticSpec spec;
  spec.batch = 3;
  spec.sequence_length = 192;
  spec.vocabulary = 50265;
  spec.labels = 10;
  Batch batch = DataLoader(spec, 0, /*pinned=*/true).Next();
  batch.attention_mask.slice(1, 150)[1].zero_();
  batch.padded = true;
  for (at::Tensor* tensor : {&batch.ids, &batch.boxes, &batch.labels, &batch.attention_mask}) {
    *tensor = tensor->to(at::kCUDA, /*non_blocking=*/true);
  }
  for (const bool biases : {false, true}) {
    const Model model = GpuModel(biases);
    const Pass exact = RunPass(model, *FindBackend("eager").value(), batch, /*mixed=*/false);
    const Pass eager = RunPass(model, *FindBackend("eager").value(), batch, /*mixed=*/true);
    for (const Backend* backend : Backends()) {
      // In fp32 they agree to rounding; in bf16 none may be further from the fp32 figures than a few times eager is.
      AttentionProblem problem = MakeProblem(model.config, 3, 192, true, at::kFloat, true, true);
      if (backend->cuda && !backend->refuse(problem)) {
        const Pass full = RunPass(model, *backend, batch, /*mixed=*/false);
        EXPECT_LT(Difference(full.logits, exact.logits), 1e-4) << backend->name << biases;
        EXPECT_LT(Difference(full.gradient, exact.gradient), 1e-3) << backend->name << biases;
      }
      problem.type = at::kBFloat16;
      if (!backend->cuda || backend->refuse(problem)) continue;
      const Pass mixed = RunPass(model, *backend, batch, /*mixed=*/true);
      EXPECT_LT(Difference(mixed.logits, exact.logits), 3 * Difference(eager.logits, exact.logits))
          << backend->name << biases;
      EXPECT_LT(Difference(mixed.gradient, exact.gradient), 3 * Difference(eager.gradient, exact.gradient))
          << backend->name << biases;
    }
  }
}

TEST_F(GpuTest, TooLargeARunIsOutOfMemoryWithItsFiguresAndTheCardIsUsableAfterwards) {
  Config config = SmallConfig();
  config.batch = 512;
  config.sequence_length = 2048;
  config.model.max_positions = 2050;
  const RunResult result = RunTraining(config, *FindBackend("eager").value(), gpu_, Hooks());
  EXPECT_EQ(result.outcome, Outcome::kOutOfMemory) << result.reason;
  EXPECT_GT(result.out_of_memory.requested_bytes, 0);
  EXPECT_GT(result.out_of_memory.total_bytes, result.out_of_memory.free_bytes);
  EXPECT_EQ(RunTraining(SmallConfig(), *FindBackend("sdpa").value(), gpu_, Hooks()).outcome, Outcome::kMeasured);
}

TEST_F(GpuTest, BatchesComeInPinnedMemoryAndArriveWhole) {
  SyntheticSpec spec;
  spec.batch = 2;
  spec.sequence_length = 8;
  spec.vocabulary = 100;
  spec.labels = 5;
  DataLoader loader(spec, 2, /*pinned=*/true);
  for (int i = 0; i < 100; ++i) {
    const Batch batch = loader.Next();
    ASSERT_TRUE(batch.ids.is_pinned());
    const at::Tensor copy = batch.ids.to(at::kCUDA, /*non_blocking=*/true);
    ASSERT_TRUE(copy.to(at::kCPU).equal(batch.ids));
  }
}

}  // namespace
}  // namespace attnfleet::trainer
