#ifndef ATTNFLEET_CLIENT_CHILD_H_
#define ATTNFLEET_CLIENT_CHILD_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/support/stop_signals.h"

namespace attnfleet::client {

// One of the client's own server and worker: a program that prints a line "ready ..." and runs until it is told to
// stop. Use it from one thread that lives as long as the process: the kernel ends the child with the thread that
// started it.
class Child {
 public:
  // `log_path` takes its standard error; "" = this process's own.
  Child(std::vector<std::string> argv, std::string log_path);
  ~Child();  // kills it
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // May be called again after it has ended; then the log is continued.
  absl::Status Start();

  // Waits for its "ready" line. CANCELLED if a stop signal came. If it ended instead, the end of its log, with
  // INVALID_ARGUMENT, UNAVAILABLE or UNKNOWN as its exit code says. DEADLINE_EXCEEDED after `timeout`.
  absl::Status WaitUntilReady(absl::Duration timeout, StopSignals& signals);

  bool Ended();

  // "ended with status 3", "was killed by signal 9"; of a child that has ended.
  std::string HowItEnded() const;

  // The last lines of its log that are not empty, oldest first; "" if it has no log of its own.
  std::string LogTail() const;

  // Asks it to stop and waits; after `timeout`, or when a stop signal comes, it is killed.
  void Stop(absl::Duration timeout, StopSignals& signals);

  void Kill();

 private:
  absl::Status EndError() const;

  const std::vector<std::string> argv_;
  const std::string name_;
  const std::string log_path_;
  pid_t pid_ = -1;
  int output_ = -1;  // its standard output
  bool ended_ = false;
  int wait_status_ = 0;
  bool started_before_ = false;
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_CHILD_H_
