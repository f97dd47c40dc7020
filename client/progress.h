#ifndef ATTNFLEET_CLIENT_PROGRESS_H_
#define ATTNFLEET_CLIENT_PROGRESS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "attnfleet/v1/service.pb.h"

// Pure: what a watched benchmark's updates mean, and the lines that show it.

namespace attnfleet::client {

// What an update has brought, as lines for a log: runs that ended, attempts that failed and are tried again.
struct Change {
  v1::Run run;
  bool ended = false;       // else its last attempt failed
  uint32_t runs_ended = 0;  // of the benchmark by then
};

// Brings `benchmark` up to date. The first update (benchmark.id() == 0) is where watching begins and no change.
std::vector<Change> ApplyUpdate(v1::Benchmark& benchmark, const v1::WatchResponse& update);

// "[3/12] sdpa 4x128, repetition 1 of 3: 35.10 it/s"
std::string ChangeLine(const v1::Benchmark& benchmark, const Change& change, std::optional<double> seconds_left);

// A few lines of at most `width` columns: runs done, time elapsed and left, and what runs now, and `waits`: a WaitText.
std::vector<std::string> ProgressLines(const v1::Benchmark& benchmark, double elapsed_seconds,
                                       std::optional<double> seconds_left, const std::string& waits, int width);

// Why runs wait, each reason once: "waiting: every slot that fits is busy", or "nothing runs: no slot fits" where as
// the fleet is nothing ever will. "" if it is not known.
std::string WaitText(const v1::ExplainResponse& response);

// True if a run is on a slot.
bool AnyRunActive(const v1::Benchmark& benchmark);

// True if the benchmark has finished, was not cancelled, and no run of it has failed.
bool Succeeded(const v1::Benchmark& benchmark);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_PROGRESS_H_
