#ifndef ATTNFLEET_CLIENT_FOLLOW_H_
#define ATTNFLEET_CLIENT_FOLLOW_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "client/local_fleet.h"
#include "client/server.h"

namespace attnfleet::client {

struct FollowOptions {
  bool cancel_on_stop = false;        // a stop signal cancels the benchmark; else it only ends the watching
  LocalFleet* fleet = nullptr;        // kept alive meanwhile
  bool include_contaminated = false;  // in the summaries
  // Without an update for so long, though something runs (trainers at work make several a second), the server is asked
  // why.
  absl::Duration quiet = absl::Seconds(10);
};

struct FollowResult {
  v1::Benchmark benchmark;   // the latest known; its summaries are complete if it has ended
  bool interrupted = false;  // a stop signal came
};

// Shows a benchmark's progress on standard error until it has ended, or a stop signal comes. A second signal while it
// is being cancelled ends the wait at once. Errors: NOT_FOUND, UNAVAILABLE after a minute without contact, and what
// LocalFleet::Tend() says.
absl::StatusOr<FollowResult> Follow(Server& server, uint64_t id, const FollowOptions& options, StopSignals& signals);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_FOLLOW_H_
