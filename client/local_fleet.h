#ifndef ATTNFLEET_CLIENT_LOCAL_FLEET_H_
#define ATTNFLEET_CLIENT_LOCAL_FLEET_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/child.h"
#include "client/private_dir.h"
#include "proto/support/state_dir.h"
#include "proto/support/stop_signals.h"

namespace attnfleet::client {

struct LocalFleetOptions {
  std::string state_dir;  // the local store is STATE/local
  std::string command;    // told to others who want the store meanwhile: "attnfleet run"
  std::string slots;      // of the worker: "auto", "cpu", ...
  std::string torch;      // "" = the worker looks for it
  std::string trainer;    // "" = the one beside the worker
  std::string files;      // folder of its data and weights; "" = none
  bool verbose = false;   // their messages go to standard error instead of STATE/local/*.log
};

// A coordinator and a worker of one's own on this machine, over a Unix socket in a private folder. They end with this
// process, however it ends; the results stay in the local store. Main thread only (see Child).
class LocalFleet {
 public:
  // Takes the store's lock and starts the server. ALREADY_EXISTS names the process that has the lock; CANCELLED if a
  // stop signal came; else UNAVAILABLE or what the server said.
  static absl::StatusOr<std::unique_ptr<LocalFleet>> Start(const LocalFleetOptions& options, StopSignals& signals);

  ~LocalFleet();
  LocalFleet(const LocalFleet&) = delete;
  LocalFleet& operator=(const LocalFleet&) = delete;

  const std::string& address() const { return address_; }

  // Waits until it is ready too. Errors as Start().
  absl::Status StartWorker(StopSignals& signals);

  // Starts again what has died, a bounded number of times; `note` is told. UNKNOWN when one dies again and again.
  absl::Status Tend(const std::function<void(const std::string&)>& note);

  // Stops both in order and waits; a stop signal meanwhile kills them at once. `at_once`: the worker, and with it what
  // it runs, is given no time to end.
  void Stop(StopSignals& signals, bool at_once);

 private:
  struct Program {
    Program(std::vector<std::string> argv, std::string log_path) : child(std::move(argv), std::move(log_path)) {}
    Child child;
    int restarts = 0;
    absl::Time last_start = absl::InfinitePast();
  };

  LocalFleet(LocalFleetOptions options, FileLock lock, PrivateDir folder);
  std::string LogPath(const std::string& program) const;
  std::unique_ptr<Program> MakeProgram(const std::string& name, std::vector<std::string> flags) const;
  static absl::Status TendOne(Program& program, const std::string& name,
                              const std::function<void(const std::string&)>& note);

  const LocalFleetOptions options_;
  const std::string local_dir_;
  const FileLock lock_;
  const PrivateDir folder_;
  const std::string address_;
  std::string programs_dir_;
  std::unique_ptr<Program> server_;
  std::unique_ptr<Program> worker_;
};

// The address of the private server that another process runs on this store now; nothing if there is none.
std::optional<std::string> RunningLocalServer(const std::string& state_dir);

// Whether a benchmark was ever run on this store.
bool HasLocalStore(const std::string& state_dir);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_LOCAL_FLEET_H_
