#include "client/worker_state.h"

#include "absl/strings/str_cat.h"
#include "proto/spec.h"

namespace attnfleet::client {

std::string WorkerState(const v1::WorkerStatus& worker) {
  if (!worker.connected()) {
    // What a store tells of a worker are its name and whether it is drained.
    const std::string away = worker.info().slots().empty() ? "not back since the server started"
                             : worker.draining()           ? "stopped"
                                                           : "lost";
    return absl::StrCat(away, worker.drained() ? ", drained" : "");
  }
  if (worker.drained()) return "drained";
  return worker.draining() ? "draining" : "idle";
}

std::string SlotState(const v1::WorkerStatus& worker, const std::string& slot) {
  for (const v1::ActiveRun& run : worker.active()) {
    if (!worker.connected() || run.slot() != slot) continue;
    return absl::StrCat("runs ", FormatRunKey(run.run()),
                        worker.draining() ? ", then stops" : (worker.drained() ? ", then drained" : ""));
  }
  return WorkerState(worker);
}

}  // namespace attnfleet::client
