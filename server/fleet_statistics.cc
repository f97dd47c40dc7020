#include "server/fleet_statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>

#include "server/statistics.h"

namespace attnfleet::server {
namespace {

// Of a normal distribution: the standard deviation over the median absolute deviation.
constexpr double kNormalPerMad = 1.4826;
constexpr double kLeastRelativeScale = 0.005;

// What one node measured in one cell.
struct Figure {
  size_t node;  // position in FleetSummary.nodes
  double speed;
};

using CellKey = std::tuple<std::string, int, int, std::string>;  // device name, batch, sequence length, backend

double MedianDeviation(const std::vector<double>& values, double median) {
  std::vector<double> deviations;
  deviations.reserve(values.size());
  for (const double value : values) deviations.push_back(std::abs(value - median));
  return Median(deviations);
}

// Throughout: then its figures are those of what disturbed it.
bool IsContaminated(const v1::JobSummary& summary) {
  return summary.contaminated_runs() > 0 && summary.contaminated_runs() == summary.measured_runs();
}

}  // namespace

void SummarizeFleet(v1::Benchmark& benchmark) {
  benchmark.clear_fleet();
  if (benchmark.nodes().empty()) return;
  v1::FleetSummary& fleet = *benchmark.mutable_fleet();
  for (const v1::Node& node : benchmark.nodes()) *fleet.add_nodes()->mutable_node() = node;

  std::map<CellKey, std::vector<Figure>> cells;
  const size_t jobs_per_node = static_cast<size_t>(benchmark.jobs_size()) / static_cast<size_t>(benchmark.nodes_size());
  for (const v1::Job& job : benchmark.jobs()) {
    const size_t node = job.index() / jobs_per_node;
    v1::NodeSummary& summary = *fleet.mutable_nodes(static_cast<int>(node));
    if (summary.device_uuid().empty()) summary.set_device_uuid(job.summary().device_uuid());
    const double speed = job.summary().iterations_per_second_median();
    if (speed <= 0 || IsContaminated(job.summary())) continue;
    cells[{job.node().device_name(), job.shape().batch(), job.shape().sequence_length(), job.backend()}].push_back(
        {node, speed});
  }

  std::vector<std::vector<double>> scores(static_cast<size_t>(benchmark.nodes_size()));
  std::vector<std::vector<double>> relative(scores.size());
  for (const auto& [key, figures] : cells) {
    std::vector<double> speeds;
    for (const Figure& figure : figures) speeds.push_back(figure.speed);
    const double median = Median(speeds);
    const double deviation = MedianDeviation(speeds, median);
    const auto by_speed = [](const Figure& a, const Figure& b) { return a.speed < b.speed; };
    const Figure slowest = *std::min_element(figures.begin(), figures.end(), by_speed);
    v1::CellSpread& spread = *fleet.add_cells();
    spread.set_device_name(std::get<0>(key));
    spread.mutable_shape()->set_batch(std::get<1>(key));
    spread.mutable_shape()->set_sequence_length(std::get<2>(key));
    spread.set_backend(std::get<3>(key));
    spread.set_nodes(static_cast<uint32_t>(figures.size()));
    spread.set_iterations_per_second_median(median);
    spread.set_iterations_per_second_min(slowest.speed);
    spread.set_iterations_per_second_max(*std::max_element(speeds.begin(), speeds.end()));
    spread.set_iterations_per_second_mad(deviation);
    spread.set_slowest_worker(benchmark.nodes(static_cast<int>(slowest.node)).worker());
    spread.set_slowest_slot(benchmark.nodes(static_cast<int>(slowest.node)).slot());
    if (figures.size() < kLeastNodes) continue;
    const double scale = std::max(kNormalPerMad * deviation, kLeastRelativeScale * median);
    for (const Figure& figure : figures) {
      scores[figure.node].push_back((figure.speed - median) / scale);
      relative[figure.node].push_back(figure.speed / median);
    }
  }
  for (size_t node = 0; node < scores.size(); ++node) {
    v1::NodeSummary& summary = *fleet.mutable_nodes(static_cast<int>(node));
    summary.set_cells(static_cast<uint32_t>(scores[node].size()));
    summary.set_robust_z_score(Median(scores[node]));
    summary.set_relative_speed(Median(relative[node]));
    summary.set_slow(summary.cells() > 0 && summary.robust_z_score() <= kSlowZScore);
  }
}

std::vector<v1::NodeSummary> SlowNodes(const v1::Benchmark& benchmark) {
  std::vector<v1::NodeSummary> slow;
  for (const v1::NodeSummary& node : benchmark.fleet().nodes()) {
    if (node.slow()) slow.push_back(node);
  }
  return slow;
}

}  // namespace attnfleet::server
