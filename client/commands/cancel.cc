#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/text.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

// For what one more word in the answer takes.
constexpr absl::Duration kPatience = absl::Seconds(1);

class Cancel : public Command {
 public:
  std::vector<Flag> Flags() override {
    return Join({{{"reason", "TEXT", "kept with the benchmark; default \"cancelled by its user\"", SetString(reason_)}},
                 connection_.Flags()});
  }

  absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) override {
    const absl::StatusOr<uint64_t> id = ParseId(arguments[0]);
    if (!id.ok()) return id.status();
    const auto connection = Connection::Open(connection_, "attnfleet cancel", signals);
    if (!connection.ok()) return connection.status();
    Server& server = (*connection)->server();
    const bool before = IsCancelled(server, *id);
    const absl::StatusOr<v1::Benchmark> benchmark = server.Cancel(*id, reason_);
    if (!benchmark.ok()) return benchmark.status();
    const bool cancelled = benchmark->state() == v1::BENCHMARK_STATE_CANCELLED;
    const std::string what = !cancelled ? " had ended before"
                             : before   ? absl::StrCat(" was cancelled already (", benchmark->cancel_reason(), ")")
                                        : " is cancelled; what was measured is kept";
    PrintNote(Printable(absl::StrCat("benchmark ", *id, what, ": attnfleet results ", *id, connection_.Suffix())));
    return kExitOk;
  }

 private:
  // As far as the server tells; the cancellation itself is the same for one that is.
  static bool IsCancelled(Server& server, uint64_t id) {
    const absl::StatusOr<v1::ListResponse> list = server.List(1, id + 1, kPatience);
    return list.ok() && list->benchmarks_size() == 1 && list->benchmarks(0).id() == id &&
           list->benchmarks(0).state() == v1::BENCHMARK_STATE_CANCELLED;
  }

  std::string reason_ = "cancelled by its user";
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kCancelCommand = {
    "cancel",
    "",
    "ID",
    1,
    1,
    "stop a benchmark; what was measured is kept",
    "  attnfleet cancel 12 --server=HOST:7600\n"
    "  attnfleet cancel 12 --server=HOST:7600 --reason=\"wrong shapes\"\n",
    [] { return std::unique_ptr<Command>(new Cancel); },
};

}  // namespace attnfleet::client
