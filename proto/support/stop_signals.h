#ifndef ATTNFLEET_PROTO_SUPPORT_STOP_SIGNALS_H_
#define ATTNFLEET_PROTO_SUPPORT_STOP_SIGNALS_H_

#include <chrono>

namespace attnfleet {

// Turns SIGINT and SIGTERM into something a thread can wait for. Make it in main before any thread starts: the signals
// are blocked in every thread made after it. SIGPIPE is ignored too, so that a closed pipe is an error of write(), and
// SIGCHLD is not, though the parent may have left it so: else nobody could wait for a child.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Waits for a signal and returns its number, or 0 when `timeout` passes first. Each arrival is returned once.
  int Wait(std::chrono::milliseconds timeout);

  // Whether Wait() would return one at once.
  bool Pending() const;

  // For poll(): readable while Pending().
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_STOP_SIGNALS_H_
