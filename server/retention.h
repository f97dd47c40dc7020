#ifndef ATTNFLEET_SERVER_RETENTION_H_
#define ATTNFLEET_SERVER_RETENTION_H_

#include <cstdint>

namespace attnfleet::server {

// Which ended benchmarks are kept. 0: no limit.
struct Retention {
  int64_t max_age_ms = 0;       // since their end
  uint64_t max_benchmarks = 0;  // the newest of all
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_RETENTION_H_
