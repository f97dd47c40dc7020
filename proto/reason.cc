#include "proto/reason.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/spec.h"

namespace attnfleet {
namespace {

constexpr char kOom[] = "OOM";

double Gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

// What the allocator's own message says in many lines.
std::string OomLine(const v1::OutOfMemory& oom) {
  std::string line = kOom;
  const char* const where = oom.host_memory() ? " of host memory" : "";
  if (oom.killed_at_bytes() > 0) {
    absl::StrAppendFormat(&line, ": the kernel killed the trainer, which held %.1f GB%s",
                          Gigabytes(oom.killed_at_bytes()), where);
  } else if (oom.requested_bytes() > 0) {
    absl::StrAppendFormat(&line, ": asked for %.1f GB%s", Gigabytes(oom.requested_bytes()), where);
    if (oom.total_bytes() > 0) {
      absl::StrAppendFormat(&line, " with %.1f of %.1f GB free", Gigabytes(oom.free_bytes()),
                            Gigabytes(oom.total_bytes()));
    }
  } else {
    absl::StrAppend(&line, where);
  }
  if (!oom.phase().empty()) absl::StrAppend(&line, " (", oom.phase(), ")");
  return line;
}

}  // namespace

std::string ReasonLine(const v1::RunResult& result) {
  if (result.outcome() == v1::OUTCOME_OUT_OF_MEMORY && result.has_out_of_memory()) {
    return OomLine(result.out_of_memory());
  }
  std::string line = result.reason();
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

std::string OutcomeLine(v1::Outcome outcome, const std::string& reason) {
  if (outcome == v1::OUTCOME_OUT_OF_MEMORY && absl::StartsWith(reason, kOom)) return reason;
  return reason.empty() ? OutcomeName(outcome) : absl::StrCat(OutcomeName(outcome), ": ", reason);
}

}  // namespace attnfleet
