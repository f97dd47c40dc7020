#ifndef ATTNFLEET_SERVER_STORE_CHECK_H_
#define ATTNFLEET_SERVER_STORE_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/job_store.h"

namespace attnfleet::server {

struct StoreReport {
  uint64_t settings = 0;
  uint64_t benchmarks = 0;
  uint64_t runs = 0;                  // that have a row
  uint64_t found = 0;                 // problems
  std::vector<std::string> problems;  // the first kMostProblems of them, one line each
};

inline constexpr size_t kMostProblems = 100;

// Looks whether the rows agree with each other: every message parses and is the one that its columns say; every run
// belongs to a benchmark and to a place in its spec; the states and the number of runs agree; nothing is there that a
// coordinator would refuse (stored_check). An error means that the store could not be read to its end.
absl::StatusOr<StoreReport> CheckStore(JobStore& store);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STORE_CHECK_H_
