#include "worker/trainer/run.h"

#include <ATen/Context.h>

#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/trainer/attention_profile.h"
#include "worker/trainer/autocast.h"
#include "worker/trainer/check.h"
#include "worker/trainer/checkpoint.h"
#include "worker/trainer/confidence.h"
#include "worker/trainer/environment.h"
#include "worker/trainer/flops.h"
#include "worker/trainer/host_memory.h"
#include "worker/trainer/image.h"
#include "worker/trainer/step_timer.h"
#include "worker/trainer/warmup.h"

namespace attnfleet::trainer {
namespace {

constexpr std::chrono::milliseconds kProgressPeriod{200};
constexpr int kStepsBetweenConfidenceChecks = 5;

double Seconds(std::chrono::steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

Run::Run(const Config& config, const Backend& backend, CudaDevice* cuda, const RunHooks& hooks, GpuWatch* watch)
    : config_(config),
      backend_(backend),
      cuda_(cuda),
      hooks_(hooks),
      watch_(cuda != nullptr ? watch : nullptr),
      device_(cuda != nullptr ? at::kCUDA : at::kCPU, cuda != nullptr ? 0 : -1),
      mixed_(config.precision == Precision::kBf16Mixed) {}

absl::Status Run::ReadDocuments() {
  if (config_.data.empty()) return absl::OkStatus();
  absl::StatusOr<DocumentFile> file =
      DocumentFile::Read(config_.data, {config_.sequence_length, config_.model.vocabulary, config_.model.labels});
  if (file.ok()) documents_ = std::make_shared<const DocumentFile>(*std::move(file));
  return file.status();
}

std::optional<std::string> Run::Refusal() const {
  if (cuda_ != nullptr ? !backend_.cuda : !backend_.cpu) {
    return absl::StrCat(backend_.name, " does not run on ", cuda_ != nullptr ? "CUDA" : "the CPU");
  }
  AttentionProblem problem = MakeProblem(config_.model, config_.batch, config_.sequence_length, cuda_ != nullptr,
                                         compute_type(), /*padded=*/false, /*training=*/true);
  if (cuda_ != nullptr) problem.compute_capability = cuda_->Info().compute_capability;
  if (auto reason = RefusePrecision(config_.precision, problem.cuda, problem.compute_capability)) return reason;
  if (auto reason = RefuseStep(config_.step, config_.precision)) return reason;
  problem.padded = documents_ ? documents_->padded() : config_.boxes == Boxes::kDocument;
  return backend_.refuse(problem);
}

void Run::Synchronize() {
  if (cuda_ != nullptr) cuda_->Synchronize();
}

Batch Run::NextBatch() {
  const Clock::time_point begin = Clock::now();
  Batch batch = loader_->Next();
  data_wait_ += Clock::now() - begin;
  tokens_ += batch.tokens;
  if (fused_.has_value() && !records_) batch.rows = TokensThatMatter(batch);
  if (cuda_ == nullptr) return batch;
  if (batch.rows.defined()) batch.rows = batch.rows.to(device_, /*non_blocking=*/true);
  for (at::Tensor* tensor : batch.Tensors()) {
    *tensor = tensor->to(device_, /*non_blocking=*/true);
  }
  return batch;
}

// One pass over the batch; leaves the gradients and returns the loss.
at::Tensor Run::ForwardAndBackward(const Backend& backend, const Batch& batch) {
  at::Tensor loss;
  {
    stage_ = "forward";
    const Autocast autocast(mixed_, device_.type());
    loss = fused_.has_value() ? fused_->Forward(model_, backend, batch, /*training=*/true).loss
                              : Forward(model_, backend, batch, compute_type(), /*training=*/true).loss;
  }
  stage_ = "backward";
  loss.backward();
  return loss.detach();
}

void Run::UpdateWeights() {
  stage_ = "optimiser step";
  if (fused_adam_.has_value()) {
    fused_adam_->Step();
  } else {
    optimizer_->Step();
    optimizer_->DropGradients();
  }
}

// A step of the recording, which is made first where there is none.
void Run::RecordedStep() {
  Batch batch = NextBatch();
  if (recorded_ == nullptr) {
    recorded_batch_ = batch;
    recorded_ = cuda_->Record([this] {
      recorded_loss_ = ForwardAndBackward(backend_, recorded_batch_);
      UpdateWeights();
    });
  } else {
    const std::vector<at::Tensor*> from = batch.Tensors(), to = recorded_batch_.Tensors();
    for (size_t i = 0; i < from.size(); ++i) to[i]->copy_(*from[i], /*non_blocking=*/true);
  }
  recorded_->Replay();
}

void Run::Step() {
  if (hooks_.stop_requested()) throw Cancelled();
  if (records_ && --steps_before_recording_ < 0) {
    RecordedStep();
    last_loss_ = recorded_loss_;
    return;
  }
  last_loss_ = ForwardAndBackward(backend_, NextBatch());
  if (!first_loss_.defined()) first_loss_ = last_loss_;
  UpdateWeights();
}

void Run::Report(Phase phase, int done, int total) {
  const Clock::time_point now = Clock::now();
  if (now - last_report_ < kProgressPeriod && done != total) return;
  last_report_ = now;
  Progress progress{phase, done, total, Seconds(now - begin_), 0};
  const int all_done = phase == Phase::kTimed ? warmup_done_ + done : done;
  const int all = (phase == Phase::kTimed ? warmup_done_ : total) + config_.timed_steps;
  if (all_done > 0) progress.remaining_seconds = Seconds(now - steps_begin_) / all_done * (all - all_done);
  hooks_.progress(progress);
}

void Run::ToWeightType(at::Tensor& parameter) const {
  const at::ScalarType type = WeightType(config_.precision);
  if (parameter.scalar_type() != type)
    parameter = parameter.detach().to(type).requires_grad_(parameter.requires_grad());
}

// Random weights or those of --weights. Returns what LoadCheckpoint() wants to be said.
std::string Run::MakeInitialModel() {
  model_ = MakeModel(config_.model, device_, config_.seed);
  absl::StatusOr<std::string> notice = "";
  if (!config_.weights.empty()) notice = LoadCheckpoint(config_.weights, model_);
  if (!notice.ok()) throw std::runtime_error(absl::StrCat("--weights: ", std::string(notice.status().message())));
  VisitParameters(model_, [&](const ParameterSpec&, at::Tensor& tensor) { ToWeightType(tensor); });
  if (config_.step != StepKind::kReference) {
    fused_.reset();  // before there is memory for another one
    const at::ScalarType stream = config_.step == StepKind::kFusedBf16Stream ? at::kBFloat16 : at::kFloat;
    fused_.emplace(model_, compute_type(), stream, config_.seed);
  }
  return *notice;
}

void Run::MakeOptimizer() {
  if (fused_.has_value()) {
    fused_adam_.emplace(config_.optimizer, config_.learning_rate, *fused_);
    return;
  }
  std::vector<at::Tensor> trained;
  VisitParameters(model_, [&](const ParameterSpec&, at::Tensor& tensor) {
    if (tensor.requires_grad()) trained.push_back(tensor);
  });
  optimizer_.emplace(config_.optimizer, config_.learning_rate, std::move(trained));
}

void Run::SaveWeights() {
  if (config_.save.empty()) return;
  stage_ = "saving";
  const absl::Status status = SaveCheckpoint(config_.save, model_);
  if (!status.ok()) throw std::runtime_error(absl::StrCat("--save: ", std::string(status.message())));
}

void Run::SetUp() {
  const bool padded = documents_ ? documents_->padded() : config_.boxes == Boxes::kDocument;
  records_ = config_.step != StepKind::kReference && cuda_ != nullptr && !padded;
  if (records_) cuda_->UseOwnStream();
  if (const absl::Status path = config_.save.empty() ? absl::OkStatus() : CheckSavePath(config_.save); !path.ok()) {
    throw std::runtime_error(absl::StrCat("--save: ", std::string(path.message())));
  }

  const SyntheticSpec data = MakeSyntheticSpec(config_);
  const BatchFiller fill = [data, documents = documents_](uint64_t index, const BatchBuffers& buffers) {
    if (!documents) return FillBatch(data, index, buffers);
    documents->FillBatch(data.batch, data.seed, index, buffers);
    FillPixels(data.seed, index, buffers.pixels);
  };
  const BatchShape shape{data.batch, data.sequence_length, data.image_size};
  loader_.emplace(shape, fill, config_.data_loader_threads, /*pinned=*/cuda_ != nullptr);

  at::manual_seed(config_.seed);  // of dropout
  const std::string notice = MakeInitialModel();
  if (!notice.empty() && hooks_.notice) hooks_.notice(absl::StrCat("--weights: ", notice));
  MakeOptimizer();
}

void Run::WarmUp(Measurement& result) {
  Warmup warmup(config_.warmup_steps, config_.warmup_limit);
  while (const int steps = warmup.NextWindow()) {
    const int total = std::max(config_.warmup_steps, warmup.steps() + steps);
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < steps; ++i) {
      Step();
      Report(Phase::kWarmup, ++warmup_done_, total);
    }
    Synchronize();
    warmup.WindowDone(steps, Seconds(Clock::now() - begin));
  }
  result.warmup_steps = warmup.steps();
  result.warmup_stable = warmup.stable();
}

void Run::MeasureSteps(Measurement& result, const Environment& environment) {
  Synchronize();
  data_wait_ = {};
  tokens_ = 0;
  if (cuda_ != nullptr) cuda_->ResetPeaks();
  const int64_t reserved_before = cuda_ != nullptr ? cuda_->Peaks().reserved_bytes : 0;
  if (watch_ != nullptr) watch_->Begin(environment.device_uuid);

  StepTimer timer(cuda_);
  // Judges the steps that are over, so that asking waits for nothing.
  const auto precise_enough = [&] {
    const std::vector<double>& seconds = timer.Completed();
    double sum = 0;
    for (const double step : seconds) sum += step;
    const double speed = static_cast<double>(seconds.size()) / sum;
    return ConfidenceInterval(speed, seconds).Within(config_.ci_width, speed);
  };
  const Clock::time_point begin = Clock::now();
  timer.Mark();
  int steps = 0;
  while (steps < config_.timed_steps) {
    Step();
    timer.Mark();
    Report(Phase::kTimed, ++steps, config_.timed_steps);
    if (config_.ci_width > 0 && steps % kStepsBetweenConfidenceChecks == 0 && precise_enough()) break;
  }
  Synchronize();
  result.wall_seconds = Seconds(Clock::now() - begin);
  if (watch_ != nullptr) {
    gpu_record_ = watch_->End();
    gpu_record_->own_growth_bytes = cuda_->Peaks().reserved_bytes - reserved_before;
  }
  if (steps < config_.timed_steps) Report(Phase::kTimed, steps, steps);

  result.step_seconds = timer.TakeAll();
  const SpeedInterval interval = ConfidenceInterval(steps / result.wall_seconds, result.step_seconds);
  result.iterations_per_second_low = interval.low;
  result.iterations_per_second_high = interval.high;
  result.data_wait_seconds = Seconds(data_wait_);
  result.tokens_per_iteration = tokens_ / steps;
  result.first_loss = first_loss_.item<double>();
  result.last_loss = last_loss_.item<double>();
}

void Run::DescribeMemory(Measurement& result) {
  size_t model = model_.relative_buckets.nbytes() + model_.spatial_buckets.nbytes();
  size_t gradients = 0;
  VisitParameters(model_, [&](const ParameterSpec&, at::Tensor& tensor) {
    model += tensor.nbytes();
    if (tensor.requires_grad()) gradients += tensor.nbytes();
  });
  result.model_bytes = static_cast<int64_t>(model);
  result.gradient_bytes = static_cast<int64_t>(gradients);
  if (fused_.has_value()) {
    result.model_bytes += fused_->weights().CopyBytes();
    result.gradient_bytes = fused_->weights().GradientBytes();
    result.optimizer_bytes = fused_adam_->Bytes();
  } else {
    result.optimizer_bytes = optimizer_->Bytes();
  }
  result.peak_resident_bytes = PeakResidentBytes();
  if (cuda_ == nullptr) return;
  const CudaMemoryPeaks peaks = cuda_->Peaks();
  result.peak_allocated_bytes = peaks.allocated_bytes;
  result.peak_reserved_bytes = peaks.reserved_bytes;
  result.peak_device_bytes = peaks.device_bytes;
  // The gradients may come after the peak, when activations are gone: then some of them are missing here.
  const int64_t state = result.model_bytes + result.gradient_bytes + result.optimizer_bytes;
  result.activation_bytes = std::max<int64_t>(0, peaks.allocated_bytes - state);
}

// One more pass, under the profiler and without an update of the weights.
void Run::NameKernels(Measurement& result) {
  recorded_.reset();
  AttentionProfile profile = ProfileAttention(backend_, cuda_ != nullptr, [this](const Backend& marking) {
    ForwardAndBackward(marking, NextBatch());
    Synchronize();
  });
  if (optimizer_.has_value()) optimizer_->DropGradients();
  result.attention_kernels = std::move(profile.kernels);
  result.attention_kernels_unknown = std::move(profile.unknown);
}

void Run::Check(Measurement& result) {
  stage_ = "check";
  optimizer_.reset();  // room for the weights in fp64
  fused_adam_.reset();
  // The initial weights: those that were trained may have diverged, where gradients are nothing but rounding.
  MakeInitialModel();
  const Batch batch = NextBatch();
  const auto free_bytes = [this] {
    return cuda_ != nullptr ? cuda_->ReleaseCache() : ReadHostMemory().available_bytes;
  };
  result.numerical_check = CheckAgainstEager(
      {model_, backend_, batch, compute_type(), mixed_, fused_.has_value() ? &*fused_ : nullptr}, free_bytes);
}

void Run::DescribeWork(Measurement& result, const Environment& environment) const {
  result.model_flops_per_iteration = ModelFlopsPerIteration(config_.model, config_.batch, config_.sequence_length);
  if (cuda_ != nullptr) {
    result.peak_flops_per_second = PeakFlopsPerSecond(environment.device_name, config_.precision);
  }
  result.dropout_placement = config_.model.dropout_placement;
}

Measurement Run::Measure(const Environment& environment) {
  hooks_.started(environment, CountParameters(config_.model));
  Report(Phase::kSetup, 0, 0);
  SetUp();
  Measurement result;
  steps_begin_ = Clock::now();
  WarmUp(result);
  MeasureSteps(result, environment);
  DescribeMemory(result);
  DescribeWork(result, environment);
  NameKernels(result);
  SaveWeights();
  if (config_.check) Check(result);
  return result;
}

}  // namespace attnfleet::trainer
