#include "worker/oom_kills.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/support/state_dir.h"

namespace attnfleet::worker {

int64_t OomKills(std::string_view vmstat) {
  for (absl::string_view line : absl::StrSplit(absl::string_view(vmstat.data(), vmstat.size()), '\n')) {
    int64_t count = 0;
    if (absl::ConsumePrefix(&line, "oom_kill ") && absl::SimpleAtoi(line, &count)) return count;
  }
  return 0;
}

int64_t OomKillsNow() {
  const absl::StatusOr<std::string> vmstat = ReadFile("/proc/vmstat");
  return vmstat.ok() ? OomKills(*vmstat) : 0;
}

int64_t OomKillCounter::Now() {
  // By the time before: a kill while it is read may be missing.
  fresh_until_ = Clock::now() + longest_age_;
  return count_ = read_();
}

int64_t OomKillCounter::Lately() { return Clock::now() < fresh_until_ ? count_ : Now(); }

}  // namespace attnfleet::worker
