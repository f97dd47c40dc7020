#include "client/result_view.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/text.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

constexpr char kReference[] = "eager";
constexpr size_t kMostCellsInNote = 6;

// Footnotes: one for each text, with the cells that it is about.
class Notes {
 public:
  // Returns the mark for the cell.
  std::string Add(const std::string& text, const std::string& cell) {
    auto found = std::find_if(notes_.begin(), notes_.end(), [&](const Note& note) { return note.text == text; });
    if (found == notes_.end()) found = notes_.insert(notes_.end(), {text, {}});
    found->cells.push_back(cell);
    return absl::StrCat("[", found - notes_.begin() + 1, "]");
  }

  std::vector<std::string> Lines() const {
    std::vector<std::string> lines;
    for (size_t i = 0; i < notes_.size(); ++i) {
      std::vector<std::string> cells = notes_[i].cells;
      const size_t more = cells.size() > kMostCellsInNote ? cells.size() - kMostCellsInNote : 0;
      if (more > 0) cells.resize(kMostCellsInNote);
      lines.push_back(
          Printable(absl::StrCat("[", i + 1, "] ", absl::StrJoin(cells, ", "),
                                 more > 0 ? absl::StrCat(" and ", more, " more") : "", ": ", notes_[i].text)));
    }
    return lines;
  }

 private:
  struct Note {
    std::string text;
    std::vector<std::string> cells;
  };
  std::vector<Note> notes_;
};

// `value` with the digits that suit a speed of `iterations_per_second`.
std::string FormatSpeed(double value, double iterations_per_second) {
  return absl::StrFormat("%.*f", iterations_per_second < 0.1 ? 4 : 2, value);
}

std::string FormatGigabytes(int64_t bytes) { return absl::StrFormat("%.2f", static_cast<double>(bytes) / 1e9); }

bool IsActive(const v1::Job& job) {
  return std::any_of(job.runs().begin(), job.runs().end(), [](const v1::Run& run) {
    return run.state() == v1::RUN_STATE_ASSIGNED || run.state() == v1::RUN_STATE_RUNNING;
  });
}

// Why some repetitions of a measured job gave no figure; "" if all did.
std::string MissingRuns(const v1::Job& job) {
  const v1::JobSummary& summary = job.summary();
  const auto missing = static_cast<int>(summary.ended_runs()) - static_cast<int>(summary.measured_runs());
  if (missing <= 0) return "";
  for (const v1::Run& run : job.runs()) {
    const v1::Outcome outcome = run.result().outcome();
    if (run.state() != v1::RUN_STATE_ENDED || outcome == v1::OUTCOME_MEASURED) continue;
    return absl::StrCat(missing, " of ", summary.ended_runs(), " runs without a figure: ", OutcomeName(outcome),
                        run.result().reason().empty() ? "" : ": ", run.result().reason());
  }
  return "";
}

ResultCell MakeCell(const v1::Job& job, bool allocated, Notes& notes) {
  const v1::JobSummary& summary = job.summary();
  const std::string where = absl::StrCat(job.backend(), " ", FormatShape(job.shape()));
  ResultCell cell;
  cell.ratio = "-";
  cell.memory = "-";
  if (summary.outcome() == v1::OUTCOME_MEASURED) {
    const double speed = summary.iterations_per_second_median();
    cell.speed = FormatSpeed(speed, speed);
    if (summary.measured_runs() > 1) cell.spread = "±" + FormatSpeed(summary.iterations_per_second_stddev(), speed);
    if (summary.ratio_to_eager() > 0) cell.ratio = absl::StrFormat("%.2fx", summary.ratio_to_eager());
    const int64_t bytes = allocated ? summary.peak_allocated_bytes() : summary.peak_resident_bytes();
    if (bytes > 0) cell.memory = FormatGigabytes(bytes);
    std::vector<std::string> doubts;
    if (const std::string missing = MissingRuns(job); !missing.empty()) doubts.push_back(missing);
    if (!summary.contamination().empty()) {
      doubts.push_back("suspect figure: " + absl::StrJoin(summary.contamination(), ", "));
    }
    if (!doubts.empty()) cell.note = notes.Add(absl::StrJoin(doubts, "; "), where);
    return cell;
  }
  switch (summary.outcome()) {
    case v1::OUTCOME_UNSPECIFIED:
      cell.speed = IsActive(job) ? "running" : "waiting";
      return cell;
    case v1::OUTCOME_OUT_OF_MEMORY:
      cell.speed = "OOM";
      cell.memory = "OOM";
      break;
    default:
      cell.speed = OutcomeName(summary.outcome());
  }
  cell.bad = true;
  const std::string reason = summary.reason().empty() ? "no reason was given" : summary.reason();
  cell.note = notes.Add(absl::StrCat(OutcomeName(summary.outcome()), ": ", reason), where);
  return cell;
}

void MarkFastest(std::vector<ResultCell>& row, const std::vector<double>& speeds) {
  if (std::count_if(speeds.begin(), speeds.end(), [](double speed) { return speed > 0; }) < 2) return;
  row[static_cast<size_t>(std::max_element(speeds.begin(), speeds.end()) - speeds.begin())].fastest = true;
}

std::string OnOff(bool on) { return on ? "on" : "off"; }

std::string Biases(const v1::TrainingSettings& training) {
  if (training.relative_attention_bias() == training.spatial_attention_bias()) {
    return "attention biases " + OnOff(training.relative_attention_bias());
  }
  return absl::StrCat("1-D attention bias ", OnOff(training.relative_attention_bias()), ", 2-D ",
                      OnOff(training.spatial_attention_bias()));
}

std::string Settings(const v1::BenchmarkSpec& spec, const std::optional<v1::Environment>& environment) {
  const v1::TrainingSettings& training = spec.training();
  const std::string precision = environment.has_value() && !environment->precision().empty()
                                    ? environment->precision()
                                    : PrecisionName(training.precision());
  return absl::StrCat("preset ", spec.preset(), ", ", ModelSizeName(training.model_size()), " model, ", precision, ", ",
                      Biases(training), ", dropout ", FormatExact(training.hidden_dropout()), " (attention ",
                      FormatExact(training.attention_dropout()), "), ", OptimizerName(training.optimizer()), " ",
                      FormatExact(training.learning_rate()), ", ", training.num_labels(), " labels, ",
                      BoxLayoutName(training.boxes()), " boxes, ", training.data_loader_threads(),
                      " data-loader threads, seed ", training.seed());
}

std::string Figures(const v1::BenchmarkSpec& spec, const ResultView& view) {
  const v1::TrainingSettings& training = spec.training();
  std::string text =
      absl::StrCat("it/s over ", training.timed_steps(), " steps after ", training.warmup_steps(), " warm-up steps");
  if (spec.repetitions() > 1) {
    absl::StrAppend(&text, ", median of ", spec.repetitions(), " repetitions ± sample standard deviation");
    if (view.has_ratio) absl::StrAppend(&text, "; ratios are paired by repetition");
  }
  absl::StrAppend(&text, "; memory is ", view.memory_kind,
                  view.memory_kind == "peak resident" ? " (of the trainer process)" : " (by tensors)",
                  ", 1 GB = 1e9 bytes");
  return text;
}

// The devices that gave results, each once.
std::string Where(const v1::Benchmark& benchmark, std::optional<v1::Environment>& environment) {
  std::vector<std::string> places;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      if (!run.result().has_environment()) continue;
      const v1::Environment& found = run.result().environment();
      if (!environment.has_value()) environment = found;
      std::string place = absl::StrCat(found.device_name(), " (worker ", run.worker(), " on ", found.host(), ")");
      if (std::find(places.begin(), places.end(), place) == places.end()) places.push_back(std::move(place));
    }
  }
  if (places.empty()) return "";
  std::string text = absl::StrJoin(places, ", ");
  if (environment->cpu_threads() > 0 && environment->device_kind() == v1::DEVICE_KIND_CPU) {
    absl::StrAppend(&text, ", ", environment->cpu_threads(), environment->cpu_threads() == 1 ? " thread" : " threads");
  }
  for (const auto& [name, version] :
       {std::pair("LibTorch", environment->libtorch_version()), std::pair("CUDA", environment->cuda_version()),
        std::pair("cuDNN", environment->cudnn_version()), std::pair("driver", environment->driver_version())}) {
    if (!version.empty()) absl::StrAppend(&text, ", ", name, " ", version);
  }
  return text;
}

std::string FormatUnixMs(int64_t unix_ms, absl::TimeZone zone) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S %Ez", absl::FromUnixMillis(unix_ms), zone);
}

std::string About(const v1::Benchmark& benchmark, const std::string& again, absl::TimeZone zone) {
  std::string text = absl::StrCat(benchmark.id());
  if (!benchmark.spec().name().empty()) absl::StrAppend(&text, " \"", benchmark.spec().name(), "\"");
  const std::string runs = absl::StrCat(benchmark.runs_ended(), " of ", benchmark.runs_total(), " runs ended");
  switch (benchmark.state()) {
    case v1::BENCHMARK_STATE_FINISHED:
      absl::StrAppend(&text, ", finished ", FormatUnixMs(benchmark.ended_unix_ms(), zone));
      break;
    case v1::BENCHMARK_STATE_CANCELLED:
      absl::StrAppend(&text, ", cancelled ", FormatUnixMs(benchmark.ended_unix_ms(), zone),
                      benchmark.cancel_reason().empty() ? "" : ": ", benchmark.cancel_reason());
      break;
    default:
      absl::StrAppend(&text, ", ", benchmark.state() == v1::BENCHMARK_STATE_QUEUED ? "queued" : "running", ", ", runs);
  }
  return absl::StrCat(text, "; again: ", again);
}

}  // namespace

ResultView MakeResultView(const v1::Benchmark& benchmark, const std::string& again, absl::TimeZone zone) {
  ResultView view;
  view.backends.assign(benchmark.spec().backends().begin(), benchmark.spec().backends().end());
  std::map<std::string, size_t> backend_column;
  for (const std::string& backend : view.backends) backend_column.emplace(backend, backend_column.size());
  view.has_ratio = view.backends.size() > 1 && backend_column.count(kReference) > 0;
  const bool allocated = std::any_of(benchmark.jobs().begin(), benchmark.jobs().end(),
                                     [](const v1::Job& job) { return job.summary().peak_allocated_bytes() > 0; });
  view.memory_kind = allocated ? "peak allocated" : "peak resident";

  Notes notes;
  std::vector<std::vector<double>> speeds;
  std::map<uint32_t, size_t> row_of_group;
  for (const v1::Job& job : benchmark.jobs()) {
    const auto column = backend_column.find(job.backend());
    if (column == backend_column.end()) continue;
    const auto [row, is_new] = row_of_group.emplace(job.group(), view.shapes.size());
    if (is_new) {
      view.shapes.push_back(job.shape());
      view.cells.emplace_back(view.backends.size());
      speeds.emplace_back(view.backends.size(), 0.0);
    }
    view.cells[row->second][column->second] = MakeCell(job, allocated, notes);
    speeds[row->second][column->second] = job.summary().iterations_per_second_median();
  }
  for (size_t row = 0; row < view.cells.size(); ++row) MarkFastest(view.cells[row], speeds[row]);
  view.notes = notes.Lines();

  std::optional<v1::Environment> environment;
  const std::string where = Where(benchmark, environment);
  view.facts.emplace_back("Figures", Figures(benchmark.spec(), view));
  if (!where.empty()) view.facts.emplace_back("Where", where);
  view.facts.emplace_back("Settings", Settings(benchmark.spec(), environment));
  view.facts.emplace_back("Benchmark", About(benchmark, again, zone));
  for (auto& fact : view.facts) fact.second = Printable(fact.second);
  return view;
}

}  // namespace attnfleet::client
