#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/show.h"
#include "client/text.h"
#include "client/worker_state.h"
#include "proto/counted.h"
#include "proto/spec.h"
#include "proto/suggest.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

// One row for each slot, and one for a worker without.
Grid MakeGrid(const v1::ListWorkersResponse& response) {
  Grid grid;
  grid.columns = {{"Worker"}, {"Host"}, {"Slot"}, {"State"}, {"Device"}, {"GB", true}, {"LibTorch"}, {"Labels"}};
  grid.empty = "no worker is connected";
  for (const v1::WorkerStatus& worker : response.workers()) {
    const v1::WorkerInfo& info = worker.info();
    if (info.slots().empty()) {
      grid.rows.push_back({{info.name()}, {info.host()}, {""}, {WorkerState(worker)}, {""}, {""}, {""}, {""}});
    }
    for (const v1::Slot& slot : info.slots()) {
      grid.rows.push_back({{info.name()},
                           {info.host()},
                           {slot.id()},
                           {SlotState(worker, slot.id())},
                           {slot.device_name()},
                           {absl::StrFormat("%.1f", static_cast<double>(slot.memory_bytes()) / 1e9)},
                           {info.libtorch_version()},
                           {absl::StrJoin(info.labels(), ",", absl::PairFormatter("="))}});
    }
  }
  return grid;
}

// CPU slots are not locked as GPUs are: each run takes all cores. One line for each host with several workers on it.
std::vector<std::string> SharedCpus(const v1::ListWorkersResponse& response) {
  std::map<std::string, std::vector<std::string>> workers;  // with CPU slots, by host
  for (const v1::WorkerStatus& worker : response.workers()) {
    const auto& slots = worker.info().slots();
    const bool cpu = std::any_of(slots.begin(), slots.end(),
                                 [](const v1::Slot& slot) { return slot.device_kind() == v1::DEVICE_KIND_CPU; });
    if (cpu && worker.connected()) workers[worker.info().host()].push_back(worker.info().name());
  }
  std::vector<std::string> lines;
  for (const auto& [host, names] : workers) {
    if (names.size() < 2) continue;
    lines.push_back(absl::StrCat("warning: ", absl::StrJoin(names, ", "), " share the CPU of ", host,
                                 ": what they run at the same time slows each other down"));
  }
  return lines;
}

class Workers : public Command {
 public:
  std::vector<Flag> Flags() override { return Join({output_.Flags(), connection_.Flags(), connection_.WorkerFlags()}); }

  absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) override {
    if (!arguments.empty()) return Drain(arguments, signals);
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection = Connection::OpenWithWorker(connection_, "attnfleet workers", signals);
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<v1::ListWorkersResponse> response = (*connection)->server().ListWorkers();
    if (!response.ok()) return response.status();
    (*connection)->Close();
    if (const absl::Status status = ShowList(MakeGrid(*response), *response, output_); !status.ok()) return status;
    for (const std::string& line : SharedCpus(*response)) PrintNote(Printable(line));
    return kExitOk;
  }

 private:
  absl::StatusOr<int> Drain(const std::vector<std::string>& arguments, StopSignals& signals) {
    const std::string& action = arguments[0];
    if (action != "drain" && action != "undrain") {
      return absl::InvalidArgumentError(UnknownName("action", action, {"drain", "undrain"}));
    }
    if (arguments.size() < 2) {
      return absl::InvalidArgumentError(absl::StrCat("NAME is needed: attnfleet workers ", action, " NAME"));
    }
    if (connection_.local()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--server is needed: attnfleet workers ", action, " ", arguments[1], " --server=HOST:7600"));
    }
    const auto connection = Connection::Open(connection_, "attnfleet workers", signals);
    if (!connection.ok()) return connection.status();
    const bool drain = action == "drain";
    const absl::StatusOr<v1::WorkerStatus> worker = (*connection)->server().SetDrained(arguments[1], drain);
    if (!worker.ok()) return worker.status();
    if (drain) {
      const auto active = static_cast<uint64_t>(worker->active_size());
      const std::string runs =
          active == 0 ? "" : absl::StrCat(" once ", Counted(active, "run"), active == 1 ? " has" : " have", " ended");
      PrintNote(absl::StrCat("worker ", arguments[1], " gets nothing new, and is free", runs,
                             ". Back: attnfleet workers undrain ", arguments[1], connection_.Suffix()));
    } else if (worker->draining()) {
      PrintNote(absl::StrCat("worker ", arguments[1],
                             " is drained no longer, but stops by itself or has no slot in service: it gets runs when "
                             "that is over or it is started again"));
    } else if (!worker->connected()) {
      PrintNote(absl::StrCat("worker ", arguments[1], " gets runs again once it is connected"));
    } else {
      PrintNote(absl::StrCat("worker ", arguments[1], " gets runs again"));
    }
    return kExitOk;
  }

  OutputFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kWorkersCommand = {
    "workers",
    "",
    "[drain|undrain NAME]",
    0,
    2,
    "list workers, their devices and what runs there; drain one or take it back",
    "  attnfleet workers --server=HOST:7600\n"
    "  attnfleet workers drain node7 --server=HOST:7600    what runs goes on, nothing new comes, also after restarts\n"
    "  attnfleet workers undrain node7 --server=HOST:7600\n"
    "  attnfleet workers                         what this machine offers\n\n"
    "A run is shown as benchmark/job/repetition. 1 GB = 1e9 bytes.\n",
    [] { return std::unique_ptr<Command>(new Workers); },
};

}  // namespace attnfleet::client
