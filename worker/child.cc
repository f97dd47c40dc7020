#include "worker/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/support/log.h"
#include "proto/support/process.h"
#include "proto/support/state_dir.h"

namespace attnfleet::worker {
namespace {

constexpr size_t kReadBytes = 64 << 10;
constexpr int kReadsAtOnce = 16;
constexpr int kReapMilliseconds = 100;  // between two looks at a process that does not tell of its end

struct Pipe {
  int reader = -1;
  int writer = -1;
};

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  // Of our end alone: the child expects writes that block.
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return Pipe{ends[0], ends[1]};
}

// The letter in /proc/PID/stat, of a thread that has not ended if there is one: when the first thread has, it is a
// zombie until the last one has. "?" if it cannot be read.
std::string StateOf(pid_t pid) {
  std::string state = "?";
  std::error_code error;
  std::filesystem::directory_iterator thread(absl::StrCat("/proc/", pid, "/task"), error);
  for (; !error && thread != std::filesystem::directory_iterator(); thread.increment(error)) {
    const absl::StatusOr<std::string> stat = ReadFile(thread->path().string() + "/stat");
    // After the program's name, which may hold anything.
    const size_t name_end = stat.ok() ? stat->rfind(") ") : std::string::npos;
    if (name_end == std::string::npos) continue;
    state = stat->substr(name_end + 2, 1);
    if (state != "Z") break;
  }
  return state;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Child>> Child::Start(EventLoop& loop, const std::vector<std::string>& argv,
                                                    const std::vector<std::string>& environment, Callbacks callbacks,
                                                    std::chrono::milliseconds kill_limit) {
  std::unique_ptr<Child> child(new Child(loop, std::move(callbacks), kill_limit));
  absl::StatusOr<Pipe> output = MakePipe();
  if (!output.ok()) return output.status();
  child->output_.descriptor = output->reader;
  absl::StatusOr<Pipe> error = MakePipe();
  if (!error.ok()) {
    close(output->writer);
    return error.status();
  }
  child->error_.descriptor = error->reader;
  absl::StatusOr<pid_t> pid = Spawn(argv, {-1, output->writer, error->writer}, /*own_group=*/true, environment);
  close(output->writer);
  close(error->writer);
  if (!pid.ok()) return pid.status();
  child->pid_ = *pid;
  if (absl::Status status = child->WatchAll(); !status.ok()) return status;
  return child;
}

Child::Child(EventLoop& loop, Callbacks callbacks, std::chrono::milliseconds kill_limit)
    : loop_(loop), callbacks_(std::move(callbacks)), kill_limit_(kill_limit) {}

Child::~Child() {
  if (pid_ > 0 && !reaped_) {
    Kill();
    if (!ReapUntil(give_up_time_)) LogError(absl::StrCat(DescribeStuck(), "; it is left behind"));
  }
  loop_.CancelTimer(kill_timer_);
  loop_.CancelTimer(stuck_timer_);
  for (Stream* stream : {&output_, &error_, &process_}) Close(*stream);
}

absl::Status Child::WatchAll() {
  // Not by glibc 2.36's <sys/pidfd.h>, which C++ cannot link. The kernel sets close-on-exec.
  process_.descriptor = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (process_.descriptor < 0) return absl::ErrnoToStatus(errno, "pidfd_open");
  const auto watch = [this](Stream& stream, EventLoop::Callback callback) {
    absl::StatusOr<EventLoop::Id> id = loop_.Watch(stream.descriptor, std::move(callback));
    if (id.ok()) stream.watch = *id;
    return id.status();
  };
  absl::Status status = watch(output_, [this] { Read(output_, callbacks_.output); });
  status.Update(watch(error_, [this] { Read(error_, callbacks_.error); }));
  status.Update(watch(process_, [this] { Exited(); }));
  return status;
}

void Child::Stop(std::chrono::milliseconds grace) {
  if (reaped_ || kill_timer_ != 0) return;
  kill(-pid_, SIGTERM);
  kill_timer_ = loop_.RunAfter(grace, [this] { Kill(); });
}

void Child::Kill() {
  if (reaped_) return;
  // Safe until the process is reaped: until then nobody else can get its id.
  kill(-pid_, SIGKILL);
  if (stuck_timer_ != 0) return;
  give_up_time_ = EventLoop::Clock::now() + kill_limit_;
  stuck_timer_ = loop_.RunAt(give_up_time_, [this] { Stuck(); });
}

void Child::Stuck() {
  pollfd ended{process_.descriptor, POLLIN, 0};
  if (poll(&ended, 1, 0) > 0) return;  // it is this worker that was stopped for so long; Exited() comes
  for (Stream* stream : {&output_, &error_}) Close(*stream);
  // A local copy: the callback may destroy this.
  const auto stuck = std::move(callbacks_.stuck);
  if (stuck) stuck(DescribeStuck());
}

bool Child::ReapUntil(EventLoop::Clock::time_point time) {
  while (waitpid(pid_, nullptr, WNOHANG) == 0) {
    if (EventLoop::Clock::now() >= time) return false;
    pollfd ended{process_.descriptor, POLLIN, 0};
    poll(&ended, 1, kReapMilliseconds);
  }
  return true;
}

std::string Child::DescribeStuck() const {
  const double seconds = std::chrono::duration<double>(kill_limit_).count();
  return absl::StrCat("process ", pid_, " (state ", StateOf(pid_), ") has not ended ", seconds, " s after SIGKILL");
}

void Child::Read(Stream& stream, const std::function<void(std::string_view)>& consume) {
  std::array<char, kReadBytes> buffer;
  for (int i = 0; i < kReadsAtOnce && stream.descriptor >= 0; ++i) {
    const ssize_t length = read(stream.descriptor, buffer.data(), buffer.size());
    if (length > 0) {
      consume({buffer.data(), static_cast<size_t>(length)});
      if (static_cast<size_t>(length) < buffer.size()) return;
    } else if (length < 0 && errno == EINTR) {
      continue;
    } else if (length < 0 && errno == EAGAIN) {
      return;
    } else {
      Close(stream);
    }
  }
}

void Child::Close(Stream& stream) {
  if (stream.descriptor < 0) return;
  loop_.Unwatch(stream.watch, stream.descriptor);
  close(stream.descriptor);
  stream = Stream();
}

void Child::Exited() {
  // First the group, whose id is the process's and stays taken only until it is reaped.
  kill(-pid_, SIGKILL);
  int status = 0;
  rusage usage{};
  if (wait4(pid_, &status, 0, &usage) != pid_) return;
  reaped_ = true;
  loop_.CancelTimer(stuck_timer_);
  ExitState state;
  if (WIFSIGNALED(status)) {
    state.signal = WTERMSIG(status);
  } else {
    state.status = WEXITSTATUS(status);
  }
  state.peak_resident_bytes = int64_t{usage.ru_maxrss} * 1024;
  // What it wrote is in the pipes. A descendant that left the group may still hold them open, so the end of the streams
  // is not waited for.
  Read(output_, callbacks_.output);
  Read(error_, callbacks_.error);
  for (Stream* stream : {&output_, &error_, &process_}) Close(*stream);
  // A local copy: the callback may destroy this.
  const auto exited = std::move(callbacks_.exited);
  exited(state);
}

}  // namespace attnfleet::worker
