#include "client/result_fleet.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cell_name.h"
#include "client/result_cell.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

Grid NodesGrid(std::vector<v1::NodeSummary> nodes) {
  Grid grid;
  grid.columns = {{"Node"},           {"Device"}, {"Cells compared", true}, {"of the median it/s", true},
                  {"robust z", true}, {"Verdict"}};
  std::stable_sort(nodes.begin(), nodes.end(), [](const v1::NodeSummary& a, const v1::NodeSummary& b) {
    return a.robust_z_score() < b.robust_z_score();
  });
  for (const v1::NodeSummary& node : nodes) {
    const bool compared = node.cells() > 0;
    std::vector<GridCell> row = {NodeName(node.node()), node.node().device_name(), absl::StrCat(node.cells()),
                                 compared ? FormatPercent(node.relative_speed()) : "-",
                                 compared ? absl::StrFormat("%.1f", node.robust_z_score()) : "-"};
    row.emplace_back(!compared     ? "too few nodes to tell"
                     : node.slow() ? "slow"
                                   : "",
                     node.slow() ? Style::kBad : Style::kPlain);
    grid.rows.push_back(std::move(row));
  }
  return grid;
}

Grid SpreadGrid(const v1::FleetSummary& fleet) {
  Grid grid;
  grid.columns = {{"Device"},    {"Shape"},     {"Backend"},   {"Nodes", true}, {"median it/s", true},
                  {"min", true}, {"max", true}, {"MAD", true}, {"Slowest"}};
  for (const v1::CellSpread& cell : fleet.cells()) {
    const auto speed = [&cell](double value) { return FormatSpeed(value, cell.iterations_per_second_median()); };
    grid.rows.push_back({{cell.device_name()},
                         {FormatShape(cell.shape())},
                         {cell.backend()},
                         {absl::StrCat(cell.nodes())},
                         {speed(cell.iterations_per_second_median())},
                         {speed(cell.iterations_per_second_min())},
                         {speed(cell.iterations_per_second_max())},
                         {speed(cell.iterations_per_second_mad())},
                         {cell.iterations_per_second_min() < cell.iterations_per_second_max()
                              ? absl::StrCat(cell.slowest_worker(), " ", cell.slowest_slot())
                              : ""}});
  }
  return grid;
}

}  // namespace

std::vector<Grid> FleetGrids(const std::vector<v1::Benchmark>& benchmarks) {
  std::vector<Grid> grids;
  for (const v1::Benchmark& benchmark : benchmarks) {
    if (benchmark.fleet().nodes().empty()) continue;
    grids.push_back(NodesGrid({benchmark.fleet().nodes().begin(), benchmark.fleet().nodes().end()}));
    if (!benchmark.fleet().cells().empty()) grids.push_back(SpreadGrid(benchmark.fleet()));
  }
  return grids;
}

const v1::NodeSummary* NodeOf(const v1::Benchmark& benchmark, const v1::Job& job) {
  if (!job.has_node()) return nullptr;
  for (const v1::NodeSummary& node : benchmark.fleet().nodes()) {
    if (node.node().worker() == job.node().worker() && node.node().slot() == job.node().slot()) return &node;
  }
  return nullptr;
}

}  // namespace attnfleet::client
