#include "absl/strings/str_cat.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/follow.h"
#include "client/output.h"
#include "client/progress.h"
#include "client/show.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

class Watch : public Command {
 public:
  std::vector<Flag> Flags() override { return Join({output_.Flags(), connection_.Flags()}); }

  absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) override {
    const absl::StatusOr<uint64_t> id = ParseId(arguments[0]);
    if (!id.ok()) return id.status();
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection = Connection::Open(connection_, "attnfleet watch", signals);
    if (!connection.ok()) return connection.status();
    Server& server = (*connection)->server();
    const absl::StatusOr<v1::Benchmark> now = server.Get(*id);  // tells at once if there is none, or no server
    if (!now.ok()) return now.status();
    const absl::StatusOr<FollowResult> result =
        Follow(server, *id, {.include_contaminated = output_.include_contaminated}, signals);
    if (!result.ok()) return result.status();
    if (result->interrupted) {
      PrintNote(absl::StrCat("benchmark ", *id, " goes on; to stop it: attnfleet cancel ", *id, connection_.Suffix()));
      return kExitInterrupted;
    }
    (*connection)->Close();
    const absl::Status shown = ShowBenchmark(result->benchmark, connection_, output_);
    if (!shown.ok()) return shown;
    return Succeeded(result->benchmark) ? kExitOk : kExitFailed;
  }

 private:
  ResultFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kWatchCommand = {
    "watch",
    "",
    "ID",
    1,
    1,
    "follow a benchmark until it has ended, then show its results",
    "  attnfleet watch 12 --server=HOST:7600\n\n"
    "Ctrl-C ends the watching; the benchmark goes on.\n",
    [] { return std::unique_ptr<Command>(new Watch); },
};

}  // namespace attnfleet::client
