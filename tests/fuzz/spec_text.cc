// A spec file: what is accepted can be printed, read back and expanded within the bounds that it was checked for.

#include "proto/spec_text.h"

#include <google/protobuf/util/message_differencer.h>

#include "proto/spec.h"
#include "support.h"

using attnfleet::fuzz::Check;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<attnfleet::v1::BenchmarkSpec> spec = attnfleet::ParseSpecText(text, "fuzz.textproto");
  if (!spec.ok()) {
    Check(spec.status().message().find('\n') == absl::string_view::npos, "an error is one line");
    return 0;
  }
  if (!attnfleet::ApplyPreset(*spec).ok() || !attnfleet::ValidateSpec(*spec, {}).ok()) return 0;

  const auto again = attnfleet::ParseSpecText(attnfleet::FormatSpecText(*spec), "again.textproto");
  Check(again.ok(), "what was printed can be read");
  Check(google::protobuf::util::MessageDifferencer::Equals(*spec, *again), "what was read back is the same");
  attnfleet::v1::BenchmarkSpec twice = *spec;
  Check(attnfleet::ApplyPreset(twice).ok(), "a complete spec can be completed");
  Check(google::protobuf::util::MessageDifferencer::Equals(*spec, twice), "completing it twice changes nothing");

  const int64_t runs = int64_t{spec->backends_size()} * spec->shapes_size() * spec->repetitions();
  Check(runs >= 1 && runs <= attnfleet::kMaxRuns, "the number of runs is bounded");
  constexpr int64_t kQuicklyExpanded = 500;
  if (runs > kQuicklyExpanded) return 0;
  int64_t expanded = 0;
  for (const attnfleet::v1::Job& job : attnfleet::ExpandJobs(1, *spec)) expanded += job.runs_size();
  Check(expanded == runs, "every run is in a job");
  return 0;
}
