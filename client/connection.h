#ifndef ATTNFLEET_CLIENT_CONNECTION_H_
#define ATTNFLEET_CLIENT_CONNECTION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/command_line.h"
#include "client/local_fleet.h"
#include "client/server.h"
#include "proto/credentials.h"

namespace attnfleet::client {

// Which server a command talks to: a named one, or the local store.
struct ConnectionFlags {
  std::string server;     // "" = the local store
  TlsFiles tls;           // for a named server; empty fields come from the environment
  std::string state_dir;  // of the local store
  double timeout_seconds = 10;
  std::string torch;
  std::string trainer;
  std::string files;  // folder that a worker started here reads; "" = none
  bool verbose = false;

  ConnectionFlags();

  // --server, --ca, --cert, --key, --timeout, --state-dir, --verbose
  std::vector<Flag> Flags();
  // --torch, --trainer: for commands that start a worker
  std::vector<Flag> WorkerFlags();

  bool local() const { return server.empty(); }

  // INVALID_ARGUMENT where a flag of WorkerFlags() stands beside --server, whose workers it cannot reach.
  absl::Status CheckWorkerFlags() const;

  // The flags that lead a later command to the same benchmarks, with a space in front; "" if there are none.
  std::string Suffix() const;
};

// A server to call, with what was started for it.
class Connection {
 public:
  // To the named server, or for the local store to the private server that runs, or to one started here, which ends
  // benchmarks whose client was killed and says so. `command` is told to others who want the store meanwhile.
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const ConnectionFlags& flags, const std::string& command,
                                                          StopSignals& signals);

  // The same for questions about workers: a server that is started here gets a worker too.
  static absl::StatusOr<std::unique_ptr<Connection>> OpenWithWorker(const ConnectionFlags& flags,
                                                                    const std::string& command, StopSignals& signals);

  // To the local store with a server of one's own, still without a worker. Where another has the store, `held` is
  // called first, and an error of it is the answer; then the store is waited for a little. UNAVAILABLE names who has
  // it.
  static absl::StatusOr<std::unique_ptr<Connection>> OpenOwn(const ConnectionFlags& flags, const std::string& command,
                                                             const std::string& slots,
                                                             const std::function<absl::Status()>& held,
                                                             StopSignals& signals);

  ~Connection();  // stops what was started
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Server& server() { return server_; }
  LocalFleet* fleet() { return fleet_.get(); }  // null if nothing was started here

  // Stops what was started, in good order. Nothing can be called after it.
  void Close(bool at_once = false);

 private:
  Connection(const ConnectionFlags& flags, const std::string& address, std::unique_ptr<LocalFleet> fleet,
             StopSignals& signals, const TlsFiles& tls = {});

  static absl::StatusOr<std::unique_ptr<Connection>> OpenNamed(const ConnectionFlags& flags, StopSignals& signals);

  // `held`: see OpenOwn; null: the server of another may be used.
  static absl::StatusOr<std::unique_ptr<Connection>> OpenLocal(const ConnectionFlags& flags,
                                                               const LocalFleetOptions& options,
                                                               const std::function<absl::Status()>& held,
                                                               StopSignals& signals);

  std::unique_ptr<LocalFleet> fleet_;
  StopSignals& signals_;
  Server server_;
};

// "12" -> 12; an error that says what an ID is.
absl::StatusOr<uint64_t> ParseId(const std::string& text);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_CONNECTION_H_
