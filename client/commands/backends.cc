#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/show.h"
#include "proto/spec.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

Grid MakeGrid(const v1::ListBackendsResponse& response) {
  Grid grid;
  grid.columns = {{"Backend"}, {"Devices"}, {"What it is"}};
  grid.empty = "no worker is connected, and so no backend is known";
  for (const v1::Backend& backend : response.backends()) {
    std::vector<std::string> devices;
    for (const int device : backend.devices()) devices.push_back(DeviceKindName(static_cast<v1::DeviceKind>(device)));
    grid.rows.push_back({{backend.name()}, {absl::StrJoin(devices, ",")}, {backend.description()}});
  }
  return grid;
}

class Backends : public Command {
 public:
  std::vector<Flag> Flags() override { return Join({output_.Flags(), connection_.Flags(), connection_.WorkerFlags()}); }

  absl::StatusOr<int> Run(const std::vector<std::string>&, StopSignals& signals) override {
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection = Connection::OpenWithWorker(connection_, "attnfleet backends", signals);
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<v1::ListBackendsResponse> response = (*connection)->server().ListBackends();
    if (!response.ok()) return response.status();
    (*connection)->Close();
    if (const absl::Status status = ShowList(MakeGrid(*response), *response, output_); !status.ok()) return status;
    return kExitOk;
  }

 private:
  OutputFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kBackendsCommand = {
    "backends",
    "",
    "",
    0,
    0,
    "list the attention backends that can be benchmarked",
    "  attnfleet backends                          those of this machine\n"
    "  attnfleet backends --server=HOST:7600       those of a fleet\n",
    [] { return std::unique_ptr<Command>(new Backends); },
};

}  // namespace attnfleet::client
