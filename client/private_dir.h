#ifndef ATTNFLEET_CLIENT_PRIVATE_DIR_H_
#define ATTNFLEET_CLIENT_PRIVATE_DIR_H_

#include <string>

#include "absl/status/statusor.h"

namespace attnfleet::client {

// A folder that only this user can enter, for the private server's socket. Removed at the end.
class PrivateDir {
 public:
  // In $XDG_RUNTIME_DIR, or in /tmp where there is none or its path is too long for a socket.
  static absl::StatusOr<PrivateDir> Make();

  ~PrivateDir();
  PrivateDir(PrivateDir&& other) noexcept;
  PrivateDir& operator=(PrivateDir&&) = delete;
  PrivateDir(const PrivateDir&) = delete;
  PrivateDir& operator=(const PrivateDir&) = delete;

  // "unix:..."
  std::string address() const;

  // Removes the folder that a killed process has left, given the address it had; anything else is left alone.
  static void RemoveLeft(const std::string& address);

 private:
  explicit PrivateDir(std::string path);

  std::string path_;
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_PRIVATE_DIR_H_
