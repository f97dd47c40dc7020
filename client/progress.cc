#include "client/progress.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cell_name.h"
#include "client/text.h"
#include "proto/counted.h"
#include "proto/reason.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

constexpr size_t kMostActiveLines = 4;
constexpr size_t kMostReasons = 2;
constexpr int kBarWidth = 20;
constexpr int kLeastBarWidth = 5;  // a shorter one says nothing

// The run's place in the benchmark; null if the server speaks of one that does not exist.
v1::Run* FindRun(v1::Benchmark& benchmark, const v1::RunKey& key) {
  if (key.job_index() >= static_cast<uint32_t>(benchmark.jobs_size())) return nullptr;
  v1::Job& job = *benchmark.mutable_jobs(static_cast<int>(key.job_index()));
  if (key.repetition() >= static_cast<uint32_t>(job.runs_size())) return nullptr;
  return job.mutable_runs(static_cast<int>(key.repetition()));
}

bool IsActive(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_ASSIGNED || run.state() == v1::RUN_STATE_RUNNING;
}

// What the step from `before` to `after` is worth telling.
std::optional<Change> Compare(const v1::Run& before, const v1::Run& after) {
  if (after.state() == v1::RUN_STATE_ENDED && before.state() != v1::RUN_STATE_ENDED) return Change{after, true, 0};
  if (after.failed_attempts_size() > before.failed_attempts_size()) return Change{after, false, 0};
  return std::nullopt;
}

// "sdpa 4x128, repetition 2 of 3"; see CellName.
std::string RunName(const v1::Benchmark& benchmark, const v1::RunKey& key) {
  if (key.job_index() >= static_cast<uint32_t>(benchmark.jobs_size())) return "run " + FormatRunKey(key);
  const v1::Job& job = benchmark.jobs(static_cast<int>(key.job_index()));
  std::string name = CellName(job);
  if (job.runs_size() > 1) absl::StrAppend(&name, ", repetition ", key.repetition() + 1, " of ", job.runs_size());
  return name;
}

std::string PhaseText(const v1::Run& run) {
  const v1::TrainerProgress& progress = run.progress();
  std::string phase = "starting";
  if (progress.phase() == v1::TRAINER_PHASE_SETUP) phase = "set-up";
  if (progress.phase() == v1::TRAINER_PHASE_WARMUP) phase = "warm-up";
  if (progress.phase() == v1::TRAINER_PHASE_TIMED) phase = "timed";
  if (progress.steps_total() > 0) {
    absl::StrAppend(&phase, " step ", progress.steps_done(), "/", progress.steps_total());
  }
  return phase;
}

// "[####......] " of so many columns at most; "" if they are too few for one.
std::string Bar(double share, int columns) {
  const int width = std::min(columns - 3, kBarWidth);
  if (width < kLeastBarWidth) return "";
  const int filled = std::clamp(static_cast<int>(share * width), 0, width);
  return absl::StrCat("[", std::string(static_cast<size_t>(filled), '#'),
                      std::string(static_cast<size_t>(width - filled), '.'), "] ");
}

}  // namespace

std::vector<Change> ApplyUpdate(v1::Benchmark& benchmark, const v1::WatchResponse& update) {
  std::vector<Change> changes;
  uint32_t runs_ended = benchmark.runs_ended();
  const auto compare = [&](const v1::Run& before, const v1::Run& after) {
    std::optional<Change> change = Compare(before, after);
    if (!change.has_value()) return;
    if (change->ended) ++runs_ended;
    change->runs_ended = runs_ended;
    changes.push_back(*std::move(change));
  };
  if (update.has_benchmark()) {
    v1::Benchmark fresh = update.benchmark();
    for (const v1::Job& job : fresh.jobs()) {
      for (const v1::Run& run : job.runs()) {
        if (const v1::Run* before = FindRun(benchmark, run.key())) compare(*before, run);
      }
    }
    benchmark = std::move(fresh);
  } else if (update.has_run()) {
    v1::Run* run = FindRun(benchmark, update.run().key());
    if (run == nullptr) return changes;
    compare(*run, update.run());
    *run = update.run();
    benchmark.set_runs_ended(runs_ended);
  }
  return changes;
}

std::string ChangeLine(const v1::Benchmark& benchmark, const Change& change, std::optional<double> seconds_left) {
  const v1::RunResult& result = change.run.result();
  std::string text = absl::StrCat("[", change.runs_ended, "/", benchmark.runs_total(), "] ",
                                  RunName(benchmark, change.run.key()), ": ");
  if (!change.ended) {
    const v1::AttemptFailure& failure = *change.run.failed_attempts().rbegin();
    absl::StrAppend(&text, "attempt ", failure.attempt(), " failed, it is tried again: ", failure.reason());
  } else if (result.outcome() == v1::OUTCOME_MEASURED) {
    absl::StrAppend(&text, absl::StrFormat("%.2f it/s", result.measurement().iterations_per_second()));
    if (!result.contamination().empty()) {
      absl::StrAppend(&text, ", contaminated: ", absl::StrJoin(result.contamination(), ", "));
    }
  } else {
    absl::StrAppend(&text, OutcomeLine(result.outcome(), ReasonLine(result)));
  }
  if (seconds_left.value_or(0) >= 1 && change.runs_ended < benchmark.runs_total()) {
    absl::StrAppend(&text, "; about ", FormatDuration(*seconds_left), " left");
  }
  return Printable(text);
}

std::vector<std::string> ProgressLines(const v1::Benchmark& benchmark, double elapsed_seconds,
                                       std::optional<double> seconds_left, const std::string& waits, int width) {
  const double share = benchmark.runs_total() == 0
                           ? 0.0
                           : static_cast<double>(benchmark.runs_ended()) / static_cast<double>(benchmark.runs_total());
  const std::string name = absl::StrCat("benchmark ", benchmark.id(), " ");
  std::string figures = absl::StrCat(benchmark.runs_ended(), "/", Counted(benchmark.runs_total(), "run"), ", ",
                                     FormatDuration(elapsed_seconds));
  if (seconds_left.has_value()) absl::StrAppend(&figures, ", about ", FormatDuration(*seconds_left), " left");
  // The figures say more than the bar, so it takes what room they leave.
  const int room = width > 0 ? width - DisplayWidth(name + figures) : kBarWidth + 3;
  std::vector<std::string> lines = {absl::StrCat(name, Bar(share, room), figures)};
  size_t active = 0;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      if (!IsActive(run)) continue;
      if (++active > kMostActiveLines) continue;
      std::string line = absl::StrCat("  ", RunName(benchmark, run.key()), ": ", PhaseText(run));
      if (run.attempt() > 1) absl::StrAppend(&line, ", attempt ", run.attempt());
      if (!job.has_node()) absl::StrAppend(&line, " (", run.worker(), "/", run.slot(), ")");
      lines.push_back(line);
    }
  }
  if (active > kMostActiveLines) lines.push_back(absl::StrCat("  and ", active - kMostActiveLines, " more"));
  if (!waits.empty()) {
    lines.push_back("  " + waits);
  } else if (active == 0 && benchmark.runs_ended() < benchmark.runs_total()) {
    lines.emplace_back("  waiting for a slot");
  }
  for (std::string& line : lines) line = Truncate(Printable(line), width);
  return lines;
}

std::string WaitText(const v1::ExplainResponse& response) {
  if (!response.stalled().empty()) return absl::StrCat("nothing new starts: ", response.stalled());
  std::vector<std::string> reasons;
  bool unfit = true;
  for (const v1::Explanation& explanation : response.explanations()) {
    const std::string& reason = explanation.waits();
    if (reason.empty()) continue;
    unfit = unfit && explanation.unfit();
    if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) reasons.push_back(reason);
  }
  if (reasons.empty()) return "";
  const size_t more = reasons.size() > kMostReasons ? reasons.size() - kMostReasons : 0;
  reasons.resize(reasons.size() - more);
  return absl::StrCat(unfit ? "nothing runs: " : "waiting: ", absl::StrJoin(reasons, "; "),
                      more > 0 ? absl::StrCat("; and ", Counted(more, "more reason")) : "");
}

bool AnyRunActive(const v1::Benchmark& benchmark) {
  for (const v1::Job& job : benchmark.jobs()) {
    if (std::any_of(job.runs().begin(), job.runs().end(), IsActive)) return true;
  }
  return false;
}

bool Succeeded(const v1::Benchmark& benchmark) {
  if (benchmark.state() != v1::BENCHMARK_STATE_FINISHED) return false;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      if (run.result().outcome() == v1::OUTCOME_FAILED) return false;
    }
  }
  return true;
}

}  // namespace attnfleet::client
