#include "client/result_csv.h"

#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/grid.h"
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

// As above; 0 means that there is no such figure.
Column Ratio(const std::string& name, double (v1::JobSummary::*get)() const) {
  return {name, [get](const v1::Benchmark&, const v1::Job& job) {
            return job.summary().ratio_to_eager() > 0 ? FormatExact((job.summary().*get)()) : std::string();
          }};
}

Column Bytes(const std::string& name, int64_t (v1::JobSummary::*get)() const) {
  return {name, [get](const v1::Benchmark&, const v1::Job& job) {
            const int64_t bytes = (job.summary().*get)();
            return bytes > 0 ? absl::StrCat(bytes) : std::string();
          }};
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
      Ratio("ratio_to_eager", &Summary::ratio_to_eager),
      Ratio("ratio_to_eager_min", &Summary::ratio_to_eager_min),
      Ratio("ratio_to_eager_max", &Summary::ratio_to_eager_max),
      Bytes("peak_allocated_bytes", &Summary::peak_allocated_bytes),
      Bytes("peak_reserved_bytes", &Summary::peak_reserved_bytes),
      Bytes("peak_device_bytes", &Summary::peak_device_bytes),
      Bytes("peak_resident_bytes", &Summary::peak_resident_bytes),
      Figure("step_seconds_median", &Summary::step_seconds_median),
      Figure("step_seconds_p90", &Summary::step_seconds_p90),
      Figure("step_seconds_p99", &Summary::step_seconds_p99),
      {"worker", [](const v1::Benchmark&, const v1::Job& j) { return j.summary().worker(); }},
      {"device_name", [](const v1::Benchmark&, const v1::Job& j) { return j.summary().device_name(); }},
      {"contamination",
       [](const v1::Benchmark&, const v1::Job& j) { return absl::StrJoin(j.summary().contamination(), "; "); }},
  };
  return *columns;
}

}  // namespace

std::string ResultCsv(const v1::Benchmark& benchmark) {
  std::vector<std::string> fields;
  for (const Column& column : Columns()) fields.push_back(column.name);
  std::string text = CsvLine(fields);
  for (const v1::Job& job : benchmark.jobs()) {
    fields.clear();
    for (const Column& column : Columns()) fields.push_back(column.text(benchmark, job));
    absl::StrAppend(&text, CsvLine(fields));
  }
  return text;
}

}  // namespace attnfleet::client
