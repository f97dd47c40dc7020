#include "program.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/support/process.h"

namespace attnfleet::bench {
namespace {

constexpr std::chrono::seconds kStopLimit{20};

// Up to the end of the line, or of the stream.
std::string ReadLine(int descriptor) {
  std::string line;
  char c = 0;
  while (read(descriptor, &c, 1) == 1 && c != '\n') line += c;
  return line;
}

}  // namespace

void Die(const std::string& text) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s\n", text.c_str());
  _exit(1);
}

Folder::Folder(const std::string& parent)
    : path_((parent.empty() ? std::filesystem::temp_directory_path().string() : parent) + "/attnfleet-bench-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) Die(absl::StrCat("cannot make ", path_));
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

absl::StatusOr<std::unique_ptr<Program>> Program::Start(std::vector<std::string> argv, const std::string& log,
                                                        const std::vector<std::string>& environment) {
  argv.push_back(absl::StrCat("--parent-pid=", getpid()));
  const int error = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  int output[2];
  if (error < 0 || pipe2(output, O_CLOEXEC) != 0) return absl::InternalError("no log or no pipe");
  ChildStreams streams;
  streams.output = output[1];
  streams.error = error;
  const absl::StatusOr<pid_t> pid = Spawn(argv, streams, /*own_group=*/false, environment);
  close(output[1]);
  close(error);
  const std::string line = pid.ok() ? ReadLine(output[0]) : "";
  close(output[0]);
  if (!pid.ok()) return pid.status();
  std::unique_ptr<Program> program(
      new Program(*pid, std::string(absl::StripPrefix(absl::StripPrefix(line, "ready"), " "))));
  if (absl::StartsWith(line, "ready")) return program;
  return absl::UnavailableError(absl::StrCat(argv[0], " did not start; see ", log));
}

Program::~Program() {
  if (!alive()) return;
  kill(pid_, SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + kStopLimit;
  while (alive()) {
    if (std::chrono::steady_clock::now() > deadline) kill(pid_, SIGKILL);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

bool Program::alive() {
  if (!ended_) ended_ = waitpid(pid_, nullptr, WNOHANG) == pid_;
  return !ended_;
}

double Program::CpuSeconds() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/stat"));
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

long Program::Status(const std::string& field) const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(field + ":", 0) == 0) return std::atol(line.c_str() + field.size() + 1);
  }
  return 0;
}

long Program::Descriptors() const {
  long count = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(absl::StrCat("/proc/", pid_, "/fd"), error), end; it != end;
       it.increment(error)) {
    ++count;
  }
  return count;
}

double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string BinaryFolder() {
  absl::StatusOr<std::string> folder = ExecutableDirectory();
  if (!folder.ok()) Die(std::string(folder.status().message()));
  return *std::move(folder);
}

}  // namespace attnfleet::bench
