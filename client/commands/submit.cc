#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/commands/benchmark_flags.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/show.h"
#include "client/text.h"
#include "proto/counted.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

// For the warning that may follow: the benchmark's number has been printed, and a script waits for the end.
constexpr absl::Duration kExplainPatience = absl::Seconds(2);

class Submit : public Command {
 public:
  std::vector<Flag> Flags() override { return Join({benchmark_.Flags(), output_.Flags(), connection_.Flags()}); }

  absl::StatusOr<int> Run(const std::vector<std::string>&, StopSignals& signals) override {
    const absl::StatusOr<v1::BenchmarkSpec> spec = benchmark_.Read();
    if (!spec.ok()) return spec.status();
    if (benchmark_.dry_run) return benchmark_.DryRun(*spec, connection_, output_, signals);
    if (connection_.local()) {
      return absl::InvalidArgumentError(
          "--server is needed, for example --server=127.0.0.1:7600; without a server, attnfleet run does it all");
    }
    const auto connection = Connection::Open(connection_, "attnfleet submit", signals);
    if (!connection.ok()) return connection.status();
    Server& server = (*connection)->server();
    if (const absl::Status status = benchmark_.CheckBackends(server, *spec); !status.ok()) return status;
    if (const absl::Status status = benchmark_.WarnOfFleet(server, *spec); !status.ok()) return status;
    const absl::StatusOr<v1::Benchmark> benchmark = server.Submit(*spec, benchmark_.request_id);
    if (!benchmark.ok()) return benchmark_.spec.NameFlag(benchmark.status());
    if (const absl::Status status = WriteOutput("", absl::StrCat(benchmark->id(), "\n")); !status.ok()) return status;
    PrintNote(absl::StrCat(Counted(benchmark->runs_total(), "run"), ", request ", benchmark_.request_id,
                           "; to follow them: attnfleet watch ", benchmark->id(), connection_.Suffix()));
    WarnOfWhatDoesNotFit(server, benchmark->id());
    return kExitOk;
  }

 private:
  // It has been accepted whatever comes of this: the fleet may yet grow.
  void WarnOfWhatDoesNotFit(Server& server, uint64_t id) const {
    const absl::StatusOr<v1::ExplainResponse> response = server.Explain(id, kExplainPatience);
    if (!response.ok()) return;
    std::vector<std::pair<std::string, std::string>> unfit;  // backend, why
    bool all = true;
    for (const v1::Explanation& explanation : response->explanations()) {
      all = all && explanation.unfit();
      std::pair<std::string, std::string> one(explanation.backend(), Printable(explanation.waits()));
      // What a benchmark asks for is the same at all shapes.
      if (explanation.unfit() && std::find(unfit.begin(), unfit.end(), one) == unfit.end()) {
        unfit.push_back(std::move(one));
      }
    }
    const auto is_first = [&unfit](const auto& one) { return one.second == unfit.front().second; };
    if (!unfit.empty() && all && std::all_of(unfit.begin(), unfit.end(), is_first)) {
      PrintNote("warning: nothing of it can start in the fleet as it is: " + unfit.front().second);
      return;
    }
    for (const auto& [backend, why] : unfit) {
      PrintNote(absl::StrCat("warning: ", backend, " cannot start in the fleet as it is: ", why));
    }
  }

  BenchmarkFlags benchmark_;
  OutputFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kSubmitCommand = {
    "submit",
    "",
    "",
    0,
    0,
    "hand a benchmark to a server and print its number",
    "  attnfleet submit --server=HOST:7600 --preset=published\n"
    "  attnfleet submit --server=HOST:7600 --backends=eager,sdpa --batch=32,64 --seq=128,512 --device-name=H100\n"
    "  attnfleet watch $(attnfleet submit --server=HOST:7600 --preset=tiny) --server=HOST:7600\n",
    [] { return std::unique_ptr<Command>(new Submit); },
};

}  // namespace attnfleet::client
