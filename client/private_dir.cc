#include "client/private_dir.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/address.h"

namespace attnfleet::client {
namespace {

constexpr char kPrefix[] = "attnfleet-";
constexpr char kSocket[] = "coordinator.sock";

// Only what this program puts there; rmdir() refuses the rest.
void Remove(const std::string& path) {
  unlink(absl::StrCat(path, "/", kSocket).c_str());
  rmdir(path.c_str());
}

}  // namespace

absl::StatusOr<PrivateDir> PrivateDir::Make() {
  std::vector<std::string> parents;
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime == '/') {
    parents.emplace_back(runtime);
  }
  parents.emplace_back("/tmp");
  absl::Status problem;
  for (const std::string& parent : parents) {
    std::string path = absl::StrCat(parent, "/", kPrefix, "XXXXXX");
    if (!ValidateAddress("", absl::StrCat("unix:", path, "/", kSocket)).ok()) continue;
    if (mkdtemp(path.data()) != nullptr) return PrivateDir(path);
    problem = absl::ErrnoToStatus(errno, absl::StrCat("cannot make a private folder in ", parent));
  }
  return problem;
}

PrivateDir::PrivateDir(std::string path) : path_(std::move(path)) {}

PrivateDir::PrivateDir(PrivateDir&& other) noexcept : path_(std::exchange(other.path_, {})) {}

PrivateDir::~PrivateDir() {
  if (!path_.empty()) Remove(path_);
}

std::string PrivateDir::address() const { return absl::StrCat("unix:", path_, "/", kSocket); }

void PrivateDir::RemoveLeft(const std::string& address) {
  if (!absl::StartsWith(address, "unix:/")) return;
  const std::filesystem::path socket = address.substr(5);
  const std::string folder = socket.parent_path().filename().string();
  if (socket.filename() == kSocket && absl::StartsWith(folder, kPrefix)) Remove(socket.parent_path().string());
}

}  // namespace attnfleet::client
