#include "client/connection.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/output.h"
#include "proto/server_list.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

// Commands on the local store are short; a second one waits for the first.
constexpr absl::Duration kStorePatience = absl::Seconds(10);
// A benchmark is long: nobody waits for it.
constexpr absl::Duration kOwnStorePatience = absl::Seconds(2);
constexpr absl::Duration kPause = absl::Milliseconds(50);
constexpr absl::Duration kProbeTimeout = absl::Seconds(2);

LocalFleetOptions FleetOptions(const ConnectionFlags& flags, const std::string& command, const std::string& slots) {
  return {flags.state_dir, command, slots, flags.torch, flags.trainer, flags.files, flags.verbose};
}

absl::Status InUse(const ConnectionFlags& flags, const absl::Status& lock) {
  return absl::UnavailableError(absl::StrCat("another attnfleet is running a benchmark in ", flags.state_dir, ": ",
                                             std::string(lock.message()),
                                             "; wait for it, or give another --state-dir"));
}

// Whatever has not ended in a store whose server starts here was left by a client that was killed: nobody waits for it,
// and no worker may take it up. Where nothing can be written (a full disk), what is there can still be read.
absl::Status EndInterrupted(Server& server, const ConnectionFlags& flags) {
  const absl::StatusOr<v1::ListResponse> list = server.List(0, 0);
  if (!list.ok()) return list.status();
  for (const v1::Benchmark& benchmark : list->benchmarks()) {
    if (HasEnded(benchmark)) continue;
    absl::Status status = server.Cancel(benchmark.id(), "interrupted: its client was killed").status();
    if (!status.ok()) return status;
    PrintNote(absl::StrCat("benchmark ", benchmark.id(), " was interrupted; what was measured is kept: ",
                           "attnfleet results ", benchmark.id(), flags.Suffix()));
  }
  return absl::OkStatus();
}

}  // namespace

ConnectionFlags::ConnectionFlags() : state_dir(DefaultStateDirectory()) {}

std::vector<Flag> ConnectionFlags::Flags() {
  return {
      {"server", "ADDRESS,...",
       "the server: HOST:PORT or unix:PATH; of several that share a store the one that leads is found;\n"
       "default: the local store of `attnfleet run`",
       [this](const std::string& text) {
         server = text;
         absl::Status status = ParseServerList("", text).status();
         if (status.ok()) return status;
         return absl::InvalidArgumentError(status.message().substr(2));  // behind the empty flag's ": "
       }},
      {"ca", "FILE", "TLS: the CA of the server's certificate (PEM); default: $ATTNFLEET_CA", SetString(tls.ca)},
      {"cert", "FILE", "one's own certificate; default: $ATTNFLEET_CERT", SetString(tls.certificate)},
      {"key", "FILE", "its key; default: $ATTNFLEET_KEY", SetString(tls.key)},
      {"timeout", "TIME", "how long to try to reach the server; default 10s",
       [this](const std::string& text) {
         const absl::StatusOr<double> value = ParseSeconds(text);
         if (value.ok()) timeout_seconds = *value;
         return value.status();
       }},
      {"state-dir", "DIR", "the local store's folder; default " + DefaultStateDirectory(), SetString(state_dir)},
      {"verbose", "", "show what the local server and worker say", SetBool(verbose)},
  };
}

std::vector<Flag> ConnectionFlags::WorkerFlags() {
  return {
      {"torch", "DIR", "LibTorch for the local worker; default: $ATTNFLEET_TORCH, else the one python3 knows",
       SetString(torch)},
      {"trainer", "FILE", "the trainer for the local worker; default: attnfleet-trainer beside it", SetString(trainer)},
  };
}

absl::Status ConnectionFlags::CheckWorkerFlags() const {
  if (local() || (torch.empty() && trainer.empty())) return absl::OkStatus();
  const char* const flag = torch.empty() ? "--trainer" : "--torch";
  return absl::InvalidArgumentError(absl::StrCat(
      flag, ": of a worker that is started here, so not beside --server; give it to the server's workers: ",
      "attnfleet-worker ", flag, "=..."));
}

std::string ConnectionFlags::Suffix() const {
  if (!server.empty()) {
    std::string suffix = " --server=" + server;
    for (const auto& [flag, file] :
         {std::pair{" --ca=", &tls.ca}, {" --cert=", &tls.certificate}, {" --key=", &tls.key}}) {
      if (!file->empty()) suffix += flag + *file;
    }
    return suffix;
  }
  if (state_dir != DefaultStateDirectory()) return " --state-dir=" + state_dir;
  return "";
}

Connection::Connection(const ConnectionFlags& flags, const std::string& address, std::unique_ptr<LocalFleet> fleet,
                       StopSignals& signals, const TlsFiles& tls)
    : fleet_(std::move(fleet)),
      signals_(signals),
      server_(address, absl::Seconds(flags.timeout_seconds), signals, tls) {}

absl::StatusOr<std::unique_ptr<Connection>> Connection::OpenNamed(const ConnectionFlags& flags, StopSignals& signals) {
  const TlsFiles tls = TlsFilesFor(flags.server, flags.tls);
  if (const absl::Status status = CheckTlsFiles(tls, absl::Now()); !status.ok()) return status;
  return std::unique_ptr<Connection>(new Connection(flags, flags.server, nullptr, signals, tls));
}

Connection::~Connection() { Close(); }

void Connection::Close(bool at_once) {
  if (fleet_ != nullptr) fleet_->Stop(signals_, at_once);
  fleet_.reset();
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::OpenLocal(const ConnectionFlags& flags,
                                                                  const LocalFleetOptions& options,
                                                                  const std::function<absl::Status()>& held,
                                                                  StopSignals& signals) {
  absl::Time deadline = absl::InfiniteFuture();
  for (;;) {
    absl::StatusOr<std::unique_ptr<LocalFleet>> fleet = LocalFleet::Start(options, signals);
    if (fleet.ok()) {
      const std::string address = (*fleet)->address();
      std::unique_ptr<Connection> connection(new Connection(flags, address, *std::move(fleet), signals));
      if (const absl::Status status = EndInterrupted(connection->server(), flags); !status.ok()) {
        if (absl::IsCancelled(status) || !options.slots.empty()) return status;
        PrintNote(absl::StrCat("what was interrupted cannot be ended: ", std::string(status.message())));
      }
      return connection;
    }
    if (!absl::IsAlreadyExists(fleet.status())) return fleet.status();
    if (deadline == absl::InfiniteFuture()) {  // the first time
      if (const absl::Status status = held ? held() : absl::OkStatus(); !status.ok()) return status;
      deadline = absl::Now() + (held ? kOwnStorePatience : kStorePatience);
    }
    const std::optional<std::string> running = RunningLocalServer(flags.state_dir);
    if (!held && running.has_value()) {
      // It may be about to end.
      const absl::Status alive = Server(*running, kProbeTimeout, signals).List(1, 0).status();
      if (alive.ok()) return std::unique_ptr<Connection>(new Connection(flags, *running, nullptr, signals));
      if (absl::IsCancelled(alive)) return alive;
    }
    if (absl::Now() > deadline) return InUse(flags, fleet.status());
    if (signals.Wait(absl::ToChronoMilliseconds(kPause)) != 0) return absl::CancelledError("interrupted");
  }
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ConnectionFlags& flags, const std::string& command,
                                                             StopSignals& signals) {
  if (!flags.local()) return OpenNamed(flags, signals);
  if (!HasLocalStore(flags.state_dir)) {
    return absl::NotFoundError(
        absl::StrCat("no benchmark was run here yet (", flags.state_dir, "); try: attnfleet run --preset=tiny"));
  }
  return OpenLocal(flags, FleetOptions(flags, command, ""), /*held=*/nullptr, signals);
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::OpenWithWorker(const ConnectionFlags& flags,
                                                                       const std::string& command,
                                                                       StopSignals& signals) {
  if (const absl::Status status = flags.CheckWorkerFlags(); !status.ok()) return status;
  if (!flags.local()) return OpenNamed(flags, signals);
  auto connection = OpenLocal(flags, FleetOptions(flags, command, "auto"), /*held=*/nullptr, signals);
  if (!connection.ok() || (*connection)->fleet() == nullptr) return connection;
  if (const absl::Status status = (*connection)->fleet()->StartWorker(signals); !status.ok()) return status;
  return connection;
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::OpenOwn(const ConnectionFlags& flags,
                                                                const std::string& command, const std::string& slots,
                                                                const std::function<absl::Status()>& held,
                                                                StopSignals& signals) {
  return OpenLocal(flags, FleetOptions(flags, command, slots), held, signals);
}

absl::StatusOr<uint64_t> ParseId(const std::string& text) {
  uint64_t id = 0;
  if (absl::SimpleAtoi(text, &id) && id > 0) return id;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no benchmark's number; `attnfleet list` shows those there are"));
}

}  // namespace attnfleet::client
