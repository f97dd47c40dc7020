#ifndef ATTNFLEET_CLIENT_RESULT_VIEW_H_
#define ATTNFLEET_CLIENT_RESULT_VIEW_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// A benchmark's results as text, before any layout.
struct ResultCell {
  std::string speed;   // it/s, or "OOM", "unsupported", "failed", "running", ...
  std::string spread;  // "±0.53", or ""
  std::string ratio;   // "1.16x", or "-"
  std::string memory;  // GB, "OOM", or "-"
  std::string note;    // "[1]", or ""
  bool fastest = false;
  bool bad = false;  // ended without a figure
};

struct ResultView {
  std::vector<std::string> backends;
  std::vector<v1::Shape> shapes;
  std::vector<std::vector<ResultCell>> cells;              // [shape][backend]
  bool has_ratio = false;                                  // eager is one of several backends
  std::string memory_kind;                                 // "peak allocated" or "peak resident"
  std::vector<std::string> notes;                          // "[1] eager 64x1024: out of memory: ..."
  std::vector<std::pair<std::string, std::string>> facts;  // label and text: what, where, settings
};

// `again` is the command that shows the benchmark again.
ResultView MakeResultView(const v1::Benchmark& benchmark, const std::string& again, absl::TimeZone zone);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_VIEW_H_
