#include <functional>

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
  std::vector<Flag> Flags() override {
    return Join({output_.Flags(),
                 {{"input", "FILE,...",
                   "results that --format=json wrote, instead of a server's; several make one table", SetInput()}},
                 connection_.Flags()});
  }

  absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) override {
    if (!input_.empty()) return ShowInput(arguments);
    uint64_t id = 0;
    if (!arguments.empty() && arguments[0] != "last") {
      const absl::StatusOr<uint64_t> parsed = ParseId(arguments[0]);
      if (!parsed.ok()) return parsed.status();
      id = *parsed;
    }
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection = Connection::Open(connection_, "attnfleet results", signals);
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<v1::Benchmark> benchmark = (*connection)->server().Get(id, output_.include_contaminated);
    if (!benchmark.ok()) return benchmark.status();
    (*connection)->Close();
    if (const absl::Status status = ShowBenchmark(*benchmark, connection_, output_); !status.ok()) return status;
    return kExitOk;
  }

 private:
  std::function<absl::Status(const std::string&)> SetInput() {
    return [this](const std::string& text) {
      const absl::StatusOr<std::vector<std::string>> files = ParseNames(text);
      if (files.ok()) input_ = *files;
      return files.status();
    };
  }

  absl::StatusOr<int> ShowInput(const std::vector<std::string>& arguments) {
    if (!arguments.empty()) return absl::InvalidArgumentError("--input: give either files or an ID, not both");
    if (output_.include_contaminated) {
      return absl::InvalidArgumentError(
          "--include-contaminated: a file's figures are as they were written; give it when the file is written");
    }
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    if (const absl::Status status = ShowFiles(input_, output_); !status.ok()) return status;
    return kExitOk;
  }

  std::vector<std::string> input_;
  ResultFlags output_;
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
    std::string("  attnfleet results                                  the newest, on this machine\n"
                "  attnfleet results 12 --format=csv --output=r.csv\n"
                "  attnfleet results 12 --details                     what is known about each cell\n"
                "  attnfleet results --server=HOST:7600 --format=json --output=r.json\n"
                "  attnfleet results --input=r.json,more.json --format=markdown\n\n") +
        kFiguresHelp,
    [] { return std::unique_ptr<Command>(new Results); },
};

}  // namespace attnfleet::client
