#ifndef ATTNFLEET_CLIENT_PROGRESS_DISPLAY_H_
#define ATTNFLEET_CLIENT_PROGRESS_DISPLAY_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "client/progress.h"
#include "client/terminal.h"

namespace attnfleet::client {

// Shows a benchmark's progress on standard error: on a terminal as a few lines that are redrawn, elsewhere as one plain
// line at the beginning and one for each run that ended.
class ProgressDisplay {
 public:
  explicit ProgressDisplay(const Terminal& terminal);
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  void Update(const v1::Benchmark& benchmark, const std::vector<Change>& changes);

  // A WaitText; "" if something runs too. A line of its own where nothing is redrawn.
  void Waits(const std::string& reason);

  // A line that stays.
  void Note(const std::string& text);

  // Takes the redrawn lines away.
  void Clear();

 private:
  void Draw(const std::vector<std::string>& lines);

  const Terminal terminal_;
  const absl::Time started_;
  bool begun_ = false;
  std::string waits_;
  std::vector<std::string> shown_;  // redrawn lines on the screen now
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_PROGRESS_DISPLAY_H_
