// attnfleet-server: flags, start, and an orderly end.

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
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
#include "server/benchmark_service.h"
#include "server/coordinator.h"
#include "server/fleet_metrics.h"
#include "server/fleet_service.h"
#include "server/listener.h"
#include "server/metrics.h"
#include "server/sqlite_store.h"
#include "server/worker_service.h"

ABSL_FLAG(std::string, listen, attnfleet::kDefaultAddress, "");
ABSL_FLAG(std::string, metrics_listen, "127.0.0.1:7601", "");
ABSL_FLAG(std::string, state_dir, "", "");
ABSL_FLAG(absl::Duration, lease, absl::Seconds(15), "");
ABSL_FLAG(absl::Duration, heartbeat, absl::Seconds(5), "");
ABSL_FLAG(std::string, ca, "", "");
ABSL_FLAG(std::string, cert, "", "");
ABSL_FLAG(std::string, key, "", "");
ABSL_FLAG(std::string, roles, "", "");
ABSL_FLAG(bool, insecure, false, "");
ABSL_FLAG(int, max_connections, 10'000, "");
ABSL_FLAG(int, max_connections_per_address, 256, "");
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
  curl -s 127.0.0.1:7601/metrics                       what Prometheus scrapes

Flags
  --listen=ADDRESS          HOST:PORT (port 0: any free one) or unix:PATH; default 127.0.0.1:7600
  --metrics-listen=ADDRESS  HOST:PORT of /metrics; "off" for none; default 127.0.0.1:7601. Always plain text, open to
                            whoever reaches the address, read only: figures and no user's, host's or benchmark's name
  --ca=FILE --cert=FILE --key=FILE
                            TLS: the CA that signs the peers' certificates, and the server's own certificate and key
                            (PEM); deploy/certificates.sh makes them. Read again within a second after they change
  --roles=FILE              with TLS: lines of `NAME ROLE[,ROLE]` by the certificate's common name (viewer, submitter,
                            worker, admin) and of `revoked SHA256-FINGERPRINT`. Read again within a second after it
                            changes; whoever has lost a role loses open calls too
  --max-connections=N       open at once; more are closed at once; default 10000
  --max-connections-per-address=N
                            of them from one IPv4 address or IPv6 /64; default 256
  --state-dir=DIR           the store; default $XDG_STATE_HOME/attnfleet/server
  --lease=TIME              silence after which a worker's runs go elsewhere; default 15s
  --heartbeat=TIME          how often workers report; default 5s
  --insecure                allow plain text on an address that other machines can reach
  --parent-pid=PID          stop when that process, the parent, dies
  --log-format=FORMAT       text, or json: one object a line; with a run's request id where there is one
  --verbose                 log what workers and clients do
  --help, --version

Prints "ready ADDRESS" on standard output once it serves; messages go to standard error. SIGTERM or Ctrl-C stops it;
it may be killed at any moment: what was acknowledged is on disk, and a restart goes on where it was.

Exit codes
  0  stopped by a signal
  1  the store is damaged, or a newer attnfleet wrote it (it is left as it is)
  2  a flag is wrong
  3  the address, the port or the state directory is taken or cannot be written
)";

constexpr char kPlainTextRefused[] =
    "--listen: other machines can reach this address and the traffic is plain text; give --ca, --cert, --key and "
    "--roles for TLS, or say --insecure if that is meant";
// Descriptors that are no connections: the store, the log, gRPC's own.
constexpr rlim_t kOtherDescriptors = 200;
constexpr std::chrono::milliseconds kShutdownLimit{1'000};

struct Settings {
  std::string listen;
  TlsFiles tls;
  std::string roles;
  ConnectionLimits connections;
  std::string metrics_listen;
  std::string state_directory;
  absl::Duration lease;
  absl::Duration heartbeat;
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

absl::StatusOr<Settings> ReadFlags() {
  Settings settings;
  settings.listen = absl::GetFlag(FLAGS_listen);
  settings.metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  settings.state_directory = absl::GetFlag(FLAGS_state_dir);
  settings.lease = absl::GetFlag(FLAGS_lease);
  settings.heartbeat = absl::GetFlag(FLAGS_heartbeat);
  if (absl::Status status = ValidateAddress("--listen", settings.listen); !status.ok()) return status;
  if (absl::Status status = ReadAccessFlags(settings); !status.ok()) return status;
  if (settings.tls.empty() && !IsLocalAddress(settings.listen) && !absl::GetFlag(FLAGS_insecure)) {
    return absl::InvalidArgumentError(kPlainTextRefused);
  }
  if (absl::Status status = ReadMetricsAddress(settings.metrics_listen); !status.ok()) return status;
  if (settings.state_directory.empty()) settings.state_directory = DefaultStateDirectory() + "/server";
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

int Serve(const Settings& settings, StopSignals& signals) {
  std::unique_ptr<AccessControl> access;  // null in plain text
  if (!settings.roles.empty()) {
    absl::StatusOr<std::unique_ptr<AccessControl>> opened = AccessControl::Open(settings.roles);
    if (!opened.ok()) return Fail(kExitUsage, absl::StrCat("--roles: ", std::string(opened.status().message())));
    access = *std::move(opened);
  }
  if (absl::Status status = PrepareStateDirectory(settings.state_directory); !status.ok()) {
    return Fail(kExitUnavailable, status.message());
  }
  const absl::StatusOr<FileLock> lock = FileLock::Acquire(settings.state_directory + "/lock", "attnfleet-server");
  if (!lock.ok()) return Fail(kExitUnavailable, lock.status().message());
  absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(settings.state_directory + "/attnfleet.db");
  if (!store.ok()) return FailStore(store.status());

  Metrics metrics;
  Coordinator::Options options;
  options.lease_ms = absl::ToInt64Milliseconds(settings.lease);
  options.heartbeat_interval_ms = absl::ToInt64Milliseconds(settings.heartbeat);
  // Leases are measured with it, so it must not jump with the host's clock.
  options.now_unix_ms = [start = absl::ToUnixMillis(absl::Now()), begin = std::chrono::steady_clock::now()] {
    const auto elapsed = std::chrono::steady_clock::now() - begin;
    return start + std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count();
  };
  if (!settings.metrics_listen.empty()) {
    options.observe = [&metrics](const BatchReport& report) { metrics.Observe(report); };
  }
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = Coordinator::Start(**store, options);
  if (!coordinator.ok()) return FailStore(coordinator.status());
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables = metrics.collectables();
  collectables.push_back(std::make_shared<FleetMetrics>(**coordinator));
  std::unique_ptr<prometheus::Exposer> exposer;  // after what it reads, so that it ends before
  if (!settings.metrics_listen.empty()) {
    absl::StatusOr<std::unique_ptr<prometheus::Exposer>> serving = ServeMetrics(settings.metrics_listen, collectables);
    if (!serving.ok()) return Fail(kExitUnavailable, serving.status().message());
    exposer = *std::move(serving);
  }

  BenchmarkService benchmarks(**coordinator, access.get());
  FleetService fleet(**coordinator);
  WorkerService workers(**coordinator);
  ListenOptions listen{
      .address = settings.listen, .tls = settings.tls, .access = access.get(), .connections = settings.connections};
  FitConnections(listen.connections);
  Interceptors interceptors;
  interceptors.push_back(metrics.rpcs().MakeInterceptors());
  const absl::StatusOr<Listener> listener = Listen(listen, {&benchmarks, &fleet, &workers}, std::move(interceptors));
  if (!listener.ok())
    return Fail(kExitUnavailable, absl::StrCat("--listen: ", std::string(listener.status().message())));
  LogInfo(absl::StrCat("listening on ", listener->address, ", store ", settings.state_directory));
  std::printf("ready %s\n", listener->address.c_str());
  std::fflush(stdout);

  while (signals.Wait(std::chrono::hours(1)) == 0) {
  }
  LogInfo("stopping");
  listener->server->GetHealthCheckService()->SetServingStatus(false);
  (*coordinator)->Stop();  // tells workers and watchers, so that few are left for the server to cut off
  listener->server->Shutdown(std::chrono::system_clock::now() + kShutdownLimit);
  return kExitOk;
}

int Main(int argc, char** argv) {
  // gRPC's own log lines are no help to a user; an environment variable brings them back.
  setenv("GRPC_VERBOSITY", "NONE", 0);
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
  if (!line->positional.empty()) {
    return Fail(kExitUsage, absl::StrCat("unexpected argument \"", line->positional[0], "\" (see --help)"));
  }
  const absl::StatusOr<LogFormat> log_format = ParseLogFormat(absl::GetFlag(FLAGS_log_format));
  if (!log_format.ok()) return Fail(kExitUsage, log_format.status().message());
  InitLog("attnfleet-server", absl::GetFlag(FLAGS_verbose) ? Severity::kInfo : Severity::kWarning, *log_format);
  const absl::StatusOr<Settings> settings = ReadFlags();
  if (!settings.ok()) return Fail(kExitUsage, settings.status().message());
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
