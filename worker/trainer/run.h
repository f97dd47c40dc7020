#ifndef ATTNFLEET_WORKER_TRAINER_RUN_H_
#define ATTNFLEET_WORKER_TRAINER_RUN_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "worker/trainer/attention/contract.h"
#include "worker/trainer/config.h"
#include "worker/trainer/cuda/contract.h"
#include "worker/trainer/data_loader.h"
#include "worker/trainer/document_file.h"
#include "worker/trainer/events.h"
#include "worker/trainer/gpu_watch.h"
#include "worker/trainer/model.h"
#include "worker/trainer/optimizer.h"
#include "worker/trainer/precision.h"
#include "worker/trainer/step/adam.h"
#include "worker/trainer/step/fused_step.h"
#include "worker/trainer/training.h"

namespace attnfleet::trainer {

// Thrown by Measure() when the hooks ask for a stop.
struct Cancelled {};

// One run from set-up to figures. `stage` tells where it was when something was thrown.
class Run {
 public:
  Run(const Config& config, const Backend& backend, CudaDevice* cuda, const RunHooks& hooks, GpuWatch* watch);

  // Reads --data, before anything is said about this run.
  absl::Status ReadDocuments();

  // Why this backend cannot do this run, or nothing.
  std::optional<std::string> Refusal() const;

  Measurement Measure(const Environment& environment);

  const char* stage() const { return stage_; }
  // What was seen of the GPU during the timed steps; nothing without a watch.
  const std::optional<GpuRecord>& gpu_record() const { return gpu_record_; }

 private:
  using Clock = std::chrono::steady_clock;

  at::ScalarType compute_type() const { return ComputeType(config_.precision); }
  void Synchronize();
  Batch NextBatch();
  at::Tensor ForwardAndBackward(const Backend& backend, const Batch& batch);
  void UpdateWeights();
  void RecordedStep();
  void Step();
  void Report(Phase phase, int done, int total);

  void ToWeightType(at::Tensor& parameter) const;
  std::string MakeInitialModel();
  void MakeOptimizer();
  void SaveWeights();
  void SetUp();
  void WarmUp(Measurement& result);
  void MeasureSteps(Measurement& result, const Environment& environment);
  void DescribeMemory(Measurement& result);
  void NameKernels(Measurement& result);
  void Check(Measurement& result);
  void DescribeWork(Measurement& result, const Environment& environment) const;

  const Config& config_;
  const Backend& backend_;
  CudaDevice* const cuda_;
  const RunHooks& hooks_;
  GpuWatch* const watch_;
  const at::Device device_;
  const bool mixed_;
  bool records_ = false;  // the fused step on a GPU: as a CUDA graph, unless lengths differ from batch to batch
  const Clock::time_point begin_ = Clock::now();

  const char* stage_ = "set-up";
  Clock::time_point last_report_{};
  Clock::time_point steps_begin_{};
  int warmup_done_ = 0;
  Clock::duration data_wait_{};
  int64_t tokens_ = 0;                 // of text, without padding, in the batches so far
  at::Tensor first_loss_, last_loss_;  // on the device: reading one would wait for it
  std::optional<GpuRecord> gpu_record_;
  Model model_;
  std::optional<AdamOptimizer> optimizer_;  // of the reference step
  std::optional<FusedTrainingStep> fused_;
  std::optional<FusedAdam> fused_adam_;
  int steps_before_recording_ = 3;  // in which libraries set themselves up
  Batch recorded_batch_;            // where the recording finds its input
  at::Tensor recorded_loss_;
  std::unique_ptr<RecordedWork> recorded_;
  std::shared_ptr<const DocumentFile> documents_;  // of --data; null: synthetic ones
  std::optional<DataLoader> loader_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_RUN_H_
