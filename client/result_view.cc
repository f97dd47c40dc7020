#include "client/result_view.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "client/cell_name.h"
#include "client/numerical_check.h"
#include "client/result_fleet.h"
#include "client/text.h"

namespace attnfleet::client {
namespace {

constexpr char kReference[] = "eager";
constexpr char kSeveral[] = "several";  // workers or devices, as summaries say it

double Speed(const v1::Job& job) { return job.summary().iterations_per_second_median(); }

size_t ColumnOf(const ResultView& view, const std::string& backend) {
  return static_cast<size_t>(std::find(view.backends.begin(), view.backends.end(), backend) - view.backends.begin());
}

std::string DeviceOf(const v1::Job& job) {
  if (job.has_node()) return NodeName(job.node());
  const v1::JobSummary& summary = job.summary();
  return summary.device_uuid().empty() ? summary.device_name() : summary.device_uuid();
}

// Whether the repetitions leave no doubt that one job is faster than another of its group: their 95 % intervals lie
// apart, or that of the paired ratio, which is known against eager alone, does not hold 1. One repetition has no
// interval.
bool ClearlyFaster(const v1::Job& fast, const v1::Job& slow) {
  const v1::JobSummary& a = fast.summary();
  const v1::JobSummary& b = slow.summary();
  // What had to run on another device tells nothing of the backend.
  if (DeviceOf(fast) != DeviceOf(slow) || a.worker() != b.worker() || a.worker() == kSeveral) return false;
  if (CountedRuns(a) < 2 || CountedRuns(b) < 2) return false;
  return a.iterations_per_second_mean_low() > b.iterations_per_second_mean_high() ||
         (slow.backend() == kReference && a.ratio_to_eager_low() > 1) ||
         (fast.backend() == kReference && b.ratio_to_eager_high() > 0 && b.ratio_to_eager_high() < 1);
}

// `jobs` are those of the row with a speed to compare, by column; null elsewhere.
void MarkFastest(ResultRow& row, const std::vector<const v1::Job*>& jobs) {
  const v1::Job* fastest = nullptr;
  size_t column = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i] == nullptr) continue;
    if (fastest != nullptr && Speed(*jobs[i]) <= Speed(*fastest)) continue;
    fastest = jobs[i];
    column = i;
  }
  if (fastest == nullptr) return;
  int others = 0;
  for (const v1::Job* job : jobs) {
    if (job == nullptr || job == fastest) continue;
    if (!ClearlyFaster(*fastest, *job)) return;
    ++others;
  }
  if (others > 0) row.cells[column].fastest = true;
}

void AddRows(const v1::Benchmark& benchmark, bool allocated, absl::TimeZone zone, Notes& notes, ResultView& view) {
  std::map<uint32_t, size_t> row_of_group;
  std::map<uint32_t, std::vector<const v1::Job*>> measured;
  std::map<uint32_t, int64_t> started;
  for (const v1::Job& job : benchmark.jobs()) {
    const size_t column = ColumnOf(view, job.backend());
    if (column == view.backends.size()) continue;
    const auto [place, is_new] = row_of_group.emplace(job.group(), view.rows.size());
    if (is_new) {
      view.rows.push_back({job.shape(), "", "", std::vector<ResultCell>(view.backends.size())});
      measured[job.group()].resize(view.backends.size());
      for (ResultCell& cell : view.rows.back().cells) cell.speed = cell.ratio = cell.mfu = cell.memory = "-";
    }
    ResultRow& row = view.rows[place->second];
    const v1::JobSummary& summary = job.summary();
    row.cells[column] = MakeResultCell(job, allocated, notes);
    if (const std::string device = DeviceOf(job); !device.empty()) {
      row.device = row.device.empty() || row.device == device ? device : kSeveral;
    }
    int64_t& first = started[job.group()];
    if (summary.started_unix_ms() > 0 && (first == 0 || summary.started_unix_ms() < first)) {
      first = summary.started_unix_ms();
      row.time = FormatUnixMs(first, zone);
    }
    const bool comparable = !summary.includes_contaminated() && NumericalCheckFailure(job).empty();
    if (comparable && Speed(job) > 0) measured[job.group()][column] = &job;
  }
  for (const auto& [group, place] : row_of_group) MarkFastest(view.rows[place], measured[group]);
}

}  // namespace

ResultView MakeResultView(const std::vector<v1::Benchmark>& benchmarks, const ResultSource& source,
                          absl::TimeZone zone) {
  ResultView view;
  for (const v1::Benchmark& benchmark : benchmarks) {
    for (const std::string& backend : benchmark.spec().backends()) {
      if (ColumnOf(view, backend) == view.backends.size()) view.backends.push_back(backend);
    }
  }
  const std::string dropout = DropoutNote(benchmarks);
  for (const std::string& backend : view.backends) {
    view.titles.push_back(dropout.empty() || backend == kReference ? backend : backend + "*");
  }
  view.has_ratio = view.backends.size() > 1 && ColumnOf(view, kReference) < view.backends.size();
  view.has_mfu = HasUtilization(benchmarks);
  view.has_device_memory = HasAllocated(benchmarks);
  view.memory_kind = view.has_device_memory ? "peak allocated" : "peak resident";

  Notes notes;
  for (const v1::Benchmark& benchmark : benchmarks) AddRows(benchmark, view.has_device_memory, zone, notes, view);
  view.notes = notes.Lines();
  if (!dropout.empty()) view.notes.push_back(dropout);

  std::set<std::string> devices;
  for (const ResultRow& row : view.rows) devices.insert(row.device);
  devices.erase("");
  view.fleet = FleetGrids(benchmarks);
  view.device_title = view.fleet.empty() ? "GPU" : "Node";
  view.names_device = benchmarks.size() > 1 || devices.size() > 1 || devices.contains(kSeveral) || !view.fleet.empty();
  view.facts = MakeFigures(benchmarks, {});
  view.facts_without_intervals = MakeFigures(benchmarks, {.interval = false});
  view.narrow_facts = MakeFigures(benchmarks, {.spread = false, .interval = false});
  const Facts others = MakeFacts(benchmarks, source, zone);
  for (Facts* facts : {&view.facts, &view.facts_without_intervals, &view.narrow_facts}) {
    facts->insert(facts->end(), others.begin(), others.end());
  }
  return view;
}

}  // namespace attnfleet::client
