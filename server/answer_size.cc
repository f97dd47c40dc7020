#include "server/answer_size.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace attnfleet::server {
namespace {

// Rounded up.
size_t MiB(size_t bytes) { return (bytes + (1 << 20) - 1) >> 20; }

// Each puts `note` in place of something of the run, and returns by how many bytes the run is smaller then, or less.
using LeaveOut = size_t (*)(const std::string& note, v1::Run& run);

size_t Replace(const std::string& note, std::string& text) {
  if (text.size() <= note.size()) return 0;
  const size_t saved = text.size() - note.size();
  text = note;
  return saved;
}

size_t LeaveOutLog(const std::string& note, v1::Run& run) {
  if (run.result().failure().log_tail().empty()) return 0;
  return Replace(note, *run.mutable_result()->mutable_failure()->mutable_log_tail());
}

size_t LeaveOutKernels(const std::string& note, v1::Run& run) {
  size_t bytes = 0;
  for (const std::string& kernel : run.result().measurement().attention_kernels()) bytes += kernel.size();
  if (bytes <= note.size()) return 0;
  v1::Measurement& measurement = *run.mutable_result()->mutable_measurement();
  measurement.clear_attention_kernels();
  measurement.set_attention_kernels_unknown(note);
  return bytes - note.size();
}

size_t LeaveOutAttempts(const std::string& note, v1::Run& run) {
  size_t saved = 0;
  for (v1::AttemptFailure& attempt : *run.mutable_failed_attempts()) saved += Replace(note, *attempt.mutable_reason());
  return saved;
}

}  // namespace

void FitInto(size_t limit, v1::Benchmark& benchmark) {
  size_t size = benchmark.ByteSizeLong();
  if (size <= limit) return;
  const std::string note =
      absl::StrCat("(left out: this answer would be larger than ", MiB(limit), " MiB; the server's store has it)");
  int repetitions = 0;
  for (const v1::Job& job : benchmark.jobs()) repetitions = std::max(repetitions, job.runs_size());
  for (const LeaveOut leave_out : {LeaveOutLog, LeaveOutKernels, LeaveOutAttempts}) {
    for (int repetition = repetitions - 1; repetition >= 0; --repetition) {
      for (v1::Job& job : *benchmark.mutable_jobs()) {
        if (repetition >= job.runs_size()) continue;
        size -= leave_out(note, *job.mutable_runs(repetition));
        if (size <= limit) return;
      }
    }
  }
}

absl::StatusOr<std::shared_ptr<const std::string>> SerializeWithin(size_t limit, uint64_t id,
                                                                   const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  if (size > limit) {
    return absl::OutOfRangeError(
        absl::StrCat("benchmark ", id, ": the answer would be ", MiB(size), " MiB large, and ", MiB(limit),
                     " MiB are possible; submit it as several benchmarks of fewer runs or steps"));
  }
  auto wire = std::make_shared<std::string>();
  message.AppendToString(wire.get());
  return wire;
}

}  // namespace attnfleet::server
