#ifndef ATTNFLEET_WORKER_TRAINER_OUTPUT_H_
#define ATTNFLEET_WORKER_TRAINER_OUTPUT_H_

// What a trainer writes, read piece by piece. Pure.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnfleet/v1/trainer.pb.h"
#include "worker/child.h"

namespace attnfleet::worker {

// The longest line that is taken: a result with kMaxSteps step times (proto/spec.h) of 24 characters fits.
inline constexpr size_t kMaxLineBytes = 32 << 20;

// Of a trainer's standard error; also the bound of TrainerFailure.log_tail.
inline constexpr size_t kLogTailBytes = 8 << 10;

// Cuts a stream into lines.
class LineSplitter {
 public:
  // Calls `line` for every line that `bytes` completes, without its line feed. OUT_OF_RANGE if one grows past
  // kMaxLineBytes; nothing is taken after that.
  absl::Status Add(std::string_view bytes, const std::function<void(std::string_view)>& line);

  // The line that was begun and not ended.
  const std::string& rest() const { return rest_; }

 private:
  std::string rest_;
  bool too_long_ = false;
};

// The end of a stream, at most kLogTailBytes.
class LogTail {
 public:
  void Add(std::string_view bytes);
  const std::string& text() const { return text_; }
  // The last line with something in it, with control characters made visible; "" if there is none.
  std::string LastLine() const;

 private:
  std::string text_;
};

// One line of a trainer's standard output. Fields that this build does not know are skipped: trainer and worker may
// differ by a version during an upgrade. INVALID_ARGUMENT quotes the beginning of the line.
absl::StatusOr<v1::TrainerEvent> ParseTrainerEvent(std::string_view line);

// "trainer killed by signal 9 (Killed)" or "trainer exited with status 3: the last line of its log".
std::string DescribeExit(ExitState state, const LogTail& log);

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_TRAINER_OUTPUT_H_
