#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/show.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

class Results : public Command {
 public:
  std::vector<Flag> Flags() override { return Join({output_.Flags(), connection_.Flags()}); }

  absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) override {
    uint64_t id = 0;
    if (!arguments.empty() && arguments[0] != "last") {
      const absl::StatusOr<uint64_t> parsed = ParseId(arguments[0]);
      if (!parsed.ok()) return parsed.status();
      id = *parsed;
    }
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection = Connection::Open(connection_, "attnfleet results", signals);
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<v1::Benchmark> benchmark = (*connection)->server().Get(id);
    if (!benchmark.ok()) return benchmark.status();
    (*connection)->Close();
    if (const absl::Status status = ShowBenchmark(*benchmark, connection_, output_); !status.ok()) return status;
    return kExitOk;
  }

 private:
  OutputFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kResultsCommand = {
    "results",
    "last",
    "[ID]",
    0,
    1,
    "show a benchmark's results; without ID those of the newest",
    "  attnfleet results                                  the newest, on this machine\n"
    "  attnfleet results 12 --format=csv --output=r.csv\n"
    "  attnfleet results --server=HOST:7600 --format=json\n",
    [] { return std::unique_ptr<Command>(new Results); },
};

}  // namespace attnfleet::client
