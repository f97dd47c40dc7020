#ifndef ATTNFLEET_SERVER_ACCESS_CONTROL_H_
#define ATTNFLEET_SERVER_ACCESS_CONTROL_H_

#include <grpcpp/security/auth_context.h>
#include <grpcpp/server_context.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/credentials.h"
#include "server/access.h"

namespace attnfleet::server {

// The certificate of a call's peer. UNAUTHENTICATED if there is none.
absl::StatusOr<Certificate> PeerCertificate(const grpc::AuthContext& context);

// The name in it; none in plain text.
std::optional<std::string> PeerName(const grpc::ServerContextBase& context);

// The access list of a running server, read again when its file changes, and the rate of each peer's requests.
// Thread-safe.
class AccessControl {
 public:
  // INVALID_ARGUMENT names the file and the line.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Open(std::string path);

  // Reads the file again if it has changed. A file that cannot be used is logged and leaves the list as it is.
  void Reload();

  // For a new call: CheckAccess, and RESOURCE_EXHAUSTED for more than 20 calls a second (40 at once) of one peer.
  absl::Status Admit(const Certificate& peer, const std::string& rpc, absl::Time now);

  // For a call that goes on.
  absl::Status Check(const Certificate& peer, const std::string& rpc, absl::Time now) const;

  bool IsAdmin(const std::string& name) const;

 private:
  // A bucket of tokens that fills with time; a call takes one.
  struct Bucket {
    double tokens = 0;
    absl::Time filled;
  };

  explicit AccessControl(std::string path) : path_(std::move(path)) {}

  absl::Status Load();
  bool TakeToken(const std::string& name, absl::Time now);  // mutex_ held

  const std::string path_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  AccessList list_;
  std::optional<std::string> text_;        // what the file said, good or bad
  std::string problem_;                    // with the file, as logged last
  std::map<std::string, Bucket> buckets_;  // of names in list_
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_ACCESS_CONTROL_H_
