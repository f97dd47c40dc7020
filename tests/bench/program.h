#ifndef ATTNFLEET_TESTS_BENCH_PROGRAM_H_
#define ATTNFLEET_TESTS_BENCH_PROGRAM_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attnfleet::bench {

// A temporary folder that goes with this object.
class Folder {
 public:
  // Below `parent`; "" is the system's place for such.
  explicit Folder(const std::string& parent);
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One of attnfleet's daemons, and what /proc says of it.
class Program {
 public:
  // Starts argv[0] and waits for its line "ready ADDRESS". Its messages go to the file `log`. It dies with this
  // process.
  static absl::StatusOr<std::unique_ptr<Program>> Start(std::vector<std::string> argv, const std::string& log,
                                                        const std::vector<std::string>& environment = {});
  // Stops it with SIGTERM, after a while with SIGKILL.
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const std::string& address() const { return address_; }
  bool alive();

  double CpuSeconds() const;
  // A field of /proc/PID/status: "VmRSS" and "VmHWM" in KiB, "Threads".
  long Status(const std::string& field) const;
  long Descriptors() const;

 private:
  Program(pid_t pid, std::string address) : pid_(pid), address_(std::move(address)) {}

  const pid_t pid_;
  const std::string address_;
  bool ended_ = false;
};

// Of this process itself.
double OwnCpuSeconds();

// The folder of this program's executable, where the others lie too. Ends the process if it cannot be known.
std::string BinaryFolder();

// Prints what is wrong and ends the process with status 1, without a core.
[[noreturn]] void Die(const std::string& text);

}  // namespace attnfleet::bench

#endif  // ATTNFLEET_TESTS_BENCH_PROGRAM_H_
