#include "worker/trainer/training.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <stdexcept>

#include "small_model.h"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/data_loader.h"
#include "worker/trainer/environment.h"

namespace attnfleet::trainer {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;

Config TinyConfig() {
  Config config;
  config.batch = 2;
  config.sequence_length = 16;
  config.model = SmallModel();
  config.warmup_steps = 1;
  config.timed_steps = 4;
  config.learning_rate = 0.01;
  config.data_loader_threads = 2;
  config.boxes = Boxes::kRandom;
  return config;
}

struct Log {
  int started = 0;
  std::vector<Progress> progress;
  int steps_until_stop = 1 << 30;

  RunHooks Hooks() {
    return {[this](const Environment&, int64_t) { ++started; },
            [this](const Progress& report) { progress.push_back(report); }, [this] { return steps_until_stop-- <= 0; }};
  }
};

// A backend that does something else in its forward.
Backend With(at::Tensor (*forward)(const AttentionInput&)) {
  Backend backend = *FindBackend("eager").value();
  backend.forward = forward;
  return backend;
}

TEST(Training, MeasuresEveryTimedStep) {
  Log log;
  const RunResult result = RunTraining(TinyConfig(), *Backends()[0], nullptr, log.Hooks());
  ASSERT_EQ(result.outcome, Outcome::kMeasured) << result.reason;
  EXPECT_EQ(result.measurement.step_seconds.size(), 4u);
  double sum = 0;
  for (const double seconds : result.measurement.step_seconds) sum += seconds;
  EXPECT_LE(sum, result.measurement.wall_seconds);
  EXPECT_GT(result.measurement.peak_resident_bytes, 10'000'000);
  EXPECT_NEAR(result.measurement.first_loss, std::log(10.0), 0.5);
  EXPECT_EQ(result.environment.precision, "fp32");
  EXPECT_FALSE(result.environment.build_id.empty());
  EXPECT_EQ(log.started, 1);
  ASSERT_FALSE(log.progress.empty());
  EXPECT_EQ(log.progress.back().phase, Phase::kTimed);
  EXPECT_EQ(log.progress.back().steps_done, 4);
}

TEST(Training, WarmUpGoesOnUntilTheSpeedIsStableOrTheLimit) {
  Config config = TinyConfig();
  config.warmup_limit = 400;
  Log log;
  const Measurement result = RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement;
  EXPECT_GE(result.warmup_steps, 10);
  EXPECT_LE(result.warmup_steps, 400);
  EXPECT_TRUE(result.warmup_stable || result.warmup_steps == 400);
  config.warmup_steps = config.warmup_limit = 3;
  EXPECT_EQ(RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement.warmup_steps, 3);
}

TEST(Training, StopsOnceTheSpeedIsKnownWellEnough) {
  Config config = TinyConfig();
  config.timed_steps = 1000;
  config.ci_width = 100;  // whatever else this machine does
  Log log;
  const Measurement result = RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement;
  const double speed = static_cast<double>(result.step_seconds.size()) / result.wall_seconds;
  EXPECT_GE(result.step_seconds.size(), 20u);
  EXPECT_LT(result.step_seconds.size(), 1000u);
  EXPECT_LT(result.iterations_per_second_low, speed);
  EXPECT_GT(result.iterations_per_second_high, speed);
  EXPECT_EQ(log.progress.back().steps_done, log.progress.back().steps_total);
}

TEST(Training, IntervalOfAFewStepsIsUnknown) {
  Log log;
  const Measurement result = RunTraining(TinyConfig(), *Backends()[0], nullptr, log.Hooks()).measurement;
  EXPECT_EQ(result.iterations_per_second_low, 0);
  EXPECT_EQ(result.iterations_per_second_high, 0);
}

TEST(Training, SaysHowMuchTheModelHolds) {
  Config config = TinyConfig();
  Log log;
  const Measurement result = RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement;
  const int64_t tables = 4 * config.model.heads * (kRelativeBuckets + 2 * kSpatialBuckets);  // without gradients
  const int64_t parameters = 4 * CountParameters(config.model);
  EXPECT_EQ(result.gradient_bytes, parameters - tables);
  EXPECT_GT(result.model_bytes, parameters);  // and the bucket tables
  EXPECT_GT(result.optimizer_bytes, 2 * result.gradient_bytes);
  EXPECT_LT(result.optimizer_bytes, 2 * result.gradient_bytes + 1000);
  EXPECT_EQ(result.activation_bytes, 0);
}

TEST(Training, SaysHowMuchWorkAStepIs) {
  Log log;
  const Measurement result = RunTraining(TinyConfig(), *Backends()[0], nullptr, log.Hooks()).measurement;
  EXPECT_EQ(result.tokens_per_iteration, 2 * 16);
  EXPECT_GT(result.model_flops_per_iteration, 6.0 * (4 * 24 * 24 + 2 * 24 * 32) * 32);
  EXPECT_EQ(result.peak_flops_per_second, 0);
}

TEST(Training, NamesTheOperatorsOfAttention) {
  const auto operators = [](const char* name) {
    Config config = TinyConfig();
    config.sequence_length = 256;        // so that the softmax counts
    config.model.attention_dropout = 0;  // with it LibTorch has no fused attention on the CPU
    Log log;
    return RunTraining(config, *FindBackend(name).value(), nullptr, log.Hooks()).measurement.attention_kernels;
  };
  const std::vector<std::string> eager = operators("eager");
  EXPECT_THAT(eager, IsSupersetOf({"aten::bmm", "aten::_softmax"}));
  EXPECT_THAT(eager, Not(Contains("aten::addmm")));  // of the linear maps around it
  EXPECT_LE(eager.size(), 16u);
  EXPECT_THAT(operators("sdpa"), Contains(HasSubstr("attention")));
}

TEST(Training, ChecksTheBackendWhereAsked) {
  Config config = TinyConfig();
  Log log;
  EXPECT_FALSE(RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement.numerical_check.has_value());
  config.check = true;
  const RunResult result = RunTraining(config, *FindBackend("sdpa").value(), nullptr, log.Hooks());
  ASSERT_TRUE(result.measurement.numerical_check.has_value()) << result.reason;
  EXPECT_EQ(result.measurement.numerical_check->samples, 2);
  EXPECT_LT(result.measurement.numerical_check->gradient_error, 1e-4);
}

TEST(Training, BackendThatFailsUnderTheProfilerIsMeasuredAllTheSame) {
  static int calls = 0;
  calls = 0;
  const Backend backend = With([](const AttentionInput& input) -> at::Tensor {
    if (++calls > 5) throw std::runtime_error("not again");
    return input.q + input.k + input.v;
  });
  Log log;
  const RunResult result = RunTraining(TinyConfig(), backend, nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kMeasured) << result.reason;
  EXPECT_THAT(result.measurement.attention_kernels_unknown, HasSubstr("not again"));
}

TEST(Training, LossFalls) {
  Config config = TinyConfig();
  config.model.hidden_dropout = config.model.attention_dropout = 0;
  config.model.labels = 2;
  config.model.vocabulary = 2;  // nothing to learn: the loss falls to ln 2 from wherever it began
  config.timed_steps = 60;
  Log log;
  const RunResult result = RunTraining(config, *Backends()[0], nullptr, log.Hooks());
  ASSERT_EQ(result.outcome, Outcome::kMeasured) << result.reason;
  EXPECT_LT(result.measurement.last_loss, 0.9);
}

TEST(Training, SameSeedSameLossWhateverTheLoaderThreads) {
  Config config = TinyConfig();
  Log log;
  const double loss = RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement.last_loss;
  for (const int threads : {0, 1, 7}) {
    config.data_loader_threads = threads;
    EXPECT_EQ(RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement.last_loss, loss) << threads;
  }
  config.seed = 1;
  EXPECT_NE(RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement.last_loss, loss);
}

TEST(Training, EveryPrecisionOfTheCpuTrainsWithEveryBackendOfTheCpu) {
  for (const auto& [precision, name] : {std::pair{Precision::kFp32, "fp32"}, std::pair{Precision::kBf16, "bf16"},
                                        std::pair{Precision::kBf16Mixed, "bf16-mixed"}}) {
    for (const Backend* backend : Backends()) {
      if (!backend->cpu) continue;
      Config config = TinyConfig();
      config.precision = precision;
      config.model.hidden_dropout = config.model.attention_dropout = 0;
      Log log;
      const RunResult result = RunTraining(config, *backend, nullptr, log.Hooks());
      ASSERT_EQ(result.outcome, Outcome::kMeasured) << name << " " << backend->name << ": " << result.reason;
      EXPECT_EQ(result.environment.precision, name);
      config.precision = Precision::kFp32;
      const double exact = RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement.first_loss;
      EXPECT_NEAR(result.measurement.first_loss, exact, 0.02) << name << " " << backend->name;
    }
  }
}

TEST(Training, Tf32IsRefusedOnTheCpu) {
  Config config = TinyConfig();
  config.precision = Precision::kTf32;
  Log log;
  const RunResult result = RunTraining(config, *Backends()[0], nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kUnsupported);
  EXPECT_THAT(result.reason, HasSubstr("the CPU has no TF32"));
  EXPECT_EQ(result.environment.precision, "tf32");
}

TEST(Training, CountsTokensThatAreNoPadding) {
  Config config = TinyConfig();
  Log log;
  EXPECT_EQ(RunTraining(config, *Backends()[0], nullptr, log.Hooks()).measurement.tokens_per_iteration, 2 * 16);
  config.boxes = Boxes::kDocument;
  for (const Backend* backend : Backends()) {
    if (!backend->cpu) continue;
    const RunResult result = RunTraining(config, *backend, nullptr, log.Hooks());
    ASSERT_EQ(result.outcome, Outcome::kMeasured) << result.reason;
    EXPECT_LT(result.measurement.tokens_per_iteration, 2 * 16);
    EXPECT_GE(result.measurement.tokens_per_iteration, 2 * 4);
  }
}

TEST(Training, PaddingIsKnownBeforeTheFirstStep) {
  Backend backend = *Backends()[0];
  backend.refuse = [](const AttentionProblem& problem) -> std::optional<std::string> {
    if (problem.padded) return "takes no padding";
    return std::nullopt;
  };
  Config config = TinyConfig();
  Log log;
  EXPECT_EQ(RunTraining(config, backend, nullptr, log.Hooks()).outcome, Outcome::kMeasured);
  config.boxes = Boxes::kDocument;
  EXPECT_EQ(RunTraining(config, backend, nullptr, log.Hooks()).outcome, Outcome::kUnsupported);
}

TEST(Training, TrainsOnAFileOfDocuments) {
  Config config = TinyConfig();
  config.data = testing::TempDir() + "training.jsonl";
  std::ofstream(config.data) << R"({"ids":[0,7,2],"boxes":[[0,0,0,0],[1,2,3,4],[0,0,0,0]],"labels":[-100,3,-100]})";
  Log log;
  RunResult result = RunTraining(config, *Backends()[0], nullptr, log.Hooks());
  ASSERT_EQ(result.outcome, Outcome::kMeasured) << result.reason;
  EXPECT_EQ(result.measurement.tokens_per_iteration, 2 * 3);
  std::ofstream(config.data) << "[]";
  result = RunTraining(config, *Backends()[0], nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kFailed);
  EXPECT_EQ(result.reason.find("--data: " + config.data + ":1: no JSON object"), 0u) << result.reason;
}

TEST(Training, StopsAtTheNextStep) {
  Log log;
  log.steps_until_stop = 2;
  EXPECT_EQ(RunTraining(TinyConfig(), *Backends()[0], nullptr, log.Hooks()).outcome, Outcome::kCancelled);
}

TEST(Training, RefusalIsUnsupportedWithItsReason) {
  Backend backend = *Backends()[0];
  backend.refuse = [](const AttentionProblem&) -> std::optional<std::string> { return "takes no bias"; };
  Log log;
  RunResult result = RunTraining(TinyConfig(), backend, nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kUnsupported);
  EXPECT_EQ(result.reason, "takes no bias");
  backend.cpu = false;
  result = RunTraining(TinyConfig(), backend, nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kUnsupported);
  EXPECT_THAT(result.reason, HasSubstr("does not run on the CPU"));
}

TEST(Training, AllocationThatCannotBeIsOutOfMemory) {
  const Backend backend = With([](const AttentionInput&) { return at::empty({int64_t{1} << 50}); });
  Log log;
  const RunResult result = RunTraining(TinyConfig(), backend, nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kOutOfMemory) << result.reason;
  EXPECT_EQ(result.memory_phase, "forward");
  EXPECT_EQ(result.out_of_memory.requested_bytes, int64_t{1} << 52);
  EXPECT_TRUE(result.out_of_memory.host_memory);
  EXPECT_GT(result.out_of_memory.total_bytes, 0);
  EXPECT_LT(result.out_of_memory.free_bytes, result.out_of_memory.total_bytes);
}

TEST(Environment, OfAMigInstanceIsTheInstance) {
  EXPECT_EQ(FirstMigInstance("MIG-11aa,MIG-22bb"), "MIG-11aa");
  for (const char* other : {"", "0", "GPU-11aa", "GPU-11aa,MIG-22bb"}) EXPECT_EQ(FirstMigInstance(other), "") << other;
}

TEST(Training, CudaAllocatorsErrorIsOutOfMemoryWithItsFigures) {
  const Backend backend = With([](const AttentionInput&) -> at::Tensor {
    TORCH_CHECK_WITH(OutOfMemoryError, false,
                     "CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 80.00 GiB of which "
                     "1.00 GiB is free.");
  });
  Log log;
  RunResult result = RunTraining(TinyConfig(), backend, nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kOutOfMemory);
  EXPECT_EQ(result.out_of_memory.requested_bytes, 3LL << 30);
  EXPECT_THAT(result.reason, HasSubstr("out of memory in forward"));
  EXPECT_EQ(result.reason.find('\n'), std::string::npos);
}

TEST(Training, AnyOtherErrorIsAFailureWithItsText) {
  const Backend backend =
      With([](const AttentionInput&) -> at::Tensor { throw std::runtime_error("kernel\nexploded"); });
  Log log;
  const RunResult result = RunTraining(TinyConfig(), backend, nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kFailed);
  EXPECT_EQ(result.reason, "failed in forward: kernel");
}

TEST(Training, LossThatIsNoNumberIsMeasured) {
  const Backend backend =
      With([](const AttentionInput& input) { return (input.q + input.k + input.v) * std::nan(""); });
  Log log;
  const RunResult result = RunTraining(TinyConfig(), backend, nullptr, log.Hooks());
  EXPECT_EQ(result.outcome, Outcome::kMeasured) << result.reason;
  EXPECT_TRUE(std::isnan(result.measurement.last_loss));
}

}  // namespace
}  // namespace attnfleet::trainer
