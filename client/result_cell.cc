#include "client/result_cell.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cell_name.h"
#include "client/numerical_check.h"
#include "client/text.h"
#include "proto/name_list.h"
#include "proto/reason.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

constexpr size_t kMostCellsInNote = 6;
constexpr char kUnknown[] = "unknown";
constexpr char kReference[] = "eager";  // of ratios
// Of the median; repetitions on a machine of their own differ by a few percent.
constexpr double kMostDisagreement = 0.1;
constexpr char kPlacesNote[] = "its runs are of several slots, over which the figures are: ";
constexpr char kDisagreementNote[] =
    "the runs disagree by more than 10 %: something else may have used the machine; measure again when it is quiet, "
    "or with more --repetitions and --steps";

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
    const v1::RunResult& result = run.result();
    if (run.state() != v1::RUN_STATE_ENDED || result.outcome() == v1::OUTCOME_MEASURED) continue;
    return absl::StrCat(missing, " of ", summary.ended_runs(),
                        " runs without a figure: ", OutcomeLine(result.outcome(), ReasonLine(result)));
  }
  return "";
}

// Where the runs that count were, if that is more than one slot: "f1 cpu0: repetitions 1, 2; f2 cpu0: repetition 3".
std::string Places(const v1::Job& job) {
  std::vector<std::pair<std::string, std::vector<uint32_t>>> places;
  for (const v1::Run& run : job.runs()) {
    if (run.result().outcome() != v1::OUTCOME_MEASURED) continue;
    if (!run.result().contamination().empty() && !job.summary().includes_contaminated()) continue;
    const std::string place = absl::StrCat(run.worker(), " ", run.slot());
    const auto is_same = [&place](const auto& one) { return one.first == place; };
    auto found = std::find_if(places.begin(), places.end(), is_same);
    if (found == places.end()) found = places.insert(places.end(), {place, {}});
    found->second.push_back(run.key().repetition() + 1);
  }
  if (places.size() < 2) return "";
  return absl::StrJoin(places, "; ", [](std::string* out, const auto& one) {
    absl::StrAppend(out, one.first, ": repetition", one.second.size() == 1 ? " " : "s ",
                    absl::StrJoin(one.second, ", "));
  });
}

// What became of the contaminated runs, and why they are; "" without any.
std::string Contamination(const v1::JobSummary& summary) {
  if (summary.contaminated_runs() == 0) return "";
  const std::string reasons = absl::StrJoin(summary.contamination(), ", ");
  if (!summary.includes_contaminated()) {
    return absl::StrCat(summary.contaminated_runs(), " of ", summary.measured_runs(),
                        " runs contaminated and left out: ", reasons);
  }
  if (summary.contaminated_runs() == summary.measured_runs()) return "! every run is contaminated: " + reasons;
  return absl::StrCat("! ", summary.contaminated_runs(), " of ", summary.measured_runs(),
                      " runs contaminated and included: ", reasons);
}

// How far apart the runs that count are, where that is more than a quiet machine shows: " (2.10 to 19.80 it/s)".
std::string Disagreement(const v1::JobSummary& summary) {
  const double median = summary.iterations_per_second_median();
  const double low = summary.iterations_per_second_min();
  const double high = summary.iterations_per_second_max();
  if (CountedRuns(summary) < 2 || high - low <= kMostDisagreement * median) return "";
  return absl::StrCat(" (", FormatSpeed(low, median), " to ", FormatSpeed(high, median), " it/s)");
}

std::string Gigabytes(int64_t bytes, const std::string& sign) {
  return bytes > 0 ? FormatGigabytes(bytes) + sign : kUnknown;
}

void FillMeasured(const v1::Job& job, bool allocated, Notes& notes, ResultCell& cell) {
  const v1::JobSummary& summary = job.summary();
  const std::string sign = summary.includes_contaminated() ? "!" : "";
  const double speed = summary.iterations_per_second_median();
  cell.speed = FormatSpeed(speed, speed) + sign;
  if (CountedRuns(summary) > 1) cell.spread = "±" + FormatSpeed(summary.iterations_per_second_stddev(), speed);
  if (summary.ratio_to_eager() > 0) {
    cell.ratio = absl::StrFormat("%.2fx", summary.ratio_to_eager());
    // Against itself there is nothing to be unsure of.
    if (job.backend() != kReference) {
      cell.interval = FormatInterval(summary.ratio_to_eager_low(), summary.ratio_to_eager_high(), 2);
      cell.doubtful = HasDoubtfulRatio(job) || HasSingleRatio(job);
    }
  }
  cell.mfu = summary.model_flops_utilization() > 0 ? FormatPercent(summary.model_flops_utilization()) + sign : kUnknown;
  cell.memory = Gigabytes(allocated ? summary.peak_allocated_bytes() : summary.peak_resident_bytes(), sign);
  cell.reserved = Gigabytes(summary.peak_reserved_bytes(), sign);
  cell.sampled = Gigabytes(summary.peak_device_bytes(), sign);
  std::vector<std::string> doubts;
  for (std::string& doubt :
       std::vector<std::string>{NumericalCheckFailure(job), Contamination(summary), MissingRuns(job)}) {
    if (!doubt.empty()) doubts.push_back(std::move(doubt));
  }
  const std::string disagreement = Disagreement(summary);
  if (const std::string places = Places(job); !places.empty()) {
    doubts.push_back(kPlacesNote + places);
  } else if (!disagreement.empty()) {
    doubts.emplace_back(kDisagreementNote);
  }
  if (doubts.empty()) return;
  cell.note = notes.Add(absl::StrJoin(doubts, "; "), absl::StrCat(CellName(job), disagreement));
}

}  // namespace

bool HasDoubtfulRatio(const v1::Job& job) {
  const v1::JobSummary& summary = job.summary();
  return job.backend() != kReference && summary.ratio_pairs() > 1 && summary.ratio_to_eager_low() < 1 &&
         summary.ratio_to_eager_high() > 1;
}

bool HasSingleRatio(const v1::Job& job) { return job.backend() != kReference && job.summary().ratio_pairs() == 1; }

uint32_t CountedRuns(const v1::JobSummary& summary) {
  return summary.measured_runs() - (summary.includes_contaminated() ? 0 : summary.contaminated_runs());
}

std::string Notes::Add(const std::string& text, const std::string& cell) {
  auto found = std::find_if(notes_.begin(), notes_.end(), [&](const Note& note) { return note.text == text; });
  if (found == notes_.end()) found = notes_.insert(notes_.end(), {text, {}});
  found->cells.push_back(cell);
  return absl::StrCat("[", found - notes_.begin() + 1, "]");
}

std::vector<std::string> Notes::Lines() const {
  std::vector<std::string> lines;
  for (size_t i = 0; i < notes_.size(); ++i) {
    lines.push_back(
        Printable(absl::StrCat("[", i + 1, "] ", NameList(notes_[i].cells, kMostCellsInNote), ": ", notes_[i].text)));
  }
  return lines;
}

ResultCell MakeResultCell(const v1::Job& job, bool allocated, Notes& notes) {
  const v1::JobSummary& summary = job.summary();
  ResultCell cell;
  for (std::string* text : {&cell.ratio, &cell.mfu, &cell.memory, &cell.reserved, &cell.sampled}) *text = "-";
  switch (summary.outcome()) {
    case v1::OUTCOME_MEASURED:
      FillMeasured(job, allocated, notes, cell);
      return cell;
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
  cell.note = notes.Add(OutcomeLine(summary.outcome(), reason), CellName(job));
  return cell;
}

std::string FormatGigabytes(int64_t bytes) { return absl::StrFormat("%.2f", static_cast<double>(bytes) / 1e9); }

std::string FormatGibibytes(int64_t bytes) {
  return absl::StrFormat("%.2f", static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0));
}

std::string FormatSpeed(double value, double iterations_per_second) {
  return absl::StrFormat("%.*f", iterations_per_second < 0.1 ? 4 : 2, value);
}

std::string FormatMeanInterval(const v1::JobSummary& summary) {
  return FormatInterval(summary.iterations_per_second_mean_low(), summary.iterations_per_second_mean_high(),
                        summary.iterations_per_second_mean() < 0.1 ? 4 : 2);
}

std::string FormatInterval(double low, double high, int digits) {
  if (low == 0 && high == 0) return "";
  return absl::StrFormat("[%.*f, %.*f]", digits, low, digits, high);
}

std::string FormatPercent(double part) { return absl::StrFormat("%.1f %%", part * 100); }

std::string FormatUnixMs(int64_t unix_ms, absl::TimeZone zone) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S %Ez", absl::FromUnixMillis(unix_ms), zone);
}

}  // namespace attnfleet::client
