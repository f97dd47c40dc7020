#include "server/open_runs.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"

namespace attnfleet::server {
namespace {

absl::Status Full(const std::string& whose, uint64_t open, uint64_t runs, uint64_t limit) {
  return absl::ResourceExhaustedError(absl::StrCat(whose, " has ", open, " runs in benchmarks that have not ended; ",
                                                   runs, " more would be above ", limit,
                                                   ": wait for some to end, or cancel them (`attnfleet cancel`)"));
}

}  // namespace

absl::Status OpenRuns::CheckRoom(const std::string& submitter, uint64_t runs) const {
  if (all_ + runs > limits_.all) return Full("the coordinator", all_, runs, limits_.all);
  const auto found = by_submitter_.find(submitter);
  const uint64_t own = found == by_submitter_.end() ? 0 : found->second;
  if (own + runs <= limits_.submitter) return absl::OkStatus();
  return Full(absl::StrCat("submitter ", submitter), own, runs, limits_.submitter);
}

void OpenRuns::Update(const v1::Benchmark& benchmark) {
  if (!HasEnded(benchmark)) {
    Open& open = benchmarks_.try_emplace(benchmark.id(), Open{benchmark.spec().submitter()}).first->second;
    const uint64_t more = benchmark.runs_total() - std::exchange(open.runs, benchmark.runs_total());
    all_ += more;
    by_submitter_[open.submitter] += more;
    return;
  }
  const auto found = benchmarks_.find(benchmark.id());
  if (found == benchmarks_.end()) return;
  const Open& open = found->second;
  all_ -= open.runs;
  const auto own = by_submitter_.find(open.submitter);
  own->second -= open.runs;
  if (own->second == 0) by_submitter_.erase(own);
  benchmarks_.erase(found);
}

}  // namespace attnfleet::server
