#include "absl/strings/str_cat.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

// `pause` and `resume`.
class PauseOrResume : public Command {
 public:
  explicit PauseOrResume(bool pause) : pause_(pause) {}

  std::vector<Flag> Flags() override { return connection_.Flags(); }

  absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) override {
    const absl::StatusOr<uint64_t> id = ParseId(arguments[0]);
    if (!id.ok()) return id.status();
    const auto connection = Connection::Open(connection_, pause_ ? "attnfleet pause" : "attnfleet resume", signals);
    if (!connection.ok()) return connection.status();
    Server& server = (*connection)->server();
    const absl::StatusOr<v1::Benchmark> benchmark = pause_ ? server.Pause(*id) : server.Resume(*id);
    if (!benchmark.ok()) return benchmark.status();
    (*connection)->Close();
    PrintNote(pause_ ? absl::StrCat("benchmark ", *id, " is paused: what runs goes on, nothing new of it starts until ",
                                    "attnfleet resume ", *id, connection_.Suffix())
                     : absl::StrCat("benchmark ", *id, " goes on"));
    return kExitOk;
  }

 private:
  const bool pause_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kPauseCommand = {
    "pause",
    "",
    "ID",
    1,
    1,
    "start nothing new of a benchmark; what runs goes on",
    "  attnfleet pause 12 --server=HOST:7600\n",
    [] { return std::unique_ptr<Command>(new PauseOrResume(true)); },
};

const CommandInfo kResumeCommand = {
    "resume",
    "",
    "ID",
    1,
    1,
    "go on with a benchmark that is paused",
    "  attnfleet resume 12 --server=HOST:7600\n",
    [] { return std::unique_ptr<Command>(new PauseOrResume(false)); },
};

}  // namespace attnfleet::client
