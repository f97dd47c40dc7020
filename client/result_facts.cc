#include "client/result_facts.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/result_cell.h"
#include "client/spec_command.h"
#include "client/text.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

bool AnySummary(const std::vector<v1::Benchmark>& benchmarks, const std::function<bool(const v1::JobSummary&)>& has) {
  for (const v1::Benchmark& benchmark : benchmarks) {
    for (const v1::Job& job : benchmark.jobs()) {
      if (has(job.summary())) return true;
    }
  }
  return false;
}

std::string OnOff(bool on) { return on ? "on" : "off"; }

std::string Biases(const v1::TrainingSettings& training) {
  const std::string trained = training.train_bias_tables() ? " (trained)" : "";
  if (training.relative_attention_bias() == training.spatial_attention_bias()) {
    return absl::StrCat("attention biases ", OnOff(training.relative_attention_bias()),
                        training.relative_attention_bias() ? trained : "");
  }
  return absl::StrCat("1-D attention bias ", OnOff(training.relative_attention_bias()), ", 2-D ",
                      OnOff(training.spatial_attention_bias()), trained);
}

// Of the step, where it is not the usual one, or not the one that was asked for.
std::string Step(const v1::TrainingSettings& training, const std::optional<v1::Environment>& environment) {
  const std::string reference = TrainingStepName(v1::TRAINING_STEP_REFERENCE);
  const std::string asked =
      training.step() == v1::TRAINING_STEP_UNSPECIFIED ? reference : TrainingStepName(training.step());
  const std::string ran = !environment.has_value()      ? asked
                          : environment->step().empty() ? reference
                                                        : environment->step();
  if (ran != asked) return absl::StrCat(", ", ran, " step (the trainer has no ", asked, " one)");
  return ran == reference ? "" : absl::StrCat(", ", ran, " step");
}

std::string Settings(const v1::BenchmarkSpec& spec, const std::optional<v1::Environment>& environment) {
  const v1::TrainingSettings& training = spec.training();
  const std::string precision = environment.has_value() && !environment->precision().empty()
                                    ? environment->precision()
                                    : PrecisionName(training.precision());
  const std::string input = training.data_file().empty() ? BoxLayoutName(training.boxes()) + " boxes"
                                                         : absl::StrCat("data ", training.data_file());
  return absl::StrCat(ModelSizeName(training.model_size()), " model, ", precision, ", ", Biases(training),
                      training.image() ? ", image" : "", Step(training, environment), ", dropout ",
                      FormatExact(training.hidden_dropout()), " (attention ", FormatExact(training.attention_dropout()),
                      "), ", OptimizerName(training.optimizer()), " ", FormatExact(training.learning_rate()), ", ",
                      training.num_labels(), " labels, ", input,
                      training.weights_file().empty() ? "" : ", weights " + training.weights_file(), ", ",
                      training.data_loader_threads(), " data-loader threads, seed ", training.seed());
}

std::string Steps(const v1::TrainingSettings& training) {
  std::string text = absl::StrCat("it/s over ", training.timed_steps(), " steps");
  if (training.ci_width() > 0) {
    absl::StrAppend(&text, " at most (fewer once its 95 % confidence interval is ",
                    FormatExact(training.ci_width() * 100), " % wide)");
  }
  return absl::StrCat(text, " after ", training.warmup_steps(), " warm-up steps",
                      training.warmup_limit_steps() > training.warmup_steps() ? " or more" : "");
}

// The least and the most repetitions that the figure of a measured cell is of; 0, 0 without any.
std::pair<uint32_t, uint32_t> CountedRepetitions(const v1::Benchmark& benchmark) {
  std::pair<uint32_t, uint32_t> range{0, 0};
  for (const v1::Job& job : benchmark.jobs()) {
    const uint32_t counted = CountedRuns(job.summary());
    if (counted == 0) continue;
    range.first = range.first == 0 ? counted : std::min(range.first, counted);
    range.second = std::max(range.second, counted);
  }
  return range;
}

// What stands beside the ratios, of which none has more than `most` pairs; "" where there is nothing to say.
std::string Ratios(const v1::Benchmark& benchmark, const Beside& beside, uint32_t most) {
  const auto any = [&benchmark](bool (*holds)(const v1::Job&)) {
    return std::any_of(benchmark.jobs().begin(), benchmark.jobs().end(), holds);
  };
  const bool intervals = any([](const v1::Job& job) { return job.summary().ratio_pairs() > 1; });
  std::vector<std::string> unsure;
  if (!beside.interval && any(HasDoubtfulRatio)) unsure.emplace_back("their 95 % bootstrap interval holds 1");
  if (any(HasSingleRatio)) unsure.emplace_back("one repetition alone has no interval");
  if (!intervals && unsure.empty()) return "";
  std::string text = "; ratios are paired by repetition";
  if (intervals && beside.interval) {
    absl::StrAppend(&text, ", [95 % bootstrap interval", most <= 5 ? ": of so few about their range]" : "]");
  }
  return absl::StrCat(text, unsure.empty() ? "" : ", ? where ", absl::StrJoin(unsure, " or "));
}

std::string Figures(const v1::Benchmark& benchmark, const Beside& beside) {
  const std::vector<v1::Benchmark> one = {benchmark};
  const v1::BenchmarkSpec& spec = benchmark.spec();
  const auto [fewest, most] = CountedRepetitions(benchmark);
  std::string text = Steps(spec.training());
  if (most > 1) {
    absl::StrAppend(&text, ", median of ", fewest < most ? absl::StrCat(fewest, " to ") : "", most,
                    static_cast<int>(fewest) < spec.repetitions() ? absl::StrCat(" of ", spec.repetitions()) : "",
                    " repetitions", beside.spread ? " ± sample standard deviation" : "");
  } else if (most == 1 && spec.repetitions() > 1) {
    absl::StrAppend(&text, ", 1 of ", spec.repetitions(), " repetitions");
  }
  absl::StrAppend(&text, Ratios(benchmark, beside, most));
  const bool allocated = HasAllocated(one);
  absl::StrAppend(&text, "; memory is ",
                  allocated ? "peak allocated (by tensors)" : "peak resident (of the trainer process)",
                  ", 1 GB = 1e9 bytes");
  if (HasUtilization(one)) {
    absl::StrAppend(&text, "; MFU is model FLOPs x it/s / the device's dense peak");
  } else if (AnySummary(one, [](const v1::JobSummary& summary) { return summary.measured_runs() > 0; })) {
    absl::StrAppend(&text, "; MFU unknown: no peak FLOPS known for the device");
  }
  return text;
}

// The devices that gave results, each once.
std::string Where(const v1::Benchmark& benchmark, std::optional<v1::Environment>& environment) {
  std::vector<std::string> places;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      const v1::Environment& found = run.result().environment();
      if (found.device_name().empty()) continue;  // its trainer crashed before it had told
      if (!environment.has_value()) environment = found;
      std::string place = found.device_name();
      if (found.device_kind() == v1::DEVICE_KIND_CUDA) {
        absl::StrAppend(&place, " ", found.device_uuid().empty() ? "UUID unknown" : found.device_uuid());
      }
      absl::StrAppend(&place, " (worker ", run.worker(), " on ", found.host(), ")");
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

// From the first run's start to the last one's end.
std::string When(const v1::Benchmark& benchmark, absl::TimeZone zone) {
  int64_t first = 0;
  int64_t last = 0;
  for (const v1::Job& job : benchmark.jobs()) {
    const v1::JobSummary& summary = job.summary();
    if (summary.started_unix_ms() > 0) {
      first = first == 0 ? summary.started_unix_ms() : std::min(first, summary.started_unix_ms());
    }
    last = std::max(last, summary.ended_unix_ms());
  }
  if (first == 0) return "";
  return absl::StrCat(FormatUnixMs(first, zone), " to ", FormatUnixMs(last, zone));
}

std::string About(const v1::Benchmark& benchmark, absl::TimeZone zone) {
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
  return text;
}

Facts FactsOf(const v1::Benchmark& benchmark, const std::string& where, absl::TimeZone zone) {
  std::optional<v1::Environment> environment;
  Facts facts = {{"Where", Where(benchmark, environment)}};
  facts.emplace_back("Runs", When(benchmark, zone));
  facts.emplace_back("Settings", Settings(benchmark.spec(), environment));
  facts.emplace_back("Command", SpecCommand(benchmark.spec(), where));
  facts.emplace_back("Benchmark", About(benchmark, zone));
  return facts;
}

std::string ShapesOf(const v1::Benchmark& benchmark) {
  return absl::StrJoin(benchmark.spec().shapes(), ", ",
                       [](std::string* out, const v1::Shape& shape) { absl::StrAppend(out, FormatShape(shape)); });
}

// The facts of each benchmark, which have the same labels in the same order; those that differ with their shapes.
Facts Merge(const std::vector<v1::Benchmark>& benchmarks, const std::function<Facts(const v1::Benchmark&)>& facts_of) {
  // By label: each text with the shapes of the benchmarks that it is about.
  std::vector<std::pair<std::string, Facts>> labels;
  for (const v1::Benchmark& benchmark : benchmarks) {
    const Facts facts = facts_of(benchmark);
    for (size_t i = 0; i < facts.size(); ++i) {
      const std::string& text = facts[i].second;
      if (i == labels.size()) labels.emplace_back(facts[i].first, Facts());
      Facts& texts = labels[i].second;
      const auto same = std::find_if(texts.begin(), texts.end(), [&](const auto& one) { return one.second == text; });
      if (same == texts.end()) {
        texts.emplace_back(ShapesOf(benchmark), text);
      } else {
        absl::StrAppend(&same->first, ", ", ShapesOf(benchmark));
      }
    }
  }
  Facts result;
  for (const auto& [label, texts] : labels) {
    for (const auto& [shapes, text] : texts) {
      if (text.empty()) continue;
      result.emplace_back(label, Printable(texts.size() == 1 ? text : absl::StrCat(shapes, ": ", text)));
    }
  }
  return result;
}

// What attention dropout dropped in the job's runs, or was to drop.
v1::DropoutPlacement PlacementOf(const v1::Job& job) {
  for (const v1::Run& run : job.runs()) {
    if (!run.result().has_measurement()) continue;
    const v1::DropoutPlacement placement = run.result().measurement().attention_dropout_placement();
    if (placement != v1::DROPOUT_PLACEMENT_UNSPECIFIED) return placement;
  }
  return v1::DROPOUT_PLACEMENT_UNSPECIFIED;
}

}  // namespace

bool HasAllocated(const std::vector<v1::Benchmark>& benchmarks) {
  return AnySummary(benchmarks, [](const v1::JobSummary& summary) { return summary.peak_allocated_bytes() > 0; });
}

bool HasUtilization(const std::vector<v1::Benchmark>& benchmarks) {
  return AnySummary(benchmarks, [](const v1::JobSummary& summary) { return summary.model_flops_utilization() > 0; });
}

std::string DropoutNote(const std::vector<v1::Benchmark>& benchmarks) {
  std::set<std::string> probabilities;
  std::set<std::string> output;
  bool mixed = false;
  for (const v1::Benchmark& benchmark : benchmarks) {
    if (benchmark.spec().training().attention_dropout() == 0) continue;
    std::map<uint32_t, std::set<v1::DropoutPlacement>> of_group;
    for (const v1::Job& job : benchmark.jobs()) {
      const v1::DropoutPlacement placement = PlacementOf(job);
      if (placement == v1::DROPOUT_PLACEMENT_PROBABILITIES) probabilities.insert(job.backend());
      if (placement == v1::DROPOUT_PLACEMENT_OUTPUT) output.insert(job.backend());
      if (placement != v1::DROPOUT_PLACEMENT_UNSPECIFIED) of_group[job.group()].insert(placement);
    }
    for (const auto& [group, placements] : of_group) mixed = mixed || placements.size() > 1;
  }
  if (!mixed) return "";
  return Printable(absl::StrCat("* attention dropout drops different things: ", absl::StrJoin(probabilities, ", "),
                                ": the probabilities; ", absl::StrJoin(output, ", "), ": the output of attention"));
}

Facts MakeFigures(const std::vector<v1::Benchmark>& benchmarks, const Beside& beside) {
  return Merge(benchmarks, [&beside](const v1::Benchmark& benchmark) {
    return Facts{{"Figures", Figures(benchmark, beside)}};
  });
}

Facts MakeFacts(const std::vector<v1::Benchmark>& benchmarks, const ResultSource& source, absl::TimeZone zone) {
  Facts facts =
      Merge(benchmarks, [&](const v1::Benchmark& benchmark) { return FactsOf(benchmark, source.where, zone); });
  if (!facts.empty()) absl::StrAppend(&facts.back().second, "; again: ", Printable(source.again));
  return facts;
}

}  // namespace attnfleet::client
