#include "client/result_figures.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cell_name.h"
#include "client/result_cell.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

constexpr char kUnknown[] = "unknown";

std::string Milliseconds(double seconds) { return seconds > 0 ? absl::StrFormat("%.2f", seconds * 1e3) : kUnknown; }

std::string Both(int64_t bytes) {
  return bytes > 0 ? absl::StrCat(FormatGigabytes(bytes), " (", FormatGibibytes(bytes), ")") : kUnknown;
}

std::string MeanText(const v1::JobSummary& summary) {
  const double mean = summary.iterations_per_second_mean();
  const std::string interval = FormatMeanInterval(summary);
  return absl::StrCat(FormatSpeed(mean, mean), summary.includes_contaminated() ? "!" : "", interval.empty() ? "" : " ",
                      interval);
}

std::vector<GridCell> Row(const v1::Job& job, bool nodes) {
  const v1::JobSummary& summary = job.summary();
  const double utilization = summary.model_flops_utilization();
  const bool device = summary.peak_allocated_bytes() > 0;
  std::vector<GridCell> row = {
      FormatShape(job.shape()),
      job.backend(),
      MeanText(summary),
      utilization > 0 ? FormatPercent(utilization) : kUnknown,
      Milliseconds(summary.step_seconds_median()),
      Milliseconds(summary.step_seconds_p90()),
      Milliseconds(summary.step_seconds_p99()),
      device ? Both(summary.peak_allocated_bytes()) : "-",
      device ? Both(summary.peak_reserved_bytes()) : "-",
      device ? Both(summary.peak_device_bytes()) : "-",
      Both(summary.peak_resident_bytes()),
      summary.energy_joules_per_iteration() > 0 ? absl::StrFormat("%.2f", summary.energy_joules_per_iteration())
                                                : kUnknown,
  };
  if (nodes) row.insert(row.begin() + 2, job.has_node() ? NodeName(job.node()) : "");
  return row;
}

}  // namespace

Grid FiguresGrid(const std::vector<v1::Benchmark>& benchmarks) {
  Grid grid;
  grid.columns = {{"Shape"},
                  {"Backend"},
                  {"it/s mean [95 % interval]", true},
                  {"MFU", true},
                  {"step median, ms", true},
                  {"p90, ms", true},
                  {"p99, ms", true},
                  {"peak allocated, GB (GiB)", true},
                  {"peak reserved, GB (GiB)", true},
                  {"device, sampled, GB (GiB)", true},
                  {"peak resident, GB (GiB)", true},
                  {"J per iteration", true}};
  std::vector<const v1::Job*> measured;
  for (const v1::Benchmark& benchmark : benchmarks) {
    for (const v1::Job& job : benchmark.jobs()) {
      if (job.summary().outcome() == v1::OUTCOME_MEASURED) measured.push_back(&job);
    }
  }
  const bool nodes = std::any_of(measured.begin(), measured.end(), [](const v1::Job* job) { return job->has_node(); });
  if (nodes) grid.columns.insert(grid.columns.begin() + 2, {"Node"});
  for (const v1::Job* job : measured) grid.rows.push_back(Row(*job, nodes));
  return grid;
}

}  // namespace attnfleet::client
