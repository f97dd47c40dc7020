#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/show.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

std::string StateName(const v1::Benchmark& benchmark) {
  if (benchmark.paused() && benchmark.ended_unix_ms() == 0) return "paused";
  switch (benchmark.state()) {
    case v1::BENCHMARK_STATE_QUEUED:
      return "queued";
    case v1::BENCHMARK_STATE_RUNNING:
      return "running";
    case v1::BENCHMARK_STATE_FINISHED:
      return "finished";
    case v1::BENCHMARK_STATE_CANCELLED:
      return "cancelled";
    default:
      return "unknown";
  }
}

bool IsCancelled(const v1::Benchmark& benchmark) { return benchmark.state() == v1::BENCHMARK_STATE_CANCELLED; }

// A cancellation ends what has not run, and a listing does not tell how many those were.
std::string RunsText(const v1::Benchmark& benchmark) {
  return absl::StrCat(IsCancelled(benchmark) ? "?" : absl::StrCat(benchmark.runs_ended()), "/", benchmark.runs_total());
}

Grid MakeGrid(const v1::ListResponse& list) {
  Grid grid;
  grid.columns = {{"ID", true}, {"State"},        {"Runs", true}, {"Submitted"},        {"By"},
                  {"Backends"}, {"Shapes", true}, {"Name"},       {"Cancelled because"}};
  grid.empty = "no benchmarks";
  for (const v1::Benchmark& benchmark : list.benchmarks()) {
    grid.rows.push_back({{absl::StrCat(benchmark.id())},
                         {StateName(benchmark)},
                         {RunsText(benchmark)},
                         {absl::FormatTime("%Y-%m-%d %H:%M", absl::FromUnixMillis(benchmark.submitted_unix_ms()),
                                           absl::LocalTimeZone())},
                         {benchmark.spec().submitter()},
                         {absl::StrJoin(benchmark.spec().backends(), ", ")},
                         {absl::StrCat(benchmark.spec().shapes_size())},
                         {benchmark.spec().name()},
                         {benchmark.cancel_reason()}});
  }
  return grid;
}

class List : public Command {
 public:
  std::vector<Flag> Flags() override {
    const Flag limit = {"limit", "N", "at most N, the newest first; 1 to 1000; default 100",
                        [this](const std::string& text) {
                          const absl::StatusOr<int> value = ParseInt(text);
                          if (!value.ok()) return value.status();
                          limit_ = *value;
                          if (limit_ >= 1 && limit_ <= 1000) return absl::OkStatus();
                          return absl::InvalidArgumentError(absl::StrCat(text, " is out of range; 1 to 1000"));
                        }};
    const Flag before = {"before", "ID", "only benchmarks older than this one", [this](const std::string& text) {
                           const absl::StatusOr<uint64_t> value = ParseId(text);
                           if (value.ok()) before_ = *value;
                           return value.status();
                         }};
    return Join({{limit, before}, output_.Flags(), connection_.Flags()});
  }

  absl::StatusOr<int> Run(const std::vector<std::string>&, StopSignals& signals) override {
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection = Connection::Open(connection_, "attnfleet list", signals);
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<v1::ListResponse> list = (*connection)->server().List(limit_, before_);
    if (!list.ok()) return list.status();
    (*connection)->Close();
    if (const absl::Status status = ShowList(MakeGrid(*list), *list, output_); !status.ok()) return status;
    const auto& benchmarks = list->benchmarks();
    if (output_.format == Format::kTable && std::any_of(benchmarks.begin(), benchmarks.end(), IsCancelled)) {
      PrintNote(
          absl::StrCat("? of a cancelled benchmark: a list does not tell how many of its runs had ended; what was "
                       "measured: attnfleet results ID",
                       connection_.Suffix()));
    }
    return kExitOk;
  }

 private:
  int limit_ = 100;
  uint64_t before_ = 0;
  OutputFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kListCommand = {
    "list",
    "",
    "",
    0,
    0,
    "list benchmarks, the newest first",
    "  attnfleet list                              those of this machine\n"
    "  attnfleet list --server=HOST:7600 --limit=10\n\n"
    "Runs: how many have ended, of all; ? of a cancelled benchmark: attnfleet results ID tells what was measured.\n",
    [] { return std::unique_ptr<Command>(new List); },
};

}  // namespace attnfleet::client
