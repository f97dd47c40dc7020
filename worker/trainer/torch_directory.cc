#include "worker/trainer/torch_directory.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/support/process.h"

namespace attnfleet::trainer {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPythonLimit{20};
// Finds the package without importing it, which would take seconds.
constexpr char kPythonProgram[] =
    "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')";

// The version that version.py of a wheel or build-version of a LibTorch archive tells; empty if neither does.
std::string ReadVersion(const fs::path& directory) {
  std::string line;
  for (std::ifstream stream(directory / "version.py"); std::getline(stream, line);) {
    if (!absl::StartsWith(line, "__version__")) continue;
    const std::vector<std::string> quoted = absl::StrSplit(line, absl::ByAnyChar("'\""));
    if (quoted.size() >= 2) return quoted[1];
  }
  std::ifstream stream(directory / "build-version");
  std::getline(stream, line);
  return std::string(absl::StripAsciiWhitespace(line));
}

// What can be read from `descriptor` until its end or the deadline.
std::string ReadUntil(int descriptor, Clock::time_point deadline, bool& in_time) {
  std::string text;
  in_time = false;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd poller{descriptor, POLLIN, 0};
    if (left.count() <= 0 || poll(&poller, 1, static_cast<int>(left.count())) <= 0) return text;
    char buffer[512];
    const ssize_t count = read(descriptor, buffer, sizeof buffer);
    if (count <= 0) {
      in_time = true;
      return text;
    }
    text.append(buffer, static_cast<size_t>(count));
  }
}

// The full path of `program` in $PATH; empty if there is none.
std::string FindInPath(const std::string& program) {
  const char* path = std::getenv("PATH");
  for (const auto& folder : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    const std::string candidate = absl::StrCat(folder, "/", program);
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

// Where the host's python3 would import torch from; an error says why that is not known.
absl::StatusOr<std::string> AskPython() {
  const std::string python = FindInPath("python3");
  if (python.empty()) return absl::NotFoundError("there is no python3");
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const absl::StatusOr<pid_t> child =
      Spawn({python, "-c", kPythonProgram}, {.output = pipe_ends[1]}, /*own_group=*/true);
  close(pipe_ends[1]);
  if (!child.ok()) {
    close(pipe_ends[0]);
    return child.status();
  }
  bool in_time = false;
  const std::string answer = ReadUntil(pipe_ends[0], Clock::now() + kPythonLimit, in_time);
  close(pipe_ends[0]);
  if (!in_time) kill(-*child, SIGKILL);
  int status = 0;
  waitpid(*child, &status, 0);
  if (!in_time) return absl::DeadlineExceededError(absl::StrCat(python, " did not answer"));
  if (status != 0) return absl::InternalError(absl::StrCat(python, " failed to look for torch"));
  const std::string directory(absl::StripAsciiWhitespace(answer));
  if (directory.empty()) return absl::NotFoundError(absl::StrCat(python, " has no torch"));
  return directory;
}

absl::StatusOr<TorchDirectory> Check(const std::string& given, const std::string& source) {
  TorchDirectory torch;
  torch.source = source;
  std::error_code ignored;
  fs::path path = fs::absolute(given, ignored);
  // The folder that holds the package is as clear as the package.
  if (!fs::exists(path / "lib/libtorch_cpu.so", ignored) && fs::exists(path / "torch/lib/libtorch_cpu.so", ignored)) {
    path /= "torch";
  }
  torch.path = path.string();
  if (!fs::exists(path / "lib/libtorch_cpu.so", ignored)) {
    return absl::FailedPreconditionError(absl::StrCat("no LibTorch in ", torch.path, " (from ", source,
                                                      "): lib/libtorch_cpu.so is missing; LibTorch ", kNeededTorch,
                                                      " is needed"));
  }
  torch.version = ReadVersion(path);
  if (torch.version != kNeededTorch && !absl::StartsWith(torch.version, absl::StrCat(kNeededTorch, "."))) {
    return absl::FailedPreconditionError(absl::StrCat("LibTorch in ", torch.path, " (from ", source, ") is ",
                                                      torch.version.empty() ? "of unknown version" : torch.version,
                                                      "; this trainer needs ", kNeededTorch, ".x"));
  }
  return torch;
}

}  // namespace

absl::StatusOr<TorchDirectory> FindTorch(const std::string& flag, const std::string& program_directory) {
  if (!flag.empty()) return Check(flag, "--torch");
  const char* variable = std::getenv("ATTNFLEET_TORCH");
  if (variable != nullptr && *variable != '\0') return Check(variable, "ATTNFLEET_TORCH");
  std::ifstream beside(fs::path(program_directory) / "torch-directory");
  std::string line;
  if (std::getline(beside, line) && !line.empty()) return Check(line, "the build tree");
  const absl::StatusOr<std::string> python = AskPython();
  if (python.ok()) return Check(*python, "python3");
  return absl::NotFoundError(absl::StrCat("no LibTorch: neither --torch=DIR nor ATTNFLEET_TORCH is given, and ",
                                          std::string(python.status().message()), "; LibTorch ", kNeededTorch,
                                          " is needed, for example from `pip install torch==", kNeededTorch, ".0`"));
}

}  // namespace attnfleet::trainer
