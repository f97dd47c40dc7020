#ifndef ATTNFLEET_TESTS_WORKER_SUPPORT_H_
#define ATTNFLEET_TESTS_WORKER_SUPPORT_H_

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "attnfleet/v1/worker.pb.h"
#include "worker/event_loop.h"
#include "worker/trainer_command.h"

namespace attnfleet::worker {

// Waits only have to end; sanitizers and busy machines make them long.
inline constexpr std::chrono::seconds kPatience{60};

// A folder that is gone with the object.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Sets an environment variable until it is destroyed; nullptr unsets it.
class ScopedEnvironment {
 public:
  ScopedEnvironment(const char* name, const std::string& value);
  ~ScopedEnvironment();
  ScopedEnvironment(const ScopedEnvironment&) = delete;
  ScopedEnvironment& operator=(const ScopedEnvironment&) = delete;

 private:
  const char* name_;
};

// Runs the loop on this thread until `condition` holds; false if it does not within `limit`.
bool RunUntil(EventLoop& loop, const std::function<bool()>& condition, std::chrono::milliseconds limit = kPatience);

// The double as a worker would start it; its parent is this process.
TrainerProgram DoubleProgram();
v1::TrainerCapabilities DoubleCapabilities();

v1::Slot CpuSlot(const std::string& id);

// Benchmark 1, repetition 0, a tiny CPU run with every setting that a coordinator fills in.
v1::StartRun MakeStart(uint32_t job_index, uint32_t attempt, const std::string& slot, const std::string& backend);

// Lines of a file; none if there is no such file.
std::vector<std::string> ReadLines(const std::string& path);

// True if `pid` exists and is no zombie.
bool IsRunning(pid_t pid);

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_TESTS_WORKER_SUPPORT_H_
