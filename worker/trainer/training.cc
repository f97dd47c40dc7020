#include "worker/trainer/training.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <c10/util/Exception.h>

#include <chrono>
#include <memory>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/trainer/data_loader.h"
#include "worker/trainer/document_file.h"
#include "worker/trainer/environment.h"
#include "worker/trainer/model.h"
#include "worker/trainer/optimizer.h"
#include "worker/trainer/precision.h"

namespace attnfleet::trainer {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kProgressPeriod{200};

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Mixed precision for a scope: matrix products in bf16, weights kept in fp32. The casts of the weights are cached for
// one forward pass and dropped at its end, as torch.autocast does.
class Autocast {
 public:
  Autocast(bool enabled, at::DeviceType device) : enabled_(enabled), device_(device) {
    if (!enabled_) return;
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::set_autocast_enabled(device_, true);
  }
  ~Autocast() {
    if (!enabled_) return;
    at::autocast::set_autocast_enabled(device_, false);
    at::autocast::clear_cache();
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  const bool enabled_;
  const at::DeviceType device_;
};

// Durations of the timed steps: device events on CUDA, where the host runs ahead, else the clock.
class StepTimer {
 public:
  explicit StepTimer(CudaDevice* cuda) : cuda_(cuda) {}

  // At the beginning and after every step.
  void Mark() {
    if (cuda_ != nullptr) {
      cuda_->Mark();
    } else {
      marks_.push_back(Clock::now());
    }
  }

  std::vector<double> TakeIntervals() {
    if (cuda_ != nullptr) return cuda_->TakeIntervals();
    std::vector<double> seconds;
    for (size_t i = 1; i < marks_.size(); ++i) seconds.push_back(Seconds(marks_[i] - marks_[i - 1]));
    marks_.clear();
    return seconds;
  }

 private:
  CudaDevice* const cuda_;
  std::vector<Clock::time_point> marks_;
};

struct Cancelled {};

// One run from set-up to figures. `stage` tells where it was when something was thrown.
class Run {
 public:
  Run(const Config& config, const Backend& backend, CudaDevice* cuda, const RunHooks& hooks)
      : config_(config),
        backend_(backend),
        cuda_(cuda),
        hooks_(hooks),
        device_(cuda != nullptr ? at::kCUDA : at::kCPU, cuda != nullptr ? 0 : -1),
        mixed_(config.precision == Precision::kBf16Mixed) {}

  // Reads --data, before anything is said about this run.
  absl::Status ReadDocuments() {
    if (config_.data.empty()) return absl::OkStatus();
    absl::StatusOr<DocumentFile> file =
        DocumentFile::Read(config_.data, {config_.sequence_length, config_.model.vocabulary, config_.model.labels});
    if (file.ok()) documents_ = std::make_shared<const DocumentFile>(*std::move(file));
    return file.status();
  }

  // Why this backend cannot do this run, or nothing.
  std::optional<std::string> Refusal() const {
    if (cuda_ != nullptr ? !backend_.cuda : !backend_.cpu) {
      return absl::StrCat(backend_.name, " does not run on ", cuda_ != nullptr ? "CUDA" : "the CPU");
    }
    AttentionProblem problem = MakeProblem(config_.model, config_.batch, config_.sequence_length, cuda_ != nullptr,
                                           compute_type(), /*padded=*/false, /*training=*/true);
    if (cuda_ != nullptr) problem.compute_capability = cuda_->Info().compute_capability;
    if (auto reason = RefusePrecision(config_.precision, problem.cuda, problem.compute_capability)) return reason;
    problem.padded = documents_ ? documents_->padded() : config_.boxes == Boxes::kDocument;
    return backend_.refuse(problem);
  }

  Measurement Measure(const Environment& environment);

  const char* stage() const { return stage_; }

 private:
  at::ScalarType compute_type() const { return ComputeType(config_.precision); }

  void Synchronize() {
    if (cuda_ != nullptr) cuda_->Synchronize();
  }

  Batch NextBatch() {
    const Clock::time_point begin = Clock::now();
    Batch batch = loader_->Next();
    data_wait_ += Clock::now() - begin;
    tokens_ += batch.tokens;
    if (cuda_ == nullptr) return batch;
    for (at::Tensor* tensor : {&batch.ids, &batch.boxes, &batch.labels, &batch.attention_mask}) {
      *tensor = tensor->to(device_, /*non_blocking=*/true);
    }
    return batch;
  }

  void SetUp();
  at::Tensor Step();
  void Report(Phase phase, int done, int total);
  void RunPhase(Phase phase, int steps, const std::function<void()>& after_step);

  const Config& config_;
  const Backend& backend_;
  CudaDevice* const cuda_;
  const RunHooks& hooks_;
  const at::Device device_;
  const bool mixed_;
  const Clock::time_point begin_ = Clock::now();

  const char* stage_ = "set-up";
  Clock::time_point last_report_{};
  Clock::time_point steps_begin_{};
  Clock::duration data_wait_{};
  int64_t tokens_ = 0;                 // of text, without padding
  at::Tensor first_loss_, last_loss_;  // on the device: reading one would wait for it
  Model model_;
  std::optional<AdamOptimizer> optimizer_;
  std::shared_ptr<const DocumentFile> documents_;  // of --data; null: synthetic ones
  std::optional<DataLoader> loader_;
};

void Run::SetUp() {
  SyntheticSpec data;
  data.batch = config_.batch;
  data.sequence_length = config_.sequence_length;
  data.vocabulary = config_.model.vocabulary;
  data.labels = config_.model.labels;
  data.boxes = config_.boxes;
  data.seed = config_.seed;
  const BatchFiller fill = [data, documents = documents_](uint64_t index, const BatchBuffers& buffers) {
    if (documents) return documents->FillBatch(data.batch, data.seed, index, buffers);
    FillBatch(data, index, buffers);
  };
  loader_.emplace(data.batch, data.sequence_length, fill, config_.data_loader_threads, /*pinned=*/cuda_ != nullptr);

  at::manual_seed(config_.seed);  // of dropout
  model_ = MakeModel(config_.model, device_, config_.seed);
  std::vector<at::Tensor> trained;
  VisitParameters(model_, [&](const ParameterSpec&, at::Tensor& tensor) {
    const at::ScalarType type = WeightType(config_.precision);
    if (tensor.scalar_type() != type) tensor = tensor.detach().to(type).requires_grad_(tensor.requires_grad());
    if (tensor.requires_grad()) trained.push_back(tensor);
  });
  optimizer_.emplace(config_.optimizer, config_.learning_rate, std::move(trained));
}

at::Tensor Run::Step() {
  const Batch batch = NextBatch();
  at::Tensor loss;
  {
    stage_ = "forward";
    const Autocast autocast(mixed_, device_.type());
    loss = Forward(model_, backend_, batch, compute_type(), /*training=*/true).loss;
  }
  stage_ = "backward";
  loss.backward();
  stage_ = "optimiser step";
  optimizer_->Step();
  optimizer_->DropGradients();
  return loss.detach();
}

void Run::Report(Phase phase, int done, int total) {
  const Clock::time_point now = Clock::now();
  if (now - last_report_ < kProgressPeriod && done != total) return;
  last_report_ = now;
  Progress progress{phase, done, total, Seconds(now - begin_), 0};
  const int all = config_.warmup_steps + config_.timed_steps;
  const int all_done = phase == Phase::kTimed ? config_.warmup_steps + done : done;
  if (all_done > 0) progress.remaining_seconds = Seconds(now - steps_begin_) / all_done * (all - all_done);
  hooks_.progress(progress);
}

void Run::RunPhase(Phase phase, int steps, const std::function<void()>& after_step) {
  for (int step = 0; step < steps; ++step) {
    if (hooks_.stop_requested()) throw Cancelled();
    last_loss_ = Step();
    if (!first_loss_.defined()) first_loss_ = last_loss_;
    after_step();
    Report(phase, step + 1, steps);
  }
}

Measurement Run::Measure(const Environment& environment) {
  hooks_.started(environment, CountParameters(config_.model));
  Report(Phase::kSetup, 0, 0);
  SetUp();

  steps_begin_ = Clock::now();
  RunPhase(Phase::kWarmup, config_.warmup_steps, [] {});
  Synchronize();
  data_wait_ = {};
  tokens_ = 0;
  if (cuda_ != nullptr) cuda_->ResetPeaks();

  StepTimer timer(cuda_);
  const Clock::time_point timed_begin = Clock::now();
  timer.Mark();
  RunPhase(Phase::kTimed, config_.timed_steps, [&] { timer.Mark(); });
  Synchronize();

  Measurement result;
  result.wall_seconds = Seconds(Clock::now() - timed_begin);
  result.warmup_steps = config_.warmup_steps;
  result.data_wait_seconds = Seconds(data_wait_);
  result.tokens_per_iteration = tokens_ / config_.timed_steps;
  result.step_seconds = timer.TakeIntervals();
  result.first_loss = first_loss_.item<double>();
  result.last_loss = last_loss_.item<double>();
  if (cuda_ != nullptr) {
    const CudaMemoryPeaks peaks = cuda_->Peaks();
    result.peak_allocated_bytes = peaks.allocated_bytes;
    result.peak_reserved_bytes = peaks.reserved_bytes;
    result.peak_device_bytes = peaks.device_bytes;
  }
  result.peak_resident_bytes = PeakResidentBytes();
  return result;
}

std::string FirstLine(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

void SetOutOfMemory(RunResult& result, const char* stage, std::string_view message) {
  result.outcome = Outcome::kOutOfMemory;
  result.reason = absl::StrCat("out of memory in ", stage, ": ", FirstLine(message));
  result.memory_phase = stage;
  result.out_of_memory = ParseOutOfMemory(message);
  if (!result.environment.cuda) {
    result.out_of_memory.total_bytes = HostMemoryBytes();
    result.out_of_memory.free_bytes = FreeHostMemoryBytes();
  }
}

void SetFailed(RunResult& result, const char* stage, std::string_view message) {
  result.outcome = Outcome::kFailed;
  result.reason = absl::StrCat("failed in ", stage, ": ", FirstLine(message));
}

}  // namespace

RunResult RunTraining(const Config& given, const Backend& backend, CudaDevice* cuda, const RunHooks& hooks) {
  Config config = given;
  config.precision = ResolvePrecision(config.precision, cuda != nullptr);
  SetFp32Products(config.precision);
  RunResult result;
  result.environment.cuda = cuda != nullptr;
  Run run(config, backend, cuda, hooks);
  try {
    result.environment = DescribeEnvironment(cuda, config.precision, config.seed);
    if (const absl::Status data = run.ReadDocuments(); !data.ok()) {
      result.reason = absl::StrCat("--data: ", std::string(data.message()));
      return result;  // failed
    }
    if (const std::optional<std::string> refusal = run.Refusal()) {
      result.outcome = Outcome::kUnsupported;
      result.reason = *refusal;
      return result;
    }
    result.measurement = run.Measure(result.environment);
    result.outcome = Outcome::kMeasured;
  } catch (const Cancelled&) {
    result.outcome = Outcome::kCancelled;
    result.reason = "stopped by a signal";
  } catch (const c10::OutOfMemoryError& error) {
    SetOutOfMemory(result, run.stage(), error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    SetOutOfMemory(result, run.stage(), "the host's memory is used up");
  } catch (const c10::Error& error) {
    if (IsCpuOutOfMemory(error.what_without_backtrace())) {
      SetOutOfMemory(result, run.stage(), error.what_without_backtrace());
    } else {
      SetFailed(result, run.stage(), error.what_without_backtrace());
    }
  } catch (const std::exception& error) {
    SetFailed(result, run.stage(), error.what());
  }
  return result;
}

}  // namespace attnfleet::trainer
