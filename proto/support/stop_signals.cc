#include "proto/support/stop_signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

namespace attnfleet {
namespace {

bool Readable(int descriptor, std::chrono::milliseconds timeout) {
  pollfd poller{descriptor, POLLIN, 0};
  return poll(&poller, 1, static_cast<int>(timeout.count())) > 0;
}

}  // namespace

StopSignals::StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  descriptor_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGCHLD, SIG_DFL);
}

StopSignals::~StopSignals() { close(descriptor_); }

int StopSignals::Wait(std::chrono::milliseconds timeout) {
  if (!Readable(descriptor_, timeout)) return 0;
  signalfd_siginfo info{};
  if (read(descriptor_, &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return 0;
  return static_cast<int>(info.ssi_signo);
}

bool StopSignals::Pending() const { return Readable(descriptor_, std::chrono::milliseconds(0)); }

}  // namespace attnfleet
