#ifndef ATTNFLEET_CLIENT_RESULT_VIEW_H_
#define ATTNFLEET_CLIENT_RESULT_VIEW_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "client/grid.h"
#include "client/result_cell.h"
#include "client/result_facts.h"

namespace attnfleet::client {

// One shape of one benchmark.
struct ResultRow {
  v1::Shape shape;
  std::string device;             // worker and slot of its node; else UUID, or the name where there is none
  std::string time;               // when its first run started
  std::vector<ResultCell> cells;  // of each backend
};

// Results as text, before any layout.
struct ResultView {
  std::vector<std::string> backends;
  std::vector<std::string> titles;  // the backends' names, * behind those that the dropout footnote is about
  std::vector<ResultRow> rows;
  bool has_ratio = false;          // eager is one of several backends
  bool has_mfu = false;            // it is known somewhere
  bool has_device_memory = false;  // reserved and sampled
  bool names_device = false;       // rows come from several benchmarks or devices
  std::string memory_kind;         // "peak allocated" or "peak resident"
  std::vector<std::string> notes;  // "[1] eager 64x1024: OOM: ..."
  std::string device_title;        // "GPU", or "Node" with placement every
  std::vector<Grid> fleet;         // what the nodes say about each other, see FleetGrids
  Facts facts;
  Facts facts_without_intervals;  // of a table that has no room for those of ratios
  Facts narrow_facts;             // nor for the spread
};

ResultView MakeResultView(const std::vector<v1::Benchmark>& benchmarks, const ResultSource& source,
                          absl::TimeZone zone);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_VIEW_H_
