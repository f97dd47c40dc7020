#include <optional>

#include "absl/strings/str_cat.h"
#include "client/commands/benchmark_flags.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/follow.h"
#include "client/local_files.h"
#include "client/local_fleet.h"
#include "client/output.h"
#include "client/progress.h"
#include "client/requirements.h"
#include "client/show.h"
#include "proto/spec.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

constexpr absl::Duration kHolderPatience = absl::Seconds(2);

std::string SlotsFor(v1::DeviceKind kind) {
  if (kind == v1::DEVICE_KIND_CPU) return "cpu";
  return kind == v1::DEVICE_KIND_CUDA ? "gpu" : "auto";
}

class RunBenchmark : public Command {
 public:
  std::vector<Flag> Flags() override {
    return Join({benchmark_.Flags(), files_.Flags(), output_.Flags(), connection_.Flags(), connection_.WorkerFlags()});
  }

  absl::StatusOr<int> Run(const std::vector<std::string>&, StopSignals& signals) override {
    absl::StatusOr<v1::BenchmarkSpec> spec = benchmark_.Read();
    if (!spec.ok()) return spec.status();
    const absl::StatusOr<std::string> folder = files_.Apply(connection_.local(), *spec);
    if (!folder.ok()) return folder.status();
    connection_.files = *folder;
    if (const absl::Status status = connection_.CheckWorkerFlags(); !status.ok()) return status;
    if (benchmark_.dry_run) return benchmark_.DryRun(*spec, connection_, output_, signals);
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection =
        connection_.local() ? StartLocal(*spec, signals) : Connection::Open(connection_, "attnfleet run", signals);
    if (!connection.ok()) return connection.status();
    if (const absl::Status status = benchmark_.CheckBackends((*connection)->server(), *spec); !status.ok()) {
      return status;
    }
    if (!connection_.local()) {
      const absl::Status status = benchmark_.WarnOfFleet((*connection)->server(), *spec);
      if (!status.ok()) return status;
    }
    const absl::StatusOr<v1::Benchmark> submitted = (*connection)->server().Submit(*spec, benchmark_.request_id);
    if (!submitted.ok()) return benchmark_.spec.NameFlag(submitted.status());
    const uint64_t id = submitted->id();
    if (connection_.verbose) PrintNote(absl::StrCat("benchmark ", id, ", request ", benchmark_.request_id));
    const absl::StatusOr<FollowResult> result = Follow(
        (*connection)->server(), id,
        {.cancel_on_stop = true, .fleet = (*connection)->fleet(), .include_contaminated = output_.include_contaminated},
        signals);
    if (!result.ok()) return result.status();
    // Interrupted and not ended: a second signal came while the first was being obeyed.
    (*connection)->Close(/*at_once=*/result->interrupted && !HasEnded(result->benchmark));
    return Show(id, *result);
  }

 private:
  // A private server and worker, ready for this benchmark.
  absl::StatusOr<std::unique_ptr<Connection>> StartLocal(const v1::BenchmarkSpec& spec, StopSignals& signals) {
    auto connection = Connection::OpenOwn(
        connection_, "attnfleet run", SlotsFor(spec.requirements().device_kind()),
        [&] { return CheckWithHolder(spec, signals); }, signals);
    if (!connection.ok()) return connection;
    Server& server = (*connection)->server();
    if (const absl::Status status = (*connection)->fleet()->StartWorker(signals); !status.ok()) return status;

    const absl::StatusOr<v1::ListWorkersResponse> workers = server.ListWorkers();
    if (!workers.ok()) return workers.status();
    absl::Status status = CheckRequirements(spec.requirements(), *workers);
    if (status.ok()) status = CheckStep(spec, *workers);
    if (!status.ok()) return benchmark_.spec.NameFlag(status);
    return connection;
  }

  // The local store may be held by another of these commands, whose worker knows this machine's backends too: then a
  // wrong name is said now, and not after the wait for it.
  absl::Status CheckWithHolder(const v1::BenchmarkSpec& spec, StopSignals& signals) const {
    const std::optional<std::string> address = RunningLocalServer(connection_.state_dir);
    if (!address.has_value()) return absl::OkStatus();
    const absl::StatusOr<v1::ListBackendsResponse> known = Server(*address, kHolderPatience, signals).ListBackends();
    if (known.ok()) return benchmark_.CheckBackends(*known, spec);
    return absl::IsCancelled(known.status()) ? known.status() : absl::OkStatus();
  }

  absl::StatusOr<int> Show(uint64_t id, const FollowResult& result) {
    if (!HasEnded(result.benchmark)) {  // stopped at once: the summaries are not known here
      PrintNote(absl::StrCat("stopped; what was measured is kept: attnfleet results ", id, connection_.Suffix()));
      return kExitInterrupted;
    }
    const absl::Status shown = ShowBenchmark(result.benchmark, connection_, output_);
    if (!shown.ok()) return shown;
    if (result.interrupted) return kExitInterrupted;
    return Succeeded(result.benchmark) ? kExitOk : kExitFailed;
  }

  BenchmarkFlags benchmark_;
  LocalFiles files_;
  ResultFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kRunCommand = {
    "run",
    "",
    "",
    0,
    0,
    "run a benchmark, show its progress and then its results",
    std::string("  attnfleet run --preset=tiny                                    a small model, for a CPU\n"
                "  attnfleet run --backends=eager,sdpa --shapes=32x128,32x512     batch x sequence length\n"
                "  attnfleet run --batch=32,64 --seq=128,512 --repetitions=5      every batch at every length\n"
                "  attnfleet run --preset=published --steps=50                    the published table, but quicker\n"
                "  attnfleet run --spec=mine.textproto --format=json --output=result.json\n"
                "  attnfleet run --preset=published --server=HOST:7600            on a fleet\n"
                "  attnfleet run --preset=tiny --dry-run                          what would run\n\n"
                "Without --server it starts a private coordinator and worker on this machine and stops them at the "
                "end; results\n"
                "stay in the local store (attnfleet results). A backend that this machine lacks is unsupported; on "
                "a fleet\n"
                "it waits for a slot that has it, and the others run. Ctrl-C stops cleanly and shows what was "
                "measured;\n"
                "twice stops at once.\n\n") +
        kFiguresHelp,
    [] { return std::unique_ptr<Command>(new RunBenchmark); },
};

}  // namespace attnfleet::client
