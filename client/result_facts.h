#ifndef ATTNFLEET_CLIENT_RESULT_FACTS_H_
#define ATTNFLEET_CLIENT_RESULT_FACTS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

using Facts = std::vector<std::pair<std::string, std::string>>;  // label and text

// For the commands that are printed with results.
struct ResultSource {
  std::string again;  // the command that shows them again
  std::string where;  // flags, each behind a space, that lead `attnfleet run` to the same server; "" = to none
};

// What stands beside a table's figures.
struct Beside {
  bool spread = true;    // of it/s
  bool interval = true;  // of ratios
};

// What the figures of a table are. A fact that differs between the benchmarks is said for each, with its shapes.
Facts MakeFigures(const std::vector<v1::Benchmark>& benchmarks, const Beside& beside);

// Where, when and with which settings they were measured. `source` is where the benchmarks come from.
Facts MakeFacts(const std::vector<v1::Benchmark>& benchmarks, const ResultSource& source, absl::TimeZone zone);

// "peak allocated" where a device told it, else "peak resident".
bool HasAllocated(const std::vector<v1::Benchmark>& benchmarks);
bool HasUtilization(const std::vector<v1::Benchmark>& benchmarks);

// Footnote for jobs of one group whose attention dropout drops different things; "" if there are none.
std::string DropoutNote(const std::vector<v1::Benchmark>& benchmarks);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_FACTS_H_
