#include "client/local_fleet.h"

#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/support/process.h"

namespace attnfleet::client {
namespace {

constexpr absl::Duration kServerPatience = absl::Seconds(20);
constexpr absl::Duration kWorkerPatience = absl::Seconds(90);  // it asks the trainer, which loads LibTorch
constexpr absl::Duration kStopPatience = absl::Seconds(5);
// A client that was killed releases its lock at once, while its server may take a moment to notice.
constexpr absl::Duration kOrphanPatience = absl::Seconds(10);
constexpr absl::Duration kOrphanPause = absl::Milliseconds(100);
constexpr absl::Duration kRestartPause = absl::Milliseconds(500);
constexpr int kMostRestarts = 5;

std::string LocalDir(const std::string& state_dir) { return absl::StrCat(state_dir, "/local"); }
std::string AddressFile(const std::string& state_dir) { return LocalDir(state_dir) + "/server.address"; }

absl::Status Unavailable(const absl::Status& status) { return absl::UnavailableError(status.message()); }

}  // namespace

std::optional<std::string> RunningLocalServer(const std::string& state_dir) {
  absl::StatusOr<std::string> address = ReadFile(AddressFile(state_dir));
  if (!address.ok() || address->empty()) return std::nullopt;
  return *std::move(address);
}

bool HasLocalStore(const std::string& state_dir) {
  std::error_code error;
  return std::filesystem::exists(LocalDir(state_dir) + "/server", error);
}

LocalFleet::LocalFleet(LocalFleetOptions options, FileLock lock, PrivateDir folder)
    : options_(std::move(options)),
      local_dir_(LocalDir(options_.state_dir)),
      lock_(std::move(lock)),
      folder_(std::move(folder)),
      address_(folder_.address()) {}

LocalFleet::~LocalFleet() {
  // The worker first: a worker without a server would start to look for it.
  worker_.reset();
  server_.reset();
  unlink(AddressFile(options_.state_dir).c_str());
}

std::string LocalFleet::LogPath(const std::string& program) const {
  return options_.verbose ? "" : absl::StrCat(local_dir_, "/", program, ".log");
}

std::unique_ptr<LocalFleet::Program> LocalFleet::MakeProgram(const std::string& name,
                                                             std::vector<std::string> flags) const {
  flags.insert(flags.begin(), absl::StrCat(programs_dir_, "/attnfleet-", name));
  flags.push_back(absl::StrCat("--state-dir=", local_dir_, "/", name));
  flags.push_back(absl::StrCat("--parent-pid=", getpid()));
  return std::make_unique<Program>(std::move(flags), LogPath(name));
}

absl::StatusOr<std::unique_ptr<LocalFleet>> LocalFleet::Start(const LocalFleetOptions& options, StopSignals& signals) {
  const absl::StatusOr<std::string> programs = ExecutableDirectory();
  if (!programs.ok()) return programs.status();
  const std::string local = LocalDir(options.state_dir);
  if (const absl::Status status = PrepareStateDirectory(local); !status.ok()) return Unavailable(status);
  absl::StatusOr<FileLock> lock = FileLock::Acquire(local + "/lock", options.command);
  if (!lock.ok()) return absl::IsAlreadyExists(lock.status()) ? lock.status() : Unavailable(lock.status());
  // The lock is ours, so an address that is still there was left by a process that was killed.
  if (const std::optional<std::string> left = RunningLocalServer(options.state_dir)) PrivateDir::RemoveLeft(*left);
  absl::StatusOr<PrivateDir> folder = PrivateDir::Make();
  if (!folder.ok()) return Unavailable(folder.status());
  std::unique_ptr<LocalFleet> fleet(new LocalFleet(options, *std::move(lock), *std::move(folder)));
  fleet->programs_dir_ = *programs;

  std::vector<std::string> flags = {"--listen=" + fleet->address_, "--metrics-listen=off", "--closed"};
  if (options.verbose) flags.emplace_back("--verbose");
  fleet->server_ = fleet->MakeProgram("server", flags);
  const absl::Time patience = absl::Now() + kOrphanPatience;
  for (;;) {
    if (const absl::Status status = fleet->server_->child.Start(); !status.ok()) return Unavailable(status);
    fleet->server_->last_start = absl::Now();
    const absl::Status ready = fleet->server_->child.WaitUntilReady(kServerPatience, signals);
    if (ready.ok()) break;
    const bool orphan = absl::IsUnavailable(ready) && absl::StrContains(ready.message(), "is held by process");
    if (!orphan || absl::Now() > patience) {
      // On a full disk the server's own words were lost with its log.
      const absl::Status disk = PrepareStateDirectory(local);
      return disk.ok() ? ready : Unavailable(disk);
    }
    if (signals.Wait(absl::ToChronoMilliseconds(kOrphanPause)) != 0) return absl::CancelledError("interrupted");
  }
  if (const absl::Status status = WriteFileAtomically(AddressFile(options.state_dir), fleet->address_); !status.ok()) {
    return Unavailable(status);
  }
  return fleet;
}

absl::Status LocalFleet::StartWorker(StopSignals& signals) {
  std::vector<std::string> flags = {"--server=" + address_, "--name=local", "--slots=" + options_.slots};
  if (!options_.torch.empty()) flags.push_back("--torch=" + options_.torch);
  if (!options_.trainer.empty()) flags.push_back("--trainer=" + options_.trainer);
  if (!options_.files.empty()) flags.push_back("--files=" + options_.files);
  worker_ = MakeProgram("worker", flags);
  if (const absl::Status status = worker_->child.Start(); !status.ok()) return Unavailable(status);
  worker_->last_start = absl::Now();
  return worker_->child.WaitUntilReady(kWorkerPatience, signals);
}

absl::Status LocalFleet::TendOne(Program& program, const std::string& name,
                                 const std::function<void(const std::string&)>& note) {
  if (!program.child.Ended() || absl::Now() - program.last_start < kRestartPause) return absl::OkStatus();
  const std::string what = absl::StrCat("the local ", name, " ", program.child.HowItEnded());
  if (program.restarts == kMostRestarts) {
    const std::string tail = program.child.LogTail();
    return absl::UnknownError(absl::StrCat(what, " and was started again ", kMostRestarts, " times already",
                                           tail.empty() ? "" : ":\n", tail));
  }
  ++program.restarts;
  note(absl::StrCat(what, "; starting it again (", program.restarts, " of ", kMostRestarts, ")"));
  program.last_start = absl::Now();
  return program.child.Start();
}

absl::Status LocalFleet::Tend(const std::function<void(const std::string&)>& note) {
  absl::Status status = TendOne(*server_, "server", note);
  if (status.ok() && worker_ != nullptr) status = TendOne(*worker_, "worker", note);
  return status;
}

void LocalFleet::Stop(StopSignals& signals, bool at_once) {
  if (worker_ != nullptr) worker_->child.Stop(at_once ? absl::ZeroDuration() : kStopPatience, signals);
  server_->child.Stop(kStopPatience, signals);
}

}  // namespace attnfleet::client
