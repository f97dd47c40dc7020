#include "client/progress_display.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/estimate.h"
#include "client/output.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

void WriteToStderr(const std::string& text) {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

ProgressDisplay::ProgressDisplay(const Terminal& terminal) : terminal_(terminal), started_(absl::Now()) {}

ProgressDisplay::~ProgressDisplay() { Clear(); }

void ProgressDisplay::Update(const v1::Benchmark& benchmark, const std::vector<Change>& changes) {
  if (!terminal_.interactive && !std::exchange(begun_, true) && !HasEnded(benchmark)) {
    Note(absl::StrCat("benchmark ", benchmark.id(), ": ", benchmark.runs_ended(), " of ", benchmark.runs_total(),
                      " runs have ended"));
  }
  if (!terminal_.interactive && changes.empty()) return;
  const std::optional<double> left = EstimateSecondsLeft(benchmark);
  for (const Change& change : changes) {
    const v1::Outcome outcome = change.run.result().outcome();
    if (change.ended && outcome == v1::OUTCOME_CANCELLED) continue;  // all at once, and said once
    // On a terminal the redrawn lines tell of runs that went well.
    const bool well = change.ended && outcome == v1::OUTCOME_MEASURED;
    if (!terminal_.interactive || !well) Note(ChangeLine(benchmark, change, left));
  }
  if (!terminal_.interactive || HasEnded(benchmark)) return;
  // One column is left free: some terminals wrap when the last one is written.
  const int width = terminal_.width > 1 ? terminal_.width - 1 : 79;
  Draw(ProgressLines(benchmark, absl::ToDoubleSeconds(absl::Now() - started_), left, waits_, width));
}

void ProgressDisplay::Waits(const std::string& reason) {
  if (reason == waits_) return;
  waits_ = reason;
  if (!terminal_.interactive && !reason.empty()) Note(reason);
}

void ProgressDisplay::Note(const std::string& text) {
  Clear();
  PrintNote(text);
}

void ProgressDisplay::Clear() {
  if (shown_.empty()) return;
  WriteToStderr(absl::StrCat("\r\033[", shown_.size(), "A\033[J"));
  shown_.clear();
}

void ProgressDisplay::Draw(const std::vector<std::string>& lines) {
  if (lines == shown_) return;
  std::string text;
  if (!shown_.empty()) absl::StrAppend(&text, "\r\033[", shown_.size(), "A\033[J");
  for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
  WriteToStderr(text);
  shown_ = lines;
}

}  // namespace attnfleet::client
