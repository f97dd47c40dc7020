#ifndef ATTNFLEET_PROTO_SPEC_H_
#define ATTNFLEET_PROTO_SPEC_H_

// A BenchmarkSpec's walk from what a user wrote to the jobs that run: presets, validation, expansion. All pure.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "attnfleet/v1/worker.pb.h"

namespace attnfleet {

// Bounds that validation enforces, and the scheduler for all nodes together once it has placed the benchmark. One
// within them, with a time for each step, fits in one answer of the server (kMaxAnswerBytes); what texts of its runs
// are too long for that are left out of it (server/answer_size.h).
inline constexpr int kMaxBatch = 65536;
inline constexpr int kMaxSequenceLength = 8192;
inline constexpr int kMaxRepetitions = 1000;
inline constexpr int kMaxPriority = 1000;  // and -1000
inline constexpr int kMaxSlots = 100'000;
inline constexpr int kMaxDeadlineSeconds = 366 * 86400;
inline constexpr int kDefaultWorkerLosses = 2;
inline constexpr int kMaxSteps = 1'000'000;
inline constexpr int kMaxRuns = 100'000;               // jobs x repetitions, of all nodes
inline constexpr int64_t kMaxTimedSteps = 32'000'000;  // of all runs together: half of an answer
inline constexpr int kMaxBackends = 64;
inline constexpr int kMaxText = 200;  // bytes of a name or other text
inline constexpr int kMaxRequiredLabels = 32;

// "tiny", "published", "stock": the stock model people train is also the default.
std::vector<std::string> PresetNames();
// One line for --help.
std::string PresetDescription(const std::string& preset);

// Whether the spec is small enough to look at: lengths, counts and the number of runs that it asks for, from its counts
// alone, before anything is made of it. INVALID_ARGUMENT names the field. Part of ApplyPreset.
absl::Status CheckSize(const v1::BenchmarkSpec& spec);

// Fills every absent field from spec.preset (empty: the defaults) and turns batches x sequence_lengths into shapes.
// INVALID_ARGUMENT for an unknown preset or a shape axis given in both forms.
absl::Status ApplyPreset(v1::BenchmarkSpec& spec);

// Checks a spec that ApplyPreset has completed. INVALID_ARGUMENT names the proto field and says what would be right.
// `known_backends` empty means: not known yet, accept any well-formed name.
absl::Status ValidateSpec(const v1::BenchmarkSpec& spec, const std::vector<std::string>& known_backends);

// Whether the step can be computed with the precision that `auto` is on the CPU. INVALID_ARGUMENT names the field. Part
// of ValidateSpec where the spec asks for the CPU; else it depends on the slot.
absl::Status CheckStepOnCpu(const v1::TrainingSettings& training);

// The jobs of a valid spec: shapes in the order given, backends within a shape, so a group is contiguous. Every run is
// QUEUED with its key set.
std::vector<v1::Job> ExpandJobs(uint64_t benchmark_id, const v1::BenchmarkSpec& spec);
// With PLACEMENT_EVERY these jobs once for each of the benchmark's nodes, in their order; before there are nodes, once.
std::vector<v1::Job> ExpandJobs(const v1::Benchmark& benchmark);

// What the worker needs for one run of the benchmark. `attempt` starts at 1; the seed is the spec's plus the
// repetition, the numerical check is repetition 0's alone, and what attention dropout drops is that of the job's
// backend.
v1::StartRun MakeStartRun(const v1::BenchmarkSpec& spec, const v1::RunKey& run, uint32_t attempt,
                          const std::string& slot);

// Whether a spec may name a file by it: no path can lead out of the worker's --files folder.
bool IsPlainFileName(const std::string& name);

// Finished or cancelled: nothing of it will run any more.
bool IsOver(v1::BenchmarkState state);
bool HasEnded(const v1::Benchmark& benchmark);

// "12/3/1": benchmark, job, repetition.
std::string FormatRunKey(const v1::RunKey& key);

// "32x128"
std::string FormatShape(const v1::Shape& shape);

// Short names as users write them: "tiny", "bf16-mixed", "adamw", "random", "cpu", "out of memory".
std::string ModelSizeName(v1::ModelSize size);
std::string PrecisionName(v1::Precision precision);
std::string OptimizerName(v1::Optimizer optimizer);
std::string TrainingStepName(v1::TrainingStep step);
std::string BoxLayoutName(v1::BoxLayout boxes);
std::string DropoutPlacementName(v1::DropoutPlacement placement);
std::string PlacementName(v1::Placement placement);
std::string DeviceKindName(v1::DeviceKind kind);
std::string OutcomeName(v1::Outcome outcome);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SPEC_H_
