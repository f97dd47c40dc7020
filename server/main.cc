// attnfleet-server: flags, start, and an orderly end.

#include <grpcpp/health_check_service_interface.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/address.h"
#include "proto/credentials.h"
#include "proto/support/exit_code.h"
#include "proto/support/flags.h"
#include "proto/support/log.h"
#include "proto/support/metrics_endpoint.h"
#include "proto/support/process.h"
#include "proto/support/state_dir.h"
#include "proto/support/stop_signals.h"
#include "proto/version.h"
#include "server/access_control.h"
#include "server/admin_commands.h"
#include "server/benchmark_service.h"
#include "server/coordinator.h"
#include "server/fleet_metrics.h"
#include "server/fleet_service.h"
#include "server/leadership.h"
#include "server/listener.h"
#include "server/metrics.h"
#include "server/postgres_store.h"
#include "server/sqlite_store.h"
#include "server/standby.h"
#include "server/worker_service.h"

ABSL_FLAG(std::string, listen, attnfleet::kDefaultAddress, "");
ABSL_FLAG(std::string, metrics_listen, "127.0.0.1:7601", "");
ABSL_FLAG(std::string, state_dir, "", "");
ABSL_FLAG(std::string, store, "", "");
ABSL_FLAG(std::string, advertise, "", "");
ABSL_FLAG(absl::Duration, retain, absl::ZeroDuration(), "");
ABSL_FLAG(int, retain_benchmarks, 0, "");
ABSL_FLAG(absl::Duration, lease, absl::Seconds(15), "");
ABSL_FLAG(absl::Duration, heartbeat, absl::Seconds(5), "");
ABSL_FLAG(std::string, ca, "", "");
ABSL_FLAG(std::string, cert, "", "");
ABSL_FLAG(std::string, key, "", "");
ABSL_FLAG(std::string, roles, "", "");
ABSL_FLAG(bool, closed, false, "");
ABSL_FLAG(bool, insecure, false, "");
ABSL_FLAG(int, max_connections, 10'000, "");
ABSL_FLAG(int, max_connections_per_address, 256, "");
ABSL_FLAG(absl::Duration, max_connection_age, absl::Hours(6), "");
ABSL_FLAG(int, parent_pid, 0, "");
ABSL_FLAG(std::string, log_format, "text", "");
ABSL_FLAG(bool, verbose, false, "");

namespace attnfleet::server {
namespace {

constexpr char kHelp[] =
    R"(attnfleet-server: the coordinator. Gives benchmark runs to workers and keeps their results.

  attnfleet-server                                     on 127.0.0.1:7600, metrics on 127.0.0.1:7601
  attnfleet-server --listen=unix:/run/attnfleet.sock   for this machine only
  attnfleet-server --listen=0.0.0.0:7600 --ca=ca.pem --cert=server.pem --key=server.key --roles=roles
                                                       for a network: TLS, and only who is in the file `roles`
  attnfleet-server --listen=10.0.0.5:7600 --insecure   plain text where others can reach it: said on purpose
  attnfleet-server --listen=10.0.0.5:7600 --store=postgresql://attnfleet@db/attnfleet
                                                       one of several that share a database: one leads, the others wait
  curl -s 127.0.0.1:7601/metrics                       what Prometheus scrapes
  attnfleet-server check                               is the store consistent? Also while a server runs
  attnfleet-server backup FILE                         all of the store as of now, also while a server runs
  attnfleet-server restore FILE                        into an empty store, of either kind

Flags
  --listen=ADDRESS          HOST:PORT (port 0: any free one) or unix:PATH; default 127.0.0.1:7600
  --metrics-listen=ADDRESS  HOST:PORT of /metrics; "off" for none; default 127.0.0.1:7601. Always plain text, open to
                            whoever reaches the address, read only: figures and no user's or benchmark's name
  --ca=FILE --cert=FILE --key=FILE
                            TLS: the CA that signs the peers' certificates, and the server's own certificate and key
                            (PEM); deploy/certificates.sh makes them. Read again within a second after they change
  --roles=FILE              with TLS: lines of `NAME ROLE[,ROLE]` by the certificate's common name (viewer, submitter,
                            worker, admin) and of `revoked SHA256-FINGERPRINT`. Read again within a second after it
                            changes; whoever has lost a role loses open calls too
  --max-connections=N       open at once; more are closed at once; default 10000
  --max-connections-per-address=N
                            of them from one IPv4 address or IPv6 /64; default 256
  --max-connection-age=TIME
                            then a TCP connection is ended and its peer connects anew, with a certificate that holds;
                            what a worker runs goes on; 0: never; default 6h
  --state-dir=DIR           the store, an SQLite file; default $XDG_STATE_HOME/attnfleet/server
  --store=URL               instead, a PostgreSQL database: postgresql://USER@HOST/DATABASE or ?service=NAME. Its password
                            belongs into the file that PGPASSFILE names or into a service file, never into the URL
  --advertise=ADDRESS       with --store: where others reach this server; default: --listen
  --retain=TIME             remove benchmarks that ended longer ago (2160h = 90 days); default 0: never. By the
                            wall clock at the server's start, which must be right then
  --retain-benchmarks=N     remove ended benchmarks when N newer ones exist; default 0: never. The newest is always kept
  --lease=TIME              silence after which a worker's runs go elsewhere; default 15s
  --heartbeat=TIME          how often workers report; default 5s
  --closed                  one worker is all that will ever come: what it has no slot for does not wait for another, it
                            ends as unsupported. So `attnfleet run` starts its own
  --insecure                allow plain text on an address that other machines can reach
  --parent-pid=PID          stop when that process, the parent, dies
  --log-format=FORMAT       text, or json: one object a line; with a run's request id where there is one
  --verbose                 log what workers and clients do
  --help, --version

Prints "ready ADDRESS" on standard output once it serves; messages go to standard error. SIGTERM or Ctrl-C stops it;
it may be killed at any moment: what was acknowledged is on disk, and a restart goes on where it was.

Exit codes
  0  stopped by a signal
  1  the store is damaged or not consistent, or a newer attnfleet wrote it (it is left as it is)
  2  a flag is wrong
  3  the address, the port or the state directory is taken or cannot be written, or the database cannot be reached
)";

constexpr char kPlainTextRefused[] =
    "--listen: other machines can reach this address and the traffic is plain text; give --ca, --cert, --key and "
    "--roles for TLS, or say --insecure if that is meant";
// Descriptors that are no connections: the store, the log, gRPC's own.
constexpr rlim_t kOtherDescriptors = 200;
constexpr std::chrono::milliseconds kShutdownLimit{1'000};
// How often a server on standby looks for the leader, and one that leads whether it still does.
constexpr std::chrono::milliseconds kLook{250};
// What calls took and gave back lies between what lives on: a heap that does nothing about it grows for hours, burst by
// burst, most of all with an arena for every few threads. So there are few, and free pages go back now and then.
constexpr int kHeapArenas = 2;
constexpr std::chrono::minutes kHeapTrim{1};
// How long `restore` waits for a leader that was killed to be given up.
constexpr std::chrono::seconds kLeaderPatience{10};

struct Settings {
  std::string listen;
  TlsFiles tls;
  std::string roles;
  ConnectionLimits connections;
  std::chrono::milliseconds max_connection_age{0};
  std::string metrics_listen;
  std::string state_directory;
  std::string store;      // URL of a database; empty: a file in the state directory
  std::string advertise;  // with a database
  absl::Duration lease;
  absl::Duration heartbeat;
  bool closed = false;
  Retention retention = {};
};

absl::Status ReadAccessFlags(Settings& settings) {
  settings.tls = {absl::GetFlag(FLAGS_ca), absl::GetFlag(FLAGS_cert), absl::GetFlag(FLAGS_key)};
  settings.roles = absl::GetFlag(FLAGS_roles);
  if (absl::Status status = CheckTlsFiles(settings.tls, absl::Now()); !status.ok()) return status;
  if (settings.tls.empty() != settings.roles.empty()) {
    return absl::InvalidArgumentError(settings.roles.empty()
                                          ? "--roles: missing; a server with TLS needs the file of who may do what"
                                          : "--ca: missing; --roles needs TLS (--ca, --cert, --key)");
  }
  const int total = absl::GetFlag(FLAGS_max_connections);
  const int per_address = absl::GetFlag(FLAGS_max_connections_per_address);
  if (total < 1) return absl::InvalidArgumentError("--max-connections: at least 1 is needed");
  if (per_address < 1) return absl::InvalidArgumentError("--max-connections-per-address: at least 1 is needed");
  const absl::Duration age = absl::GetFlag(FLAGS_max_connection_age);
  if (age != absl::ZeroDuration() && (age < absl::Seconds(1) || age > absl::Hours(24 * 20))) {
    return absl::InvalidArgumentError("--max-connection-age: 0 (never) or 1s to 480h is possible");
  }
  settings.max_connection_age = absl::ToChronoMilliseconds(age);
  settings.connections = {static_cast<size_t>(total), static_cast<size_t>(per_address)};
  return absl::OkStatus();
}

// Every connection takes a descriptor. As many as the system allows are taken, and fewer connections if need be.
void FitConnections(ConnectionLimits& connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t possible =
      limit.rlim_max > 2 * kOtherDescriptors ? limit.rlim_max - kOtherDescriptors : kOtherDescriptors;
  if (connections.total <= possible) return;
  LogWarning(absl::StrCat("--max-connections: ", connections.total, " need more than the ", limit.rlim_max,
                          " file descriptors of this process (ulimit -n); ", possible, " are possible"));
  connections.total = possible;
}

absl::Status ReadStoreFlags(Settings& settings) {
  if (settings.store.empty()) {
    if (settings.advertise.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError("--advertise: only servers that share a database (--store) need it");
  }
  if (!absl::StartsWith(settings.store, "postgresql://")) {
    return absl::InvalidArgumentError("--store: give postgresql://USER@HOST/DATABASE");
  }
  if (absl::Status status = Postgres::ValidateUrl(settings.store); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--store: ", std::string(status.message())));
  }
  if (settings.advertise.empty()) settings.advertise = settings.listen;
  if (absl::Status status = ValidateAddress("--advertise", settings.advertise); !status.ok()) return status;
  for (const char* nowhere : {"0.0.0.0:", "[::]:"}) {
    if (!absl::StartsWith(settings.advertise, nowhere)) continue;
    return absl::InvalidArgumentError("--advertise: say at which HOST:PORT others reach this server");
  }
  if (absl::EndsWith(settings.advertise, ":0")) {
    return absl::InvalidArgumentError("--listen: with --store the port must be one that others can be told, not 0");
  }
  return absl::OkStatus();
}

absl::StatusOr<Settings> ReadFlags() {
  Settings settings;
  settings.listen = absl::GetFlag(FLAGS_listen);
  settings.metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  settings.state_directory = absl::GetFlag(FLAGS_state_dir);
  settings.lease = absl::GetFlag(FLAGS_lease);
  settings.heartbeat = absl::GetFlag(FLAGS_heartbeat);
  settings.closed = absl::GetFlag(FLAGS_closed);
  settings.store = absl::GetFlag(FLAGS_store);
  settings.advertise = absl::GetFlag(FLAGS_advertise);
  if (absl::Status status = ValidateAddress("--listen", settings.listen); !status.ok()) return status;
  if (absl::Status status = ReadAccessFlags(settings); !status.ok()) return status;
  if (settings.tls.empty() && !IsLocalAddress(settings.listen) && !absl::GetFlag(FLAGS_insecure)) {
    return absl::InvalidArgumentError(kPlainTextRefused);
  }
  if (absl::Status status = ReadMetricsAddress(settings.metrics_listen); !status.ok()) return status;
  if (settings.state_directory.empty()) settings.state_directory = DefaultStateDirectory() + "/server";
  if (absl::Status status = ReadStoreFlags(settings); !status.ok()) return status;
  const absl::Duration retain = absl::GetFlag(FLAGS_retain);
  const int retain_benchmarks = absl::GetFlag(FLAGS_retain_benchmarks);
  if (retain < absl::ZeroDuration() || retain > absl::Hours(24 * 36'500)) {
    return absl::InvalidArgumentError("--retain: 0 (for ever) to a hundred years (876000h) is possible");
  }
  if (retain_benchmarks < 0) return absl::InvalidArgumentError("--retain-benchmarks: 0 (all) or more is possible");
  settings.retention = {absl::ToInt64Milliseconds(retain), static_cast<uint64_t>(retain_benchmarks)};
  if (settings.lease < absl::Milliseconds(100) || settings.lease > absl::Hours(24)) {
    return absl::InvalidArgumentError("--lease: 100ms to 24h is possible");
  }
  if (settings.heartbeat < absl::Milliseconds(10) || settings.heartbeat * 2 > settings.lease) {
    return absl::InvalidArgumentError("--heartbeat: 10ms to half of --lease is possible");
  }
  return settings;
}

int Fail(int code, absl::string_view text) {
  std::fprintf(stderr, "attnfleet-server: %.*s\n", static_cast<int>(text.size()), text.data());
  return code;
}

int FailStore(const absl::Status& status) {
  const bool damaged = absl::IsDataLoss(status) || absl::IsFailedPrecondition(status);
  return Fail(damaged ? kExitFailed : kExitUnavailable, status.message());
}

std::string DatabaseFile(const Settings& settings) { return settings.state_directory + "/attnfleet.db"; }

absl::StatusOr<FileLock> LockStateDirectory(const Settings& settings) {
  if (absl::Status status = PrepareStateDirectory(settings.state_directory); !status.ok()) return status;
  return FileLock::Acquire(settings.state_directory + "/lock", "attnfleet-server");
}

void SayReady(const std::string& address) {
  static bool said = false;
  if (std::exchange(said, true)) return;
  std::printf("ready %s\n", address.c_str());
  std::fflush(stdout);
}

// Serves what is served always; null if there is to be no /metrics.
absl::StatusOr<std::unique_ptr<prometheus::Exposer>> StartMetrics(const Settings& settings, const Metrics& metrics) {
  if (settings.metrics_listen.empty()) return std::unique_ptr<prometheus::Exposer>();
  return ServeMetrics(settings.metrics_listen, metrics.collectables());
}

// Adds to /metrics, for as long as it lives, what a server shows that leads.
class LeadersFigures {
 public:
  LeadersFigures(prometheus::Exposer* exposer, Metrics& metrics, Coordinator& coordinator)
      : exposer_(exposer),
        metrics_(metrics),
        collectables_{metrics.results(), std::make_shared<FleetMetrics>(coordinator)} {
    metrics_.SetLeads(true);
    if (exposer_ == nullptr) return;
    for (const auto& collectable : collectables_) exposer_->RegisterCollectable(collectable);
  }
  // Waits for a scrape that reads them just now.
  ~LeadersFigures() {
    metrics_.SetLeads(false);
    if (exposer_ == nullptr) return;
    for (const auto& collectable : collectables_) exposer_->RemoveCollectable(collectable);
  }
  LeadersFigures(const LeadersFigures&) = delete;
  LeadersFigures& operator=(const LeadersFigures&) = delete;

 private:
  prometheus::Exposer* const exposer_;
  Metrics& metrics_;
  const std::vector<std::shared_ptr<prometheus::Collectable>> collectables_;
};

// Coordinates with `store` until a signal comes or `lost` says that it is over. Returns the exit code, none if it was
// `lost`; an error if the store cannot be read.
absl::StatusOr<std::optional<int>> Coordinate(const Settings& settings, const ListenOptions& listen, JobStore& store,
                                              Metrics& metrics, prometheus::Exposer* exposer, StopSignals& signals,
                                              const std::function<bool()>& lost) {
  Coordinator::Options options;
  options.lease_ms = absl::ToInt64Milliseconds(settings.lease);
  options.heartbeat_interval_ms = absl::ToInt64Milliseconds(settings.heartbeat);
  options.closed = settings.closed;
  options.retention = settings.retention;
  // Leases are measured with it, so it must not jump with the host's clock.
  options.now_unix_ms = [start = absl::ToUnixMillis(absl::Now()), begin = std::chrono::steady_clock::now()] {
    const auto elapsed = std::chrono::steady_clock::now() - begin;
    return start + std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count();
  };
  if (exposer != nullptr) {
    options.observe = [&metrics](const BatchReport& report) { metrics.Observe(report); };
    // What ends now is newer than all that ended when this server led before.
    options.finished = [&metrics, before = metrics.newest_finished()](const v1::Benchmark& benchmark, uint64_t order) {
      metrics.Finished(benchmark, before + order);
    };
  }
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = Coordinator::Start(store, options);
  if (!coordinator.ok()) return coordinator.status();
  const LeadersFigures figures(exposer, metrics, **coordinator);

  BenchmarkService benchmarks(**coordinator, listen.access);
  FleetService fleet(**coordinator);
  WorkerService workers(**coordinator, listen.access);
  Interceptors interceptors;
  interceptors.push_back(metrics.rpcs().MakeInterceptors());
  const absl::StatusOr<Listener> listener = Listen(listen, {&benchmarks, &fleet, &workers}, std::move(interceptors));
  if (!listener.ok())
    return Fail(kExitUnavailable, absl::StrCat("--listen: ", std::string(listener.status().message())));
  LogInfo(absl::StrCat("listening on ", listener->address, ", ", store.name()));
  SayReady(listener->address);

  bool told_to_stop = false;
  for (auto trim = std::chrono::steady_clock::now() + kHeapTrim; !told_to_stop && !lost();) {
    told_to_stop = signals.Wait(kLook) != 0;
    if (std::chrono::steady_clock::now() < trim) continue;
    malloc_trim(0);
    trim = std::chrono::steady_clock::now() + kHeapTrim;
  }
  LogInfo("stopping");
  listener->server->GetHealthCheckService()->SetServingStatus(false);
  (*coordinator)->Stop();  // tells workers and watchers, so that few are left for the server to cut off
  listener->server->Shutdown(std::chrono::system_clock::now() + kShutdownLimit);
  if (!told_to_stop) return std::nullopt;
  return kExitOk;
}

int ServeFile(const Settings& settings, const ListenOptions& listen, Metrics& metrics, StopSignals& signals) {
  const absl::StatusOr<FileLock> lock = LockStateDirectory(settings);
  if (!lock.ok()) return Fail(kExitUnavailable, lock.status().message());
  absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(DatabaseFile(settings));
  if (!store.ok()) return FailStore(store.status());
  const absl::StatusOr<std::unique_ptr<prometheus::Exposer>> exposer = StartMetrics(settings, metrics);
  if (!exposer.ok()) return Fail(kExitUnavailable, exposer.status().message());
  const absl::StatusOr<std::optional<int>> code =
      Coordinate(settings, listen, **store, metrics, exposer->get(), signals, [] { return false; });
  return code.ok() ? code->value_or(kExitOk) : FailStore(code.status());
}

// Refuses calls until this server leads, and returns its epoch; 0: a signal came.
absl::StatusOr<int64_t> StandBy(const ListenOptions& listen, Leadership& leadership, StopSignals& signals) {
  absl::StatusOr<int64_t> epoch = leadership.TryToLead();
  if (epoch.value_or(0) > 0) return epoch;
  StandbyService refusal([&leadership] { return leadership.leader(); });
  const absl::StatusOr<Listener> listener = Listen(listen, {}, {}, &refusal);
  if (!listener.ok()) {
    return absl::UnavailableError(absl::StrCat("--listen: ", std::string(listener.status().message())));
  }
  listener->server->GetHealthCheckService()->SetServingStatus(false);
  LogWarning("on standby");
  SayReady(listener->address);
  std::string problem;
  while (signals.Wait(kLook) == 0) {
    epoch = leadership.TryToLead();
    const std::string now(epoch.status().message());
    if (now != problem) LogWarning(now.empty() ? "the database answers again" : now);
    problem = now;
    if (epoch.value_or(0) == 0) continue;
    listener->server->Shutdown(std::chrono::system_clock::now() + kShutdownLimit);
    return epoch;
  }
  return 0;
}

int ServeDatabase(const Settings& settings, const ListenOptions& listen, Metrics& metrics, StopSignals& signals) {
  if (absl::Status status = PostgresStore::Migrate(settings.store); !status.ok()) return FailStore(status);
  const absl::StatusOr<std::unique_ptr<prometheus::Exposer>> exposer = StartMetrics(settings, metrics);
  if (!exposer.ok()) return Fail(kExitUnavailable, exposer.status().message());
  Leadership leadership(settings.store, settings.advertise);
  for (;;) {
    const absl::StatusOr<int64_t> epoch = StandBy(listen, leadership, signals);
    if (!epoch.ok()) return Fail(kExitUnavailable, epoch.status().message());
    if (*epoch == 0) return kExitOk;
    LogWarning(absl::StrCat("leads, epoch ", *epoch));
    absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(settings.store, &leadership);
    const absl::StatusOr<std::optional<int>> code =
        store.ok()
            ? Coordinate(settings, listen, **store, metrics, exposer->get(), signals, [&] { return leadership.lost(); })
            : store.status();
    const bool lost = leadership.lost();
    if (lost) {
      LogWarning("leads no more");
    } else {
      leadership.Resign();
    }
    if (code.ok() && code->has_value()) return **code;
    if (lost) continue;
    // A database may go away at this moment as at any other; then somebody leads when it is back.
    if (!absl::IsUnavailable(code.status())) return FailStore(code.status());
    LogWarning(std::string(code.status().message()));
    // What refuses new sessions only would let this one lead again at once, over and over.
    if (signals.Wait(kLook) != 0) return kExitOk;
  }
}

int Serve(const Settings& settings, StopSignals& signals) {
  std::unique_ptr<AccessControl> access;  // null in plain text
  if (!settings.roles.empty()) {
    absl::StatusOr<std::unique_ptr<AccessControl>> opened = AccessControl::Open(settings.roles);
    if (!opened.ok()) return Fail(kExitUsage, absl::StrCat("--roles: ", std::string(opened.status().message())));
    access = *std::move(opened);
  }
  ListenOptions listen{.address = settings.listen,
                       .tls = settings.tls,
                       .access = access.get(),
                       .connections = settings.connections,
                       .max_age = settings.max_connection_age};
  FitConnections(listen.connections);
  Metrics metrics;
  listen.refused = [&metrics](grpc::StatusCode code) { metrics.rpcs().Refused(code); };
  return settings.store.empty() ? ServeFile(settings, listen, metrics, signals)
                                : ServeDatabase(settings, listen, metrics, signals);
}

int Administer(const Settings& settings, const std::vector<std::string>& words) {
  // What keeps servers away from the store while it is written.
  std::optional<FileLock> lock;
  std::optional<Leadership> leadership;
  StoreAccess access;
  if (settings.store.empty()) {
    access.read = [&] { return SqliteStore::Open(DatabaseFile(settings), SqliteStore::Mode::kRead); };
    access.write = [&]() -> absl::StatusOr<std::unique_ptr<JobStore>> {
      absl::StatusOr<FileLock> held = LockStateDirectory(settings);
      if (!held.ok()) return held.status();
      lock.emplace(*std::move(held));
      return SqliteStore::Open(DatabaseFile(settings));
    };
  } else {
    access.read = [&] { return PostgresStore::Open(settings.store, nullptr); };
    access.write = [&]() -> absl::StatusOr<std::unique_ptr<JobStore>> {
      if (absl::Status status = PostgresStore::Migrate(settings.store); !status.ok()) return status;
      leadership.emplace(settings.store, "attnfleet-server restore");
      const auto deadline = std::chrono::steady_clock::now() + kLeaderPatience;
      for (;;) {
        const absl::StatusOr<int64_t> epoch = leadership->TryToLead();
        if (!epoch.ok()) return epoch.status();
        if (*epoch > 0) return PostgresStore::Open(settings.store, &*leadership);
        if (std::chrono::steady_clock::now() > deadline) break;
        std::this_thread::sleep_for(kLook);
      }
      return absl::UnavailableError(
          absl::StrCat("the server ", leadership->leader(), " works with this store; stop it first"));
    };
  }
  const absl::StatusOr<int> code = RunAdminCommand(words, access);
  if (leadership.has_value()) leadership->Resign();
  if (code.ok()) return *code;
  if (absl::IsInvalidArgument(code.status())) {
    return Fail(kExitUsage, absl::StrCat(std::string(code.status().message()), " (see --help)"));
  }
  return FailStore(code.status());
}

int Main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, kHeapArenas);  // before the first thread
  // gRPC's own log lines are no help to a user; an environment variable brings them back.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  // Debian's Abseil looks for cycles at each lock that gRPC takes, in one graph of all its mutexes.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const absl::StatusOr<CommandLine> line = ParseFlags(argc, argv);
  if (!line.ok()) return Fail(kExitUsage, absl::StrCat(std::string(line.status().message()), " (see --help)"));
  if (line->help) {
    std::fputs(kHelp, stdout);
    return kExitOk;
  }
  if (line->version) {
    std::printf("attnfleet-server %s\n", kVersion);
    return kExitOk;
  }
  const absl::StatusOr<LogFormat> log_format = ParseLogFormat(absl::GetFlag(FLAGS_log_format));
  if (!log_format.ok()) return Fail(kExitUsage, log_format.status().message());
  InitLog("attnfleet-server", absl::GetFlag(FLAGS_verbose) ? Severity::kInfo : Severity::kWarning, *log_format);
  const absl::StatusOr<Settings> settings = ReadFlags();
  if (!settings.ok()) return Fail(kExitUsage, settings.status().message());
  if (!line->positional.empty()) return Administer(*settings, line->positional);
  if (const int parent = absl::GetFlag(FLAGS_parent_pid); parent > 0) {
    if (absl::Status status = DieWithParent(parent, SIGTERM); !status.ok()) {
      return Fail(kExitUnavailable, status.message());
    }
  }
  StopSignals signals;
  return Serve(*settings, signals);
}

}  // namespace
}  // namespace attnfleet::server

int main(int argc, char** argv) { return attnfleet::server::Main(argc, argv); }
