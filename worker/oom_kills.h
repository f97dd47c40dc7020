#ifndef ATTNFLEET_WORKER_OOM_KILLS_H_
#define ATTNFLEET_WORKER_OOM_KILLS_H_

#include <cstdint>
#include <string_view>

namespace attnfleet::worker {

// How many processes of this host the kernel has killed for want of memory, in a cgroup or outside of one, by the text
// of /proc/vmstat; 0 if it does not say.
int64_t OomKills(std::string_view vmstat);

// The same, now.
int64_t OomKillsNow();

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_OOM_KILLS_H_
