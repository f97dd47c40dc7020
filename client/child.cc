#include "client/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/text.h"
#include "proto/support/exit_code.h"
#include "proto/support/process.h"
#include "proto/support/state_dir.h"

namespace attnfleet::client {
namespace {

constexpr size_t kTailLines = 5;
constexpr std::chrono::milliseconds kPoll{20};

// "TIME error NAME: text" -> "text"; "" if it is no such line.
std::string ErrorText(const std::string& line) {
  const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(' ', 3));
  return parts.size() == 4 && parts[1] == "error" ? parts[3] : "";
}

// Of a log's last lines, what a user needs: the first error and all that follows, or everything if none is marked.
std::string Problem(const std::string& tail) {
  std::vector<std::string> found;
  const std::vector<std::string> lines = absl::StrSplit(tail, '\n');
  for (const std::string& line : lines) {
    const std::string error = ErrorText(line);
    if (!error.empty() || !found.empty()) found.push_back(error.empty() ? line : error);
  }
  return found.empty() ? tail : absl::StrJoin(found, "\n");
}

}  // namespace

Child::Child(std::vector<std::string> argv, std::string log_path)
    : argv_(std::move(argv)),
      name_(std::filesystem::path(argv_[0]).filename().string()),
      log_path_(std::move(log_path)) {}

Child::~Child() { Kill(); }

absl::Status Child::Start() {
  int log = STDERR_FILENO;
  if (!log_path_.empty()) {
    const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (started_before_ ? 0 : O_TRUNC);
    log = open(log_path_.c_str(), flags, 0600);
    if (log < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", log_path_));
  }
  std::array<int, 2> pipe_ends{-1, -1};
  if (pipe2(pipe_ends.data(), O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  if (output_ >= 0) close(output_);
  output_ = pipe_ends[0];
  // In a group of its own: Ctrl-C of the terminal goes to this process alone, which stops its children in order.
  const absl::StatusOr<pid_t> pid = Spawn(argv_, {-1, pipe_ends[1], log}, /*own_group=*/true);
  close(pipe_ends[1]);
  if (log != STDERR_FILENO) close(log);
  if (!pid.ok()) return pid.status();
  pid_ = *pid;
  ended_ = false;
  started_before_ = true;
  return absl::OkStatus();
}

absl::Status Child::WaitUntilReady(absl::Duration timeout, StopSignals& signals) {
  const absl::Time deadline = absl::Now() + timeout;
  std::string output;
  for (;;) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) break;
    std::array<pollfd, 2> waits{pollfd{output_, POLLIN, 0}, pollfd{signals.descriptor(), POLLIN, 0}};
    poll(waits.data(), waits.size(), static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    if (signals.Wait(std::chrono::milliseconds(0)) != 0) return absl::CancelledError("interrupted");
    if (waits[0].revents == 0) continue;
    std::array<char, 4096> buffer{};
    const ssize_t length = read(output_, buffer.data(), buffer.size());
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) {  // closed its output: it ends
      while (!Ended() && absl::Now() < deadline) {
        if (signals.Wait(kPoll) != 0) return absl::CancelledError("interrupted");
      }
      if (Ended()) return EndError();
      break;
    }
    output.append(buffer.data(), static_cast<size_t>(length));
    if (absl::StartsWith(output, "ready ") && absl::StrContains(output, "\n")) return absl::OkStatus();
  }
  const std::string tail = LogTail();
  return absl::DeadlineExceededError(absl::StrCat(name_, " was not ready within ",
                                                  FormatDuration(absl::ToDoubleSeconds(timeout)),
                                                  tail.empty() ? "" : ":\n", tail));
}

bool Child::Ended() {
  if (pid_ <= 0 || ended_) return true;
  ended_ = waitpid(pid_, &wait_status_, WNOHANG) == pid_;
  return ended_;
}

std::string Child::HowItEnded() const {
  if (WIFSIGNALED(wait_status_)) return absl::StrCat("was killed by signal ", WTERMSIG(wait_status_));
  return absl::StrCat("ended with status ", WEXITSTATUS(wait_status_));
}

std::string Child::LogTail() const {
  if (log_path_.empty()) return "";
  const absl::StatusOr<std::string> log = ReadFile(log_path_);
  if (!log.ok()) return "";
  std::vector<std::string> lines = absl::StrSplit(*log, '\n', absl::SkipEmpty());
  if (lines.size() > kTailLines) lines.erase(lines.begin(), lines.end() - kTailLines);
  for (std::string& line : lines) line = Printable(line);
  return absl::StrJoin(lines, "\n");
}

absl::Status Child::EndError() const {
  std::string text = Problem(LogTail());
  if (text.empty()) text = absl::StrCat(name_, " ", HowItEnded(), " before it was ready");
  const int code = WIFEXITED(wait_status_) ? WEXITSTATUS(wait_status_) : -1;
  if (code == kExitUsage) return absl::InvalidArgumentError(text);
  if (code == kExitUnavailable) return absl::UnavailableError(text);
  return absl::UnknownError(text);
}

void Child::Stop(absl::Duration timeout, StopSignals& signals) {
  if (Ended()) return;
  kill(pid_, SIGTERM);
  const absl::Time deadline = absl::Now() + timeout;
  while (!Ended() && absl::Now() < deadline) {
    if (signals.Wait(kPoll) != 0) break;
  }
  Kill();
}

void Child::Kill() {
  if (!Ended()) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &wait_status_, 0);  // SIGKILL cannot be refused
    ended_ = true;
  }
  if (output_ >= 0) close(std::exchange(output_, -1));
}

}  // namespace attnfleet::client
