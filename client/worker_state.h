#ifndef ATTNFLEET_CLIENT_WORKER_STATE_H_
#define ATTNFLEET_CLIENT_WORKER_STATE_H_

#include <string>

#include "attnfleet/v1/service.pb.h"

namespace attnfleet::client {

// A worker apart from what it runs: "idle", "drained", "draining"; "stopped", "lost" or "not back since the server
// started" of one that is not connected, with ", drained" if it is that too. Pure.
std::string WorkerState(const v1::WorkerStatus& worker);

// The same of one of its slots, or "runs 12/3/0".
std::string SlotState(const v1::WorkerStatus& worker, const std::string& slot);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_WORKER_STATE_H_
