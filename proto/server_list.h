#ifndef ATTNFLEET_PROTO_SERVER_LIST_H_
#define ATTNFLEET_PROTO_SERVER_LIST_H_

#include <grpcpp/client_context.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet {

// Trailing metadata with which a coordinator on standby names the one that leads.
inline constexpr char kLeaderMetadata[] = "attnfleet-leader";

// The leader that the server of a call named, which has ended; "" if it named none.
std::string LeaderNamed(const grpc::ClientContext& context);

// "a:1,b:2": the addresses of several coordinators, of which one leads. INVALID_ARGUMENT as ValidateAddress gives it.
absl::StatusOr<std::vector<std::string>> ParseServerList(const std::string& flag, const std::string& text);

// Which coordinator to try next: the one that worked, then what a standby says, then the others in turn. Pure.
class ServerList {
 public:
  // "a:1,b:2", as ParseServerList accepts it.
  explicit ServerList(const std::string& text);

  const std::string& current() const { return hint_.empty() ? addresses_[next_] : hint_; }
  bool several() const { return addresses_.size() > 1; }

  // The current one did not serve; `leader` is whom it named, or "". A name is followed once: a coordinator that keeps
  // naming one that does not answer must not keep others from being tried. Returns whether it is followed now.
  bool Failed(const std::string& leader);
  // The current one leads.
  void Worked() { followed_ = false; }

 private:
  std::vector<std::string> addresses_;
  size_t next_ = 0;
  std::string hint_;       // followed at present
  bool followed_ = false;  // a name has been followed since the last success, or since the others were tried
};

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SERVER_LIST_H_
