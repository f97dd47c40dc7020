#ifndef ATTNFLEET_SERVER_ACCEPTOR_H_
#define ATTNFLEET_SERVER_ACCEPTOR_H_

#include <grpcpp/server_builder.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet::server {

struct ConnectionLimits {
  size_t total = 10'000;
  size_t per_address = 256;  // an IPv6 address counts with its whole /64
  // What the open connections of an address may receive within one window; windows follow each other. gRPC buffers a
  // message of any size, and headers of a peer that acknowledges no limit, before it refuses them: this bounds how fast
  // it can be made to hold more. Workers that report for weeks stay far below it.
  uint64_t bytes_per_address = 128 << 20;
  std::chrono::milliseconds window{60'000};
};

// Listens on a TCP address and hands connections to gRPC, which by itself would take any number, and would never
// accept again once the process has run out of file descriptors. What is over a limit is closed at once; of an address
// that has sent too much, the connection that has sent most, whose peer may connect anew.
class Acceptor {
 public:
  // Binds HOST:PORT (port 0: any free one). UNAVAILABLE says why it cannot.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Bind(const std::string& address, ConnectionLimits limits);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // "HOST:PORT" with the port that was bound.
  const std::string& address() const { return address_; }

  // Starts the thread that accepts.
  void Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> target);

 private:
  // A connection that gRPC owns. It is open for as long as the descriptor still names the same socket.
  struct Connection {
    int descriptor;
    ino_t inode;
    std::string peer;
    uint64_t before = 0;  // bytes received before this window
  };

  explicit Acceptor(ConnectionLimits limits) : limits_(limits) {}

  absl::Status BindAll(const std::string& host, const std::string& port);
  absl::Status BindOne(const sockaddr* name, socklen_t size);
  void Loop();
  void AcceptAll(int listener);
  void Take(int descriptor, const std::string& peer);
  void ForgetClosed();
  void CutHeaviest();
  void BeginWindow();

  // Constant after Start.
  const ConnectionLimits limits_;
  std::string address_;
  std::vector<int> listeners_;
  int stop_ = -1;  // an eventfd that ends the loop
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> target_;

  // Of the thread.
  std::vector<Connection> open_;
  std::map<std::string, size_t> open_by_peer_;
  size_t refused_ = 0;  // since the last line in the log
  size_t cut_ = 0;      // likewise, for the bytes

  std::thread thread_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_ACCEPTOR_H_
