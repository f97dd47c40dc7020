#include "postgres_cluster.h"

#include <fcntl.h>
#include <libpq-fe.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/support/process.h"

namespace attnfleet::server {
namespace {

constexpr char kBin[] = ATTNFLEET_POSTGRES_BIN;
constexpr std::chrono::seconds kPatience{60};
constexpr int kNobody = 65534;

// PostgreSQL refuses to run as root. setpriv becomes the program, which so stays this process's own child.
absl::StatusOr<pid_t> SpawnUnprivileged(std::vector<std::string> argv, const std::string& log) {
  if (geteuid() == 0) {
    argv.insert(argv.begin(), {"/usr/bin/setpriv", absl::StrCat("--reuid=", kNobody), absl::StrCat("--regid=", kNobody),
                               "--clear-groups", "--"});
  }
  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  absl::StatusOr<pid_t> pid = Spawn(argv, {-1, output, output}, /*own_group=*/true);
  close(output);
  return pid;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PostgresCluster>> PostgresCluster::Start() {
  std::string folder = (std::filesystem::temp_directory_path() / "attnfleet-pg.XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return absl::InternalError("no temporary folder");
  std::unique_ptr<PostgresCluster> cluster(new PostgresCluster(folder));
  if (geteuid() == 0 && chown(folder.c_str(), kNobody, kNobody) != 0) return absl::InternalError("chown " + folder);
  const absl::StatusOr<pid_t> initdb =
      SpawnUnprivileged({absl::StrCat(kBin, "/initdb"), "-D", folder + "/data", "-U", "attnfleet", "-A", "trust",
                         "--no-sync", "--locale=C", "-E", "UTF8"},
                        folder + "/log");
  if (!initdb.ok()) return initdb.status();
  int status = 0;
  waitpid(*initdb, &status, 0);
  if (status != 0) return absl::InternalError(absl::StrCat("initdb failed with status ", status));
  if (absl::Status launched = cluster->Launch(); !launched.ok()) return launched;
  return cluster;
}

PostgresCluster::~PostgresCluster() {
  Kill();
  std::filesystem::remove_all(folder_);
}

// An immediate shutdown: without it the processes of a killed server live on for a moment and keep the next from
// starting. What is on disk is the same as after a kill.
void PostgresCluster::Kill() {
  if (pid_ > 0) {
    kill(pid_, SIGQUIT);
    waitpid(pid_, nullptr, 0);
  }
  pid_ = -1;
}

std::string PostgresCluster::Url(const std::string& database) const {
  return absl::StrCat("postgresql:///", database, "?host=", folder_, "&user=attnfleet");
}

absl::Status PostgresCluster::Launch() {
  const absl::StatusOr<pid_t> postgres =
      SpawnUnprivileged({absl::StrCat(kBin, "/postgres"), "-D", folder_ + "/data", "-k", folder_, "-c",
                         "listen_addresses=", "-c", "fsync=off"},
                        folder_ + "/log");
  if (!postgres.ok()) return postgres.status();
  pid_ = *postgres;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (PQping(Url("postgres").c_str()) != PQPING_OK) {
    if (std::chrono::steady_clock::now() > deadline) return absl::DeadlineExceededError("PostgreSQL does not start");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return absl::OkStatus();
}

absl::Status PostgresCluster::Restart() {
  Kill();
  return Launch();
}

absl::StatusOr<std::string> PostgresCluster::NewDatabase() {
  const std::string database = absl::StrCat("test", ++databases_);
  PGconn* connection = PQconnectdb(Url("postgres").c_str());
  PGresult* result = PQexec(connection, absl::StrCat("CREATE DATABASE ", database).c_str());
  const bool created = PQresultStatus(result) == PGRES_COMMAND_OK;
  const std::string error = PQerrorMessage(connection);
  PQclear(result);
  PQfinish(connection);
  if (!created) return absl::InternalError(error);
  return Url(database);
}

}  // namespace attnfleet::server
