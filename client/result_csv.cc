#include "client/result_csv.h"

#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/grid.h"
#include "client/result_fleet.h"
#include "client/text.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

struct Column {
  std::string name;
  std::function<std::string(const v1::Benchmark&, const v1::Job&)> text;
};

// A figure that only measured jobs have.
Column Figure(const std::string& name, double (v1::JobSummary::*get)() const) {
  return {name, [get](const v1::Benchmark&, const v1::Job& job) {
            return job.summary().measured_runs() > 0 ? FormatExact((job.summary().*get)()) : std::string();
          }};
}

// As above; 0 means that there is none, or that it is unknown.
Column Known(const std::string& name, double (v1::JobSummary::*get)() const) {
  return {name, [get](const v1::Benchmark&, const v1::Job& job) {
            const double value = (job.summary().*get)();
            return value > 0 ? FormatExact(value) : std::string();
          }};
}

// A whole number; 0 means that there is none.
Column Whole(const std::string& name, int64_t (v1::JobSummary::*get)() const) {
  return {name, [get](const v1::Benchmark&, const v1::Job& job) {
            const int64_t value = (job.summary().*get)();
            return value > 0 ? absl::StrCat(value) : std::string();
          }};
}

// Of a node that could be compared with others; over all of its cells.
Column OfNode(const std::string& name, const std::function<std::string(const v1::NodeSummary&)>& text) {
  return {name, [text](const v1::Benchmark& benchmark, const v1::Job& job) {
            const v1::NodeSummary* node = NodeOf(benchmark, job);
            return node != nullptr && node->cells() > 0 ? text(*node) : std::string();
          }};
}

// The one used, not "auto".
std::string PrecisionOf(const v1::Job& job) {
  for (const v1::Run& run : job.runs()) {
    if (!run.result().environment().precision().empty()) return run.result().environment().precision();
  }
  return "";
}

// The one that ran; a trainer that does not say has the reference alone.
std::string StepOf(const v1::Job& job) {
  for (const v1::Run& run : job.runs()) {
    if (!run.result().environment().step().empty()) return run.result().environment().step();
  }
  return "reference";
}

const std::vector<Column>& Columns() {
  using Summary = v1::JobSummary;
  static const auto* columns = new std::vector<Column>{
      {"benchmark_id", [](const v1::Benchmark& b, const v1::Job&) { return absl::StrCat(b.id()); }},
      {"benchmark_name", [](const v1::Benchmark& b, const v1::Job&) { return b.spec().name(); }},
      {"job_index", [](const v1::Benchmark&, const v1::Job& j) { return absl::StrCat(j.index()); }},
      {"backend", [](const v1::Benchmark&, const v1::Job& j) { return j.backend(); }},
      {"batch", [](const v1::Benchmark&, const v1::Job& j) { return absl::StrCat(j.shape().batch()); }},
      {"sequence_length",
       [](const v1::Benchmark&, const v1::Job& j) { return absl::StrCat(j.shape().sequence_length()); }},
      {"outcome",
       [](const v1::Benchmark&, const v1::Job& j) {
         return j.summary().outcome() == v1::OUTCOME_UNSPECIFIED ? "" : OutcomeName(j.summary().outcome());
       }},
      {"reason", [](const v1::Benchmark&, const v1::Job& j) { return j.summary().reason(); }},
      {"measured_runs",
       [](const v1::Benchmark&, const v1::Job& j) { return absl::StrCat(j.summary().measured_runs()); }},
      {"ended_runs", [](const v1::Benchmark&, const v1::Job& j) { return absl::StrCat(j.summary().ended_runs()); }},
      Figure("iterations_per_second_median", &Summary::iterations_per_second_median),
      Figure("iterations_per_second_min", &Summary::iterations_per_second_min),
      Figure("iterations_per_second_max", &Summary::iterations_per_second_max),
      Figure("iterations_per_second_mean", &Summary::iterations_per_second_mean),
      Figure("iterations_per_second_stddev", &Summary::iterations_per_second_stddev),
      Known("iterations_per_second_mean_low", &Summary::iterations_per_second_mean_low),
      Known("iterations_per_second_mean_high", &Summary::iterations_per_second_mean_high),
      Known("ratio_to_eager", &Summary::ratio_to_eager),
      Known("ratio_to_eager_min", &Summary::ratio_to_eager_min),
      Known("ratio_to_eager_max", &Summary::ratio_to_eager_max),
      Known("ratio_to_eager_low", &Summary::ratio_to_eager_low),
      Known("ratio_to_eager_high", &Summary::ratio_to_eager_high),
      {"ratio_pairs", [](const v1::Benchmark&, const v1::Job& j) { return absl::StrCat(j.summary().ratio_pairs()); }},
      Known("model_flops_utilization", &Summary::model_flops_utilization),
      Whole("peak_allocated_bytes", &Summary::peak_allocated_bytes),
      Whole("peak_reserved_bytes", &Summary::peak_reserved_bytes),
      Whole("peak_device_bytes", &Summary::peak_device_bytes),
      Whole("peak_resident_bytes", &Summary::peak_resident_bytes),
      Whole("model_bytes", &Summary::model_bytes),
      Whole("gradient_bytes", &Summary::gradient_bytes),
      Whole("optimizer_bytes", &Summary::optimizer_bytes),
      Whole("activation_bytes", &Summary::activation_bytes),
      Figure("step_seconds_median", &Summary::step_seconds_median),
      Figure("step_seconds_p90", &Summary::step_seconds_p90),
      Figure("step_seconds_p99", &Summary::step_seconds_p99),
      Known("tokens_per_second", &Summary::tokens_per_second),
      Figure("data_wait_part", &Summary::data_wait_part),
      Known("energy_joules_per_iteration", &Summary::energy_joules_per_iteration),
      {"worker", [](const v1::Benchmark&, const v1::Job& j) { return j.summary().worker(); }},
      {"device_name", [](const v1::Benchmark&, const v1::Job& j) { return j.summary().device_name(); }},
      {"device_uuid", [](const v1::Benchmark&, const v1::Job& j) { return j.summary().device_uuid(); }},
      {"precision", [](const v1::Benchmark&, const v1::Job& j) { return PrecisionOf(j); }},
      {"step", [](const v1::Benchmark&, const v1::Job& j) { return StepOf(j); }},
      Whole("started_unix_ms", &Summary::started_unix_ms),
      Whole("ended_unix_ms", &Summary::ended_unix_ms),
      {"contaminated_runs",
       [](const v1::Benchmark&, const v1::Job& j) { return absl::StrCat(j.summary().contaminated_runs()); }},
      {"includes_contaminated",
       [](const v1::Benchmark&,
          const v1::Job& j) { return std::string(j.summary().includes_contaminated() ? "true" : "false"); }},
      {"contamination",
       [](const v1::Benchmark&, const v1::Job& j) { return absl::StrJoin(j.summary().contamination(), "; "); }},
      {"node_worker", [](const v1::Benchmark&, const v1::Job& j) { return j.node().worker(); }},
      {"node_slot", [](const v1::Benchmark&, const v1::Job& j) { return j.node().slot(); }},
      OfNode("node_relative_speed", [](const v1::NodeSummary& node) { return FormatExact(node.relative_speed()); }),
      OfNode("node_robust_z_score", [](const v1::NodeSummary& node) { return FormatExact(node.robust_z_score()); }),
      OfNode("node_slow", [](const v1::NodeSummary& node) { return std::string(node.slow() ? "true" : "false"); }),
  };
  return *columns;
}

}  // namespace

std::string ResultCsv(const std::vector<v1::Benchmark>& benchmarks) {
  std::vector<std::string> fields;
  for (const Column& column : Columns()) fields.push_back(column.name);
  std::string text = CsvLine(fields);
  for (const v1::Benchmark& benchmark : benchmarks) {
    for (const v1::Job& job : benchmark.jobs()) {
      fields.clear();
      for (const Column& column : Columns()) fields.push_back(column.text(benchmark, job));
      absl::StrAppend(&text, CsvLine(fields));
    }
  }
  return text;
}

}  // namespace attnfleet::client
