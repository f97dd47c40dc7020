#include "client/worker_state.h"

#include "absl/strings/str_cat.h"
#include "proto/spec.h"

namespace attnfleet::client {

std::string WorkerState(const v1::WorkerStatus& worker) {
  const bool no_slots = worker.info().slots().empty();
  if (!worker.connected()) {
    // What the store tells of a worker are its name and whether it is drained.
    const std::string away = no_slots ? "not back since the server started" : worker.draining() ? "stopped" : "lost";
    return absl::StrCat(away, worker.drained() ? ", drained" : "");
  }
  if (worker.drained()) return "drained";
  if (worker.draining()) return "draining";
  return no_slots ? "no slot in service" : "idle";
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
