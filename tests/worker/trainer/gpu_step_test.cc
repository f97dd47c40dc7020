// The fused step's kernels on the GPU, each against the same operation on the CPU, elementwise; then whole steps.

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "learning.h"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/autocast.h"
#include "worker/trainer/check.h"
#include "worker/trainer/cuda_module.h"
#include "worker/trainer/step/fused_step.h"
#include "worker/trainer/step/reference.h"
#include "worker/trainer/training.h"

namespace attnfleet::trainer {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

at::ScalarType LowType(StepType type) { return type == StepType::kFp32 ? at::kFloat : at::kBFloat16; }

const char* Name(StepType type) { return type == StepType::kFp32 ? "fp32" : "bf16"; }

// The pointer of a tensor that may be missing.
template <class T>
T* Pointer(const Tensors& tensors, const char* name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : static_cast<T*>(found->second.mutable_data_ptr());
}

class GpuStep : public testing::Test {
 protected:
  void SetUp() override {
    static const auto* const gpu = new absl::StatusOr<std::unique_ptr<CudaDevice>>(OpenCudaDevice());
    if (!gpu->ok()) GTEST_SKIP() << gpu->status().message();
    gpu_ = gpu->value().get();
    if (gpu_->Info().compute_capability < 80) GTEST_SKIP() << "needs compute capability 8.0";
    kernels_ = OpenStepKernels();
    at::manual_seed(5);
  }

  static at::Tensor MakeState() {
    StepState state{};
    state.seed = 1234567890123;
    state.passes = 5;
    return at::from_blob(&state, {sizeof state}, at::kByte).clone();
  }

  static StepDropout Dropout(const Tensors& tensors, uint32_t site, double p) {
    return {Pointer<const StepState>(tensors, "state"), site, StepThreshold(p)};
  }

  using Call = std::function<void(StepKernels&, const Tensors&)>;

  // Runs `call` on the CPU and twice on the GPU: the outputs agree, and the GPU's are the same bits both times.
  void Compare(const std::string& what, const Tensors& inputs, const std::vector<std::string>& outputs,
               const Call& call) {
    Tensors cpu = inputs, first, second;
    for (const auto& [name, tensor] : inputs) {
      cpu[name] = tensor.clone();
      first[name] = tensor.to(at::kCUDA, tensor.scalar_type(), false, /*copy=*/true);
      second[name] = first[name].clone();
    }
    call(*reference_, cpu);
    call(*kernels_, first);
    call(*kernels_, second);
    for (const std::string& name : outputs) {
      const at::Tensor expected = cpu[name].to(at::kDouble), actual = first[name].to(at::kCPU, at::kDouble);
      EXPECT_TRUE(first[name].equal(second[name])) << what << ": " << name << " differs from run to run";
      // bf16 may round the other way: one unit of the last of its 8 bits.
      const double unit = cpu[name].scalar_type() == at::kBFloat16 ? std::pow(2, -7) : 1e-6;
      const at::Tensor bound = expected.abs() * unit + 2e-5 * expected.abs().max();
      const at::Tensor excess = (actual - expected).abs() - bound;
      EXPECT_LE(excess.max().item<double>(), 0)
          << what << ": " << name << ", largest difference " << (actual - expected).abs().max().item<double>() << " of "
          << expected.abs().max().item<double>();
    }
  }

  CudaDevice* gpu_ = nullptr;
  std::unique_ptr<StepKernels> kernels_;
  const std::unique_ptr<StepKernels> reference_ = MakeReferenceKernels();
};

struct Size {
  int64_t rows, columns;
};
constexpr Size kSizes[] = {{1, 768}, {5, 768}, {1000, 768}, {333, 1024}, {70, 128}, {37, 24}, {37, 20}, {9, 1}};

TEST_F(GpuStep, DropoutHasTheBitsOfTheReference) {
  for (const StepType from : {StepType::kFp32, StepType::kBf16}) {
    for (const StepType to : {StepType::kFp32, StepType::kBf16}) {
      for (const int64_t count : {1, 7, 8, 4099, 1'000'000}) {
        for (const double p : {0.0, 0.1, 0.5}) {
          Tensors tensors = {{"state", MakeState()},
                             {"x", at::ones({count}).to(LowType(from))},
                             {"y", at::zeros({count}, LowType(to))}};
          const Call call = [&](StepKernels& kernels, const Tensors& t) {
            kernels.Drop({from, to, count, Pointer<const void>(t, "x"), Pointer<void>(t, "y"), Dropout(t, 3, p),
                          Dropout(t, 4, p / 2)});
          };
          Tensors cpu = tensors, gpu;
          for (const auto& [name, tensor] : tensors) gpu[name] = tensor.to(at::kCUDA);
          call(*reference_, cpu);
          call(*kernels_, gpu);
          EXPECT_TRUE(gpu["y"].to(at::kCPU).equal(cpu["y"]))
              << Name(from) << " " << Name(to) << " " << count << " " << p;
        }
      }
    }
  }
}

// The types of products and of the residual stream.
constexpr std::pair<StepType, StepType> kTypes[] = {
    {StepType::kFp32, StepType::kFp32}, {StepType::kBf16, StepType::kFp32}, {StepType::kBf16, StepType::kBf16}};

TEST_F(GpuStep, NormEqualsTheReference) {
  for (const auto& [type, stream] : kTypes) {
    const at::ScalarType low = LowType(type), streams = LowType(stream);
    for (const Size& size : kSizes) {
      const int64_t rows = size.rows, columns = size.columns;
      for (const bool input : {true, false}) {
        for (const double p : {0.0, 0.1}) {
          Tensors tensors = {{"state", MakeState()},
                             {"residual", at::randn({rows, columns}).to(input ? streams : at::kFloat)},
                             {"weight", at::randn({columns})},
                             {"shift", at::randn({columns})},
                             {"inverse", at::zeros({rows})},
                             {"normed", at::zeros({rows, columns}, low)},
                             {"y", at::zeros({rows, columns}, streams)},
                             {"low_y", at::zeros({rows, columns}, low)}};
          std::vector<std::string> outputs = {"normed", "y", "low_y"};
          if (columns > 1) outputs.emplace_back("inverse");  // of one column: 1 / sqrt(epsilon), or of rounding
          if (input) {
            tensors["input"] = at::randn({rows, columns}).to(low);
            tensors["bias"] = at::randn({columns});
          }
          const Call call = [&, type = type, stream = stream](StepKernels& kernels, const Tensors& t) {
            StepNorm norm{};
            norm.type = type;
            norm.stream = stream;
            norm.rows = rows;
            norm.columns = static_cast<int>(columns);
            norm.epsilon = 1e-5F;
            norm.input = Pointer<const void>(t, "input");
            norm.bias = Pointer<const float>(t, "bias");
            norm.residual = Pointer<const void>(t, "residual");
            norm.input_dropout = Dropout(t, 1, p);
            norm.output_dropout = Dropout(t, 2, input ? 0 : p);
            norm.weight = Pointer<const float>(t, "weight");
            norm.shift = Pointer<const float>(t, "shift");
            norm.normed = Pointer<void>(t, "normed");
            norm.inverse_deviation = Pointer<float>(t, "inverse");
            norm.y = Pointer<void>(t, "y");
            norm.low_y = Pointer<void>(t, "low_y");
            kernels.Norm(norm);
          };
          Compare("norm " + std::to_string(rows) + "x" + std::to_string(columns), tensors, outputs, call);
        }
      }
    }
  }
}

TEST_F(GpuStep, NormBackwardEqualsTheReference) {
  for (const auto& [type, stream] : kTypes) {
    const at::ScalarType low = LowType(type), streams = LowType(stream);
    for (const Size& size : kSizes) {
      const int64_t rows = size.rows, columns = size.columns;
      for (const bool input : {true, false}) {
        for (const int given : {1, 2, 3}) {  // dy, low dy, both
          for (const double p : {0.0, 0.1}) {
            Tensors tensors = {{"state", MakeState()},
                               {"normed", at::randn({rows, columns}).to(low)},
                               {"inverse", at::ones({rows}) * 1.1},
                               {"weight", at::randn({columns})},
                               {"dz", at::zeros({rows, columns}, input ? streams : at::kFloat)},
                               {"dbias", at::zeros({columns})},
                               {"dweight", at::zeros({columns})},
                               {"dshift", at::zeros({columns})},
                               {"scratch", at::zeros({StepScratchBytes(columns) / 4})}};
            std::vector<std::string> outputs = {"dz", "dbias", "dweight", "dshift"};
            if (input) {
              tensors["dinput"] = at::zeros({rows, columns}, low);
              outputs.emplace_back("dinput");
            }
            if (given & 1) tensors["dy"] = at::randn({rows, columns}).to(streams);
            if (given & 2) tensors["low_dy"] = at::randn({rows, columns}).to(low);
            const Call call = [&, type = type, stream = stream](StepKernels& kernels, const Tensors& t) {
              StepNormBackward norm{};
              norm.type = type;
              norm.stream = stream;
              norm.rows = rows;
              norm.columns = static_cast<int>(columns);
              norm.input_dropout = Dropout(t, 1, p);
              norm.output_dropout = Dropout(t, 2, input ? 0 : p);
              norm.weight = Pointer<const float>(t, "weight");
              norm.normed = Pointer<const void>(t, "normed");
              norm.inverse_deviation = Pointer<const float>(t, "inverse");
              norm.dy = Pointer<const void>(t, "dy");
              norm.low_dy = Pointer<const void>(t, "low_dy");
              norm.dz = Pointer<void>(t, "dz");
              norm.dinput = Pointer<void>(t, "dinput");
              norm.dbias = Pointer<float>(t, "dbias");
              norm.dweight = Pointer<float>(t, "dweight");
              norm.dshift = Pointer<float>(t, "dshift");
              norm.scratch = Pointer<float>(t, "scratch");
              kernels.NormBackward(norm);
            };
            Compare("norm, backward " + std::to_string(rows) + "x" + std::to_string(columns), tensors, outputs, call);
          }
        }
      }
    }
  }
}

TEST_F(GpuStep, GeluAndItsSlopeEqualTheReference) {
  for (const StepType type : {StepType::kFp32, StepType::kBf16}) {
    for (const Size& size : {Size{1, 3072}, Size{1000, 3072}, Size{77, 512}, Size{40, 33}}) {
      const int64_t rows = size.rows, columns = size.columns;
      Tensors tensors = {{"x", (at::randn({rows, columns}) * 2).to(LowType(type))},
                         {"bias", at::randn({columns})},
                         {"y", at::zeros({rows, columns}, LowType(type))},
                         {"dy", at::randn({rows, columns}).to(LowType(type))},
                         {"dbias", at::zeros({columns})},
                         {"scratch", at::zeros({StepScratchBytes(columns) / 4})}};
      const Call call = [&](StepKernels& kernels, const Tensors& t) {
        const auto* const x = Pointer<const void>(t, "x");
        const auto* const bias = Pointer<const float>(t, "bias");
        kernels.Gelu({type, rows, static_cast<int>(columns), x, bias, Pointer<void>(t, "y")});
        // In place, as the step calls it.
        kernels.GeluBackward({type, rows, static_cast<int>(columns), x, bias, Pointer<const void>(t, "dy"),
                              Pointer<void>(t, "x"), Pointer<void>(t, "dy"), Pointer<float>(t, "dbias"),
                              Pointer<float>(t, "scratch")});
        EXPECT_TRUE(t.at("x").equal(t.at("y"))) << "gelu's backward pass makes other values than gelu";
      };
      Compare("gelu " + std::to_string(rows) + "x" + std::to_string(columns), tensors, {"y", "dy", "dbias"}, call);
    }
  }
}

TEST_F(GpuStep, ColumnSumsEqualTheReference) {
  for (const StepType type : {StepType::kFp32, StepType::kBf16}) {
    for (const Size& size : {Size{1, 2304}, Size{5000, 2304}, Size{777, 7}, Size{3, 10}}) {
      const int64_t rows = size.rows, columns = size.columns;
      Tensors tensors = {{"x", at::randn({rows, columns}).to(LowType(type))},
                         {"sums", at::zeros({columns})},
                         {"scratch", at::zeros({StepScratchBytes(columns) / 4})}};
      const Call call = [&](StepKernels& kernels, const Tensors& t) {
        kernels.ColumnSums({type, rows, static_cast<int>(columns), Pointer<const void>(t, "x"),
                            Pointer<float>(t, "sums"), Pointer<float>(t, "scratch")});
      };
      Compare("sums " + std::to_string(rows) + "x" + std::to_string(columns), tensors, {"sums"}, call);
    }
  }
}

StepTables MakeTables(int columns, int coordinate, int shape) {
  StepTables tables{};
  tables.columns = columns;
  tables.coordinate = coordinate;
  tables.shape = shape;
  const int rows[kStepTables] = {5000, 1026, 1024, 1024, 1024, 1024};
  std::copy(std::begin(rows), std::end(rows), tables.rows);
  tables.padding = 1;
  return tables;
}

enum class Layout { kRandom, kEqual, kPadded };

// Rows, sum and gradient of embeddings; widths of base, of tiny and of large, whose tables no vector divides.
TEST_F(GpuStep, EmbeddingsEqualTheReferenceWhereverTheBoxesAre) {
  for (const auto& [columns, coordinate, shape] :
       {std::tuple{768, 128, 128}, std::tuple{128, 21, 22}, std::tuple{1024, 171, 170}}) {
    for (const Layout layout : {Layout::kRandom, Layout::kEqual, Layout::kPadded}) {
      for (const Size& size : {Size{1, 1}, Size{3, 7}, Size{4, 709}, Size{16, 512}}) {
        const int64_t batch = size.rows, length = size.columns;
        const StepTables sizes = MakeTables(columns, coordinate, shape);
        at::Tensor ids = at::randint(2, sizes.rows[0], {batch, length}, at::kLong);
        const at::Tensor corner = at::randint(0, 500, {batch, length, 2}, at::kLong);
        at::Tensor boxes = at::cat({corner, corner + at::randint(0, 500, {batch, length, 2}, at::kLong)}, 2);
        if (layout == Layout::kEqual) boxes.fill_(1);
        if (layout == Layout::kPadded && length > 2) {
          ids.narrow(1, length / 2, length - length / 2).fill_(1);
          ids.select(1, 0).fill_(1);
        }
        const int64_t tokens = ids.numel();
        Tensors tensors = {{"ids", ids},
                           {"boxes", boxes},
                           {"rows", at::zeros({tokens, kStepLookups}, at::kInt)},
                           {"x", at::zeros({tokens, columns})},
                           {"dx", at::randn({tokens, columns})},
                           {"type", at::randn({columns})}};
        std::vector<std::string> outputs = {"rows", "x"};
        for (int table = 0; table < kStepTables; ++table) {
          const int width = StepWidthOf(sizes, table < 4 ? table : table + 2);
          tensors["table" + std::to_string(table)] = at::randn({sizes.rows[table], width});
          // Not zeros: all of it is to be written.
          tensors["gradient" + std::to_string(table)] = at::ones({sizes.rows[table], width});
          outputs.push_back("gradient" + std::to_string(table));
        }
        const Call call = [&](StepKernels& kernels, const Tensors& t) {
          StepTables tables = sizes, gradients = sizes;
          for (int table = 0; table < kStepTables; ++table) {
            tables.table[table] = Pointer<float>(t, ("table" + std::to_string(table)).c_str());
            gradients.table[table] = Pointer<float>(t, ("gradient" + std::to_string(table)).c_str());
          }
          tables.token_type = Pointer<const float>(t, "type");
          const auto* const rows = Pointer<int32_t>(t, "rows");
          kernels.EmbeddingRows({sizes, batch, length, Pointer<const int64_t>(t, "ids"),
                                 Pointer<const int64_t>(t, "boxes"), Pointer<int32_t>(t, "rows")});
          kernels.EmbeddingSum({tables, batch * length, rows, Pointer<float>(t, "x")});
          const int64_t bytes = kernels.EmbeddingScratchBytes(sizes, batch * length);
          const at::Tensor scratch = at::empty({bytes}, t.at("x").options().dtype(at::kByte));
          kernels.EmbeddingGradient(
              {gradients, batch * length, rows, Pointer<const float>(t, "dx"), scratch.mutable_data_ptr(), bytes});
        };
        Compare("embeddings " + std::to_string(columns) + ", layout " + std::to_string(static_cast<int>(layout)) +
                    ", " + std::to_string(batch) + "x" + std::to_string(length),
                tensors, outputs, call);
      }
    }
  }
}

TEST_F(GpuStep, AdamEqualsTheReference) {
  for (const StepType type : {StepType::kFp32, StepType::kBf16}) {
    for (const bool decoupled : {false, true}) {
      const int64_t count = 64 * 1000, low_gradients = 64 * 300, low = 64 * 400;
      Tensors tensors = {{"state", MakeState()},
                         {"weights", at::randn({count})},
                         {"low", at::zeros({low}, LowType(type))},
                         {"low_gradients", at::randn({low_gradients}).to(LowType(type))},
                         {"gradients", at::randn({count - low_gradients})},
                         {"averages", at::randn({count}) * 0.1},
                         {"squares", at::rand({count})}};
      const Call call = [&](StepKernels& kernels, const Tensors& t) {
        StepAdam adam{};
        adam.type = type;
        adam.state = Pointer<const StepState>(t, "state");
        adam.learning_rate = 0.01F;
        adam.weight_decay = 0.01F;
        adam.beta1 = 0.9F;
        adam.beta2 = 0.999F;
        adam.rest1 = 0.1F;
        adam.rest2 = 0.001F;
        adam.epsilon = 1e-8F;
        adam.decoupled_decay = decoupled;
        adam.count = count;
        adam.low_gradient_count = low_gradients;
        adam.low_count = low;
        adam.weights = Pointer<float>(t, "weights");
        adam.low_weights = Pointer<void>(t, "low");
        adam.low_gradients = Pointer<const void>(t, "low_gradients");
        adam.gradients = Pointer<const float>(t, "gradients");
        adam.averages = Pointer<float>(t, "averages");
        adam.squares = Pointer<float>(t, "squares");
        for (int update = 0; update < 3; ++update) {
          kernels.BeginUpdate(Pointer<StepState>(t, "state"), 0.9, 0.999);
          kernels.Adam(adam);
        }
      };
      Compare(std::string("adam ") + Name(type), tensors, {"weights", "low", "averages", "squares"}, call);
    }
  }
}

TEST_F(GpuStep, StateCountsPassesAndUpdates) {
  const at::Tensor device = MakeState().to(at::kCUDA);
  auto* const state = static_cast<StepState*>(device.mutable_data_ptr());
  kernels_->BeginPass(state);
  kernels_->BeginPass(state);
  kernels_->BeginUpdate(state, 0.9, 0.999);
  const at::Tensor host = device.to(at::kCPU);
  const auto& result = *static_cast<const StepState*>(host.const_data_ptr());
  EXPECT_EQ(result.seed, 1234567890123u);
  EXPECT_EQ(result.passes, 7u);
  EXPECT_EQ(result.updates, 1u);
  EXPECT_FLOAT_EQ(result.average_correction, 0.1F);
  EXPECT_FLOAT_EQ(result.square_correction, std::sqrt(0.001F));
}

Batch MakeBatch(const ModelConfig& config, int64_t sequences, int64_t length, at::Device device) {
  at::manual_seed(8);
  Batch batch;
  batch.ids = at::randint(2, config.vocabulary, {sequences, length}, at::kLong);
  const at::Tensor corner = at::randint(0, 500, {sequences, length, 2}, at::kLong);
  batch.boxes = at::cat({corner, corner + at::randint(0, 500, {sequences, length, 2}, at::kLong)}, 2);
  batch.labels = at::randint(0, config.labels, {sequences, length}, at::kLong);
  batch.attention_mask = at::ones({sequences, length}, at::kLong);
  for (at::Tensor* tensor : batch.Tensors()) *tensor = tensor->to(device);
  return batch;
}

// With the hidden dropout on: the masks are the same on both.
TEST_F(GpuStep, WholeStepEqualsTheOneOnTheCpu) {
  for (const int64_t labels : {7, 12}) {
    ModelConfig config;
    config.layers = 2;
    config.vocabulary = 1000;
    config.labels = labels;
    config.attention_dropout = 0;
    std::map<std::string, at::Tensor> expected;
    at::Tensor logits;
    for (const at::DeviceType type : {at::kCPU, at::kCUDA}) {
      const at::Device device(type, type == at::kCUDA ? 0 : -1);
      Model model = MakeModel(config, device, 3);
      FusedTrainingStep step(model, at::kFloat, at::kFloat, 9);
      const Batch batch = MakeBatch(config, 2, 65, device);
      const ModelOutput output = step.Forward(model, *FindBackend("math").value(), batch, true);
      output.loss.backward();
      if (type == at::kCPU) {
        logits = output.logits.detach().to(at::kDouble);
      } else {
        EXPECT_LT(RelativeError(output.logits.detach().to(at::kCPU), logits), 1e-4);
      }
      VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& parameter) {
        if (!parameter.requires_grad()) return;
        const at::Tensor gradient = parameter.grad().to(at::kCPU, at::kDouble);
        if (type == at::kCPU) {
          expected[spec.name] = gradient;
        } else {
          EXPECT_LT(RelativeError(gradient, expected.at(spec.name), 1e-4), 1e-3) << spec.name;
        }
      });
    }
  }
}

RunHooks Hooks() {
  return {[](const Environment&, int64_t) {}, [](const Progress&) {}, [] { return false; }};
}

Config SmallRun() {
  Config config;
  config.batch = 4;
  config.sequence_length = 128;
  config.model.layers = 2;
  config.warmup_steps = 5;  // the fourth step is the first of a graph
  config.timed_steps = 10;
  config.learning_rate = 1e-4;
  config.data_loader_threads = 4;
  config.step = StepKind::kFused;
  config.check = true;
  return config;
}

// Measured, and as near to fp64 as mixed precision is.
void ExpectMeasuredAndRight(const RunResult& result, const char* name) {
  ASSERT_EQ(result.outcome, Outcome::kMeasured) << name << ": " << result.reason;
  ASSERT_TRUE(result.measurement.numerical_check.has_value());
  const NumericalCheck& check = *result.measurement.numerical_check;
  std::printf("%-10s output %.4f, loss %.5f, gradient %.4f (%s)\n", name, check.output_error, check.loss_error,
              check.gradient_error, check.gradient_worst.c_str());
  EXPECT_EQ(check.skipped, "") << name;
  EXPECT_LT(check.output_error, 0.05) << name;
  EXPECT_LT(check.gradient_error, 0.1) << name;
}

// Padded documents, of which padding is left out, and full sequences, of which the step is a CUDA graph.
void ExpectRunsWithEveryBackend(CudaDevice* gpu, Boxes boxes, StepKind step = StepKind::kFused) {
  for (const Backend* backend : Backends()) {
    Config config = SmallRun();
    config.boxes = boxes;
    config.step = step;
    const RunResult result = RunTraining(config, *backend, gpu, Hooks());
    if (result.outcome == Outcome::kUnsupported) continue;
    ASSERT_NO_FATAL_FAILURE(ExpectMeasuredAndRight(result, backend->name));
    EXPECT_NEAR(result.measurement.first_loss, std::log(10.0), 0.5) << backend->name;
    EXPECT_FALSE(result.measurement.attention_kernels.empty()) << result.measurement.attention_kernels_unknown;
  }
}

TEST_F(GpuStep, RunsWithoutPaddingWithEveryBackend) { ExpectRunsWithEveryBackend(gpu_, Boxes::kDocument); }

TEST_F(GpuStep, RunsAsAGraphWithEveryBackend) { ExpectRunsWithEveryBackend(gpu_, Boxes::kRandom); }

TEST_F(GpuStep, RunsWithAStreamOfBf16) {
  ExpectRunsWithEveryBackend(gpu_, Boxes::kDocument, StepKind::kFusedBf16Stream);
  ExpectRunsWithEveryBackend(gpu_, Boxes::kRandom, StepKind::kFusedBf16Stream);
}

// In mixed precision, with heads that the fused attention takes.
TEST_F(GpuStep, LearnsWhatTheReferenceLearns) {
  ModelConfig config;
  config.hidden_size = 128;
  config.heads = 2;
  config.layers = 2;
  config.intermediate_size = 256;
  config.coordinate_size = 20;
  config.shape_size = 24;
  config.labels = 4;
  config.vocabulary = 12;
  ExpectLearnsWhatTheReferenceLearns(
      {config, {at::kCUDA, 0}, true, 8, 64, 2e-3, FindBackend("eager").value(), FindBackend("fused").value()},
      {1, 2, 3, 4, 5}, {StepKind::kFused, StepKind::kFusedBf16Stream});
}

TEST_F(GpuStep, RunsWithTrainedTables) {
  for (const Boxes boxes : {Boxes::kDocument, Boxes::kRandom}) {
    for (const StepKind step : {StepKind::kReference, StepKind::kFused}) {
      Config config = SmallRun();
      config.boxes = boxes;
      config.step = step;
      config.model.train_bias_tables = true;
      ASSERT_NO_FATAL_FAILURE(
          ExpectMeasuredAndRight(RunTraining(config, *FindBackend("fused").value(), gpu_, Hooks()), "fused"));
    }
  }
}

// The gradients of the bias tables by name, from one pass in mixed precision, or in fp32 with the reference step.
std::map<std::string, at::Tensor> TableGradients(const char* backend, StepKind step, bool mixed, bool padded) {
  ModelConfig config;
  config.layers = 3;
  config.vocabulary = 1000;
  config.labels = 7;
  config.hidden_dropout = config.attention_dropout = 0;
  config.train_bias_tables = true;
  const at::Device device(at::kCUDA, 0);
  Model model = MakeModel(config, device, 3);
  {
    const at::NoGradGuard no_gradient;
    at::manual_seed(6);
    for (at::Tensor* table : {&model.rel_pos_bias, &model.rel_pos_x_bias, &model.rel_pos_y_bias}) {
      table->copy_(at::randn(table->sizes()) * 4);
    }
  }
  Batch batch = MakeBatch(config, 4, 193, device);
  if (padded) {
    batch.padded = true;
    batch.attention_mask[1].narrow(0, 100, 93).zero_();
    batch.labels[1].narrow(0, 100, 93).fill_(kIgnoredLabel);
  }
  std::unique_ptr<FusedTrainingStep> fused;
  if (step == StepKind::kFused) {
    fused = std::make_unique<FusedTrainingStep>(model, at::kBFloat16, at::kFloat, 9);
    batch.rows = TokensThatMatter(batch);
  }
  at::Tensor loss;
  {
    const Autocast autocast(mixed, at::kCUDA);
    const Backend& kernels = *FindBackend(backend).value();
    loss = fused != nullptr ? fused->Forward(model, kernels, batch, true).loss
                            : Forward(model, kernels, batch, mixed ? at::kBFloat16 : at::kFloat, true).loss;
  }
  loss.backward();
  std::map<std::string, at::Tensor> gradients;
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& parameter) {
    if (spec.kind == ParameterKind::kBiasTable) gradients[spec.name] = parameter.grad().to(at::kDouble);
  });
  return gradients;
}

// No farther from fp32 than the other paths that have these gradients, over all layers, whichever the step is. (A table
// has 32 or 64 numbers, so the error of one model is itself a matter of chance.)
TEST_F(GpuStep, TrainedTablesGetTheGradientsThatOtherBackendsGive) {
  for (const bool padded : {false, true}) {
    const auto exact = TableGradients("math", StepKind::kReference, /*mixed=*/false, padded);
    ASSERT_EQ(exact.size(), 3u);
    for (const StepKind step : {StepKind::kReference, StepKind::kFused}) {
      const auto fused = TableGradients("fused", step, /*mixed=*/true, padded);
      const auto math = TableGradients("math", step, /*mixed=*/true, padded);
      const auto efficient = TableGradients("efficient", step, /*mixed=*/true, padded);
      for (const auto& [name, gradient] : exact) {
        const double error = RelativeError(fused.at(name), gradient),
                     math_error = RelativeError(math.at(name), gradient),
                     efficient_error = RelativeError(efficient.at(name), gradient);
        std::printf("%s step, padded %d, %s: fused %.4f, math %.4f, efficient %.4f\n",
                    step == StepKind::kFused ? "fused" : "reference", padded, name.c_str(), error, math_error,
                    efficient_error);
        EXPECT_LT(error, 2 * std::max(math_error, efficient_error) + 0.005) << name;
        EXPECT_LT(error, 0.05) << name;
      }
    }
  }
}

// A replay of the step gives the tables the bits that the step gave them.
TEST_F(GpuStep, TrainedTablesGetTheSameGradientsInAGraph) {
  ModelConfig config;
  config.layers = 2;
  config.vocabulary = 1000;
  config.hidden_dropout = config.attention_dropout = 0;
  config.train_bias_tables = true;
  gpu_->UseOwnStream();
  Model model = MakeModel(config, {at::kCUDA, 0}, 3);
  FusedTrainingStep step(model, at::kBFloat16, at::kFloat, 9);
  const Batch batch = MakeBatch(config, 2, 130, {at::kCUDA, 0});
  const auto pass = [&] { step.Forward(model, *FindBackend("fused").value(), batch, true).loss.backward(); };
  const auto gradients = [&] {
    return at::cat({model.rel_pos_bias.grad().view(-1), model.rel_pos_x_bias.grad().view(-1),
                    model.rel_pos_y_bias.grad().view(-1)});
  };
  for (int i = 0; i < 3; ++i) pass();
  const at::Tensor expected = gradients();
  EXPECT_GT(expected.abs().max().item<double>(), 0);
  const std::unique_ptr<RecordedWork> recorded = gpu_->Record(pass);
  for (int i = 0; i < 3; ++i) {
    recorded->Replay();
    EXPECT_TRUE(gradients().equal(expected)) << i;
  }
}

TEST_F(GpuStep, SameSeedSameLoss) {
  for (const Boxes boxes : {Boxes::kDocument, Boxes::kRandom}) {
    Config config = SmallRun();
    config.check = false;
    config.boxes = boxes;
    const double first = RunTraining(config, *FindBackend("fused").value(), gpu_, Hooks()).measurement.last_loss;
    EXPECT_EQ(RunTraining(config, *FindBackend("fused").value(), gpu_, Hooks()).measurement.last_loss, first);
  }
}

// Every replay drops anew, outside attention and in it: on one batch again and again, without learning, losses differ.
TEST_F(GpuStep, EveryReplayDropsAnew) {
  for (const bool attention : {false, true}) {
    ModelConfig config;
    config.layers = 1;
    config.vocabulary = 1000;
    config.hidden_dropout = attention ? 0 : 0.1;
    config.attention_dropout = attention ? 0.1 : 0;
    gpu_->UseOwnStream();
    Model model = MakeModel(config, {at::kCUDA, 0}, 3);
    FusedTrainingStep step(model, at::kBFloat16, at::kFloat, 9);
    const Batch batch = MakeBatch(config, 2, 64, {at::kCUDA, 0});
    at::Tensor loss;
    const auto pass = [&] {
      loss = step.Forward(model, *FindBackend("fused").value(), batch, true).loss;
      loss.backward();
      loss = loss.detach();
    };
    for (int i = 0; i < 3; ++i) pass();
    const std::unique_ptr<RecordedWork> recorded = gpu_->Record(pass);
    std::set<float> losses;
    for (int i = 0; i < 8; ++i) {
      recorded->Replay();
      losses.insert(loss.item<float>());
    }
    EXPECT_EQ(losses.size(), 8u) << "attention: " << attention;
  }
}

// The same losses as step by step: a replay is the step, on the batch that it is given.
TEST_F(GpuStep, GraphComputesWhatTheStepComputes) {
  Config config = SmallRun();
  config.check = false;
  config.model.hidden_dropout = config.model.attention_dropout = 0;
  config.boxes = Boxes::kRandom;
  const Backend& backend = *FindBackend("fused").value();
  const Measurement graph = RunTraining(config, backend, gpu_, Hooks()).measurement;
  config.step = StepKind::kReference;
  const Measurement reference = RunTraining(config, backend, gpu_, Hooks()).measurement;
  std::printf("last loss: graph %.5f, reference step %.5f\n", graph.last_loss, reference.last_loss);
  EXPECT_NEAR(graph.last_loss, reference.last_loss, 0.02);
}

}  // namespace
}  // namespace attnfleet::trainer
