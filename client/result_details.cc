#include "client/result_details.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/cell_name.h"
#include "client/result_cell.h"
#include "client/spec_command.h"
#include "client/text.h"
#include "proto/reason.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

constexpr char kUnknown[] = "unknown";
constexpr int kLabelWidth = 22;
constexpr size_t kLogLines = 10;  // of what a trainer that failed wrote last

using Lines = std::vector<std::pair<std::string, std::string>>;  // label and value

std::string OrUnknown(const std::string& text) { return text.empty() ? kUnknown : text; }

std::string Both(int64_t bytes) {
  return bytes > 0 ? absl::StrCat(FormatGigabytes(bytes), " GB (", FormatGibibytes(bytes), " GiB)") : kUnknown;
}

std::string Positive(double value, const char* unit) {
  return value > 0 ? absl::StrFormat("%.4g %s", value, unit) : kUnknown;
}

// What `text` says of each run, each answer once, in the order of the runs.
std::string Each(const std::vector<const v1::Run*>& runs,
                 const std::function<std::string(const v1::RunResult&)>& text) {
  std::vector<std::string> answers;
  for (const v1::Run* run : runs) {
    std::string answer = OrUnknown(text(run->result()));
    if (std::find(answers.begin(), answers.end(), answer) == answers.end()) answers.push_back(std::move(answer));
  }
  return answers.empty() ? kUnknown : absl::StrJoin(answers, " | ");
}

std::string Environment(const std::vector<const v1::Run*>& runs, const std::string& (v1::Environment::*field)() const) {
  return Each(runs, [field](const v1::RunResult& result) { return (result.environment().*field)(); });
}

bool Knows(const v1::GpuTelemetry& telemetry, const std::string& what) {
  return std::find(telemetry.unknown().begin(), telemetry.unknown().end(), what) == telemetry.unknown().end();
}

// From the telemetry; unknown without any, or where it says that it could not tell.
std::string Telemetry(const std::vector<const v1::Run*>& runs, const std::string& what,
                      const std::function<std::string(const v1::GpuTelemetry&)>& text) {
  return Each(runs, [&](const v1::RunResult& result) {
    const v1::GpuTelemetry& telemetry = result.telemetry();
    return telemetry.samples() > 0 && Knows(telemetry, what) ? text(telemetry) : std::string();
  });
}

// Before, during and after the run. Those that were seen are told even where there may be more.
std::string Processes(const v1::RunResult& result) {
  const v1::GpuTelemetry& telemetry = result.telemetry();
  const bool all = telemetry.samples() > 0 && Knows(telemetry, "other processes");
  if (telemetry.other_processes().empty()) return all ? "none seen" : "";
  std::string text =
      absl::StrJoin(telemetry.other_processes(), ", ", [](std::string* out, const v1::OtherProcess& process) {
        absl::StrAppend(out, process.pid(), " ", OrUnknown(process.name()), " ", Both(process.used_bytes()), " ",
                        absl::StrJoin(process.phases(), "+"));
      });
  return all ? text : text + ", others unknown";
}

// A run that NVML could not tell everything about is not called clean.
std::string Contamination(const v1::RunResult& result) {
  if (!result.contamination().empty()) return absl::StrJoin(result.contamination(), ", ");
  const v1::GpuTelemetry& telemetry = result.telemetry();
  if (telemetry.samples() == 0) return "";
  if (telemetry.unknown().empty()) return "none found";
  return absl::StrCat("none found; unknown: ", absl::StrJoin(telemetry.unknown(), ", "));
}

std::string Check(const v1::NumericalCheck& check) {
  if (!check.skipped().empty()) return "skipped: " + check.skipped();
  if (check.samples() == 0) return "";
  return absl::StrFormat("against eager in fp64, %d samples: output %.2g, loss %.2g, gradient %.2g (%s)",
                         check.samples(), check.output_error(), check.loss_error(), check.gradient_error(),
                         OrUnknown(check.gradient_worst()));
}

// The check is repetition 0's alone, so the other repetitions' silence says nothing.
std::string NumericalCheck(const std::vector<const v1::Run*>& runs) {
  for (const v1::Run* run : runs) {
    const v1::Measurement& measurement = run->result().measurement();
    if (measurement.has_numerical_check()) return OrUnknown(Check(measurement.numerical_check()));
  }
  return kUnknown;
}

std::string Kernels(const v1::RunResult& result) {
  const v1::Measurement& measurement = result.measurement();
  if (!measurement.attention_kernels().empty()) return absl::StrJoin(measurement.attention_kernels(), ", ");
  return measurement.attention_kernels_unknown().empty()
             ? ""
             : absl::StrCat(kUnknown, ": ", measurement.attention_kernels_unknown());
}

void AddFigures(const v1::JobSummary& summary, Lines& lines) {
  const double mean = summary.iterations_per_second_mean();
  const std::string interval = FormatMeanInterval(summary);
  const double median = summary.iterations_per_second_median();
  lines.emplace_back("it/s", absl::StrCat("median ", FormatSpeed(median, median), ", mean ", FormatSpeed(mean, mean),
                                          interval.empty() ? "" : " " + interval));
  if (summary.ratio_to_eager() > 0) {
    const std::string ratio = FormatInterval(summary.ratio_to_eager_low(), summary.ratio_to_eager_high(), 3);
    lines.emplace_back("vs eager", absl::StrFormat("%.3fx%s of %d pairs", summary.ratio_to_eager(),
                                                   ratio.empty() ? "" : " " + ratio, summary.ratio_pairs()));
  }
  lines.emplace_back(
      "MFU", summary.model_flops_utilization() > 0 ? FormatPercent(summary.model_flops_utilization()) : kUnknown);
  lines.emplace_back("step time", absl::StrCat("median ", Positive(summary.step_seconds_median() * 1e3, "ms"), ", p90 ",
                                               Positive(summary.step_seconds_p90() * 1e3, "ms"), ", p99 ",
                                               Positive(summary.step_seconds_p99() * 1e3, "ms")));
  lines.emplace_back("tokens", Positive(summary.tokens_per_second(), "per second, without padding"));
  lines.emplace_back("data wait", absl::StrFormat("%.2f %% of the timed seconds", summary.data_wait_part() * 100));
  lines.emplace_back("peak allocated", Both(summary.peak_allocated_bytes()));
  lines.emplace_back("  of it",
                     absl::StrCat("model ", Both(summary.model_bytes()), ", gradients ", Both(summary.gradient_bytes()),
                                  ", optimiser ", Both(summary.optimizer_bytes()), ", activations ",
                                  Both(summary.activation_bytes())));
  lines.emplace_back("peak reserved", Both(summary.peak_reserved_bytes()));
  lines.emplace_back("device, sampled", Both(summary.peak_device_bytes()));
  lines.emplace_back("peak resident", Both(summary.peak_resident_bytes()));
  lines.emplace_back("energy", Positive(summary.energy_joules_per_iteration(), "J per iteration"));
}

void AddProof(const std::vector<const v1::Run*>& runs, Lines& lines) {
  lines.emplace_back("attention kernels", Each(runs, Kernels));
  lines.emplace_back("numerical check", NumericalCheck(runs));
  lines.emplace_back(
      "attention dropout", Each(runs, [](const v1::RunResult& result) {
        const v1::DropoutPlacement placement = result.measurement().attention_dropout_placement();
        return placement == v1::DROPOUT_PLACEMENT_UNSPECIFIED ? "" : "drops the " + DropoutPlacementName(placement);
      }));
  lines.emplace_back("steps", Each(runs, [](const v1::RunResult& result) {
                       const v1::Measurement& measurement = result.measurement();
                       return absl::StrCat(measurement.timed_steps(), " timed after ", measurement.warmup_steps(),
                                           " of warm-up (",
                                           measurement.warmup_stable() ? "stable" : "not known to be stable", ")");
                     }));
}

void AddPlace(const std::vector<const v1::Run*>& runs, Lines& lines) {
  using Place = v1::Environment;
  lines.emplace_back(
      "device", absl::StrCat(Environment(runs, &Place::device_name), ", UUID ", Environment(runs, &Place::device_uuid),
                             ", host ", Environment(runs, &Place::host)));
  lines.emplace_back("versions", absl::StrCat("driver ", Environment(runs, &Place::driver_version), ", CUDA ",
                                              Environment(runs, &Place::cuda_version), ", LibTorch ",
                                              Environment(runs, &Place::libtorch_version), ", cuDNN ",
                                              Environment(runs, &Place::cudnn_version)));
  lines.emplace_back("attnfleet", absl::StrCat(Environment(runs, &Place::attnfleet_version), ", build ",
                                               Environment(runs, &Place::build_id)));
  lines.emplace_back("precision", Environment(runs, &Place::precision));
  lines.emplace_back("step", Each(runs, [](const v1::RunResult& result) {
                       // A trainer that does not say has the reference alone.
                       const std::string& step = result.environment().step();
                       return step.empty() ? TrainingStepName(v1::TRAINING_STEP_REFERENCE) : step;
                     }));
}

void AddTelemetry(const std::vector<const v1::Run*>& runs, Lines& lines) {
  lines.emplace_back("SM clock", Telemetry(runs, "SM clock", [](const v1::GpuTelemetry& gpu) {
                       return absl::StrCat("median ", gpu.sm_clock_mhz_median(), " MHz, least ", gpu.sm_clock_mhz_min(),
                                           " MHz");
                     }));
  lines.emplace_back("memory clock", Telemetry(runs, "memory clock", [](const v1::GpuTelemetry& gpu) {
                       return absl::StrCat("median ", gpu.memory_clock_mhz_median(), " MHz");
                     }));
  lines.emplace_back("temperature", Telemetry(runs, "temperature", [](const v1::GpuTelemetry& gpu) {
                       return absl::StrCat("at most ", gpu.temperature_celsius_max(), " C");
                     }));
  lines.emplace_back("power", Telemetry(runs, "power", [](const v1::GpuTelemetry& gpu) {
                       return absl::StrFormat("mean %.0f W", gpu.power_watts_mean());
                     }));
  lines.emplace_back("throttling", Telemetry(runs, "throttle reasons", [](const v1::GpuTelemetry& gpu) {
                       return gpu.throttle_reasons().empty() ? "none seen"
                                                             : absl::StrJoin(gpu.throttle_reasons(), ", ");
                     }));
  lines.emplace_back(
      "ECC", Telemetry(runs, "ECC errors", [](const v1::GpuTelemetry& gpu) {
        return gpu.ecc_enabled() ? absl::StrCat("on, ", gpu.ecc_uncorrected_errors(), " uncorrected errors") : "off";
      }));
  lines.emplace_back("other processes", Each(runs, Processes));
  lines.emplace_back("contamination", Each(runs, Contamination));
}

// Every attempt that failed, and of those that decided the end of the trainer's log.
void AddFailures(const v1::Job& job, Lines& lines) {
  for (const v1::Run& run : job.runs()) {
    const auto add = [&](uint32_t attempt, const std::string& worker, const std::string& slot, const std::string& why) {
      lines.emplace_back("failed attempt", absl::StrCat("repetition ", run.key().repetition(), ", attempt ", attempt,
                                                        worker.empty() ? "" : " on ", worker, worker.empty() ? "" : " ",
                                                        slot, ": ", why));
    };
    for (const v1::AttemptFailure& one : run.failed_attempts()) {
      add(one.attempt(), one.worker(), one.slot(), one.reason());
    }
    const v1::RunResult& result = run.result();
    if (result.outcome() != v1::OUTCOME_FAILED) continue;
    const bool listed = !run.failed_attempts().empty() && run.failed_attempts().rbegin()->attempt() == run.attempt();
    if (!listed) add(run.attempt(), run.worker(), run.slot(), ReasonLine(result));
    const std::vector<std::string> log = absl::StrSplit(result.failure().log_tail(), '\n', absl::SkipWhitespace());
    const size_t first = log.size() - std::min(log.size(), kLogLines);
    for (size_t i = first; i < log.size(); ++i) lines.emplace_back(i == first ? "  end of its log" : "", log[i]);
  }
}

std::string Heading(const v1::Job& job) {
  const v1::JobSummary& summary = job.summary();
  std::string text = absl::StrCat(CellName(job), ": ");
  if (summary.outcome() != v1::OUTCOME_MEASURED) {
    return text + (summary.outcome() == v1::OUTCOME_UNSPECIFIED ? "no result yet"
                                                                : OutcomeLine(summary.outcome(), summary.reason()));
  }
  absl::StrAppend(&text, summary.measured_runs(), " of ", job.runs_size(), " runs measured");
  if (summary.contaminated_runs() == 0) return text;
  return absl::StrCat(text, ", ", summary.contaminated_runs(), " contaminated and ",
                      summary.includes_contaminated() ? "included" : "left out of the figures");
}

Lines CellLines(const v1::Job& job, absl::TimeZone zone) {
  std::vector<const v1::Run*> runs;
  for (const v1::Run& run : job.runs()) {
    if (run.result().outcome() == v1::OUTCOME_MEASURED) runs.push_back(&run);
  }
  Lines lines;
  AddFailures(job, lines);
  if (runs.empty()) return lines;
  AddFigures(job.summary(), lines);
  AddProof(runs, lines);
  AddPlace(runs, lines);
  const v1::JobSummary& summary = job.summary();
  lines.emplace_back("time", summary.started_unix_ms() > 0
                                 ? absl::StrCat(FormatUnixMs(summary.started_unix_ms(), zone), " to ",
                                                FormatUnixMs(summary.ended_unix_ms(), zone))
                                 : kUnknown);
  AddTelemetry(runs, lines);
  return lines;
}

}  // namespace

std::string ResultDetails(const std::vector<v1::Benchmark>& benchmarks, const std::string& where, int width,
                          absl::TimeZone zone) {
  std::string text;
  for (const v1::Benchmark& benchmark : benchmarks) {
    absl::StrAppend(&text, Printable(SpecCommand(benchmark.spec(), where)), "\n");
    for (const v1::Job& job : benchmark.jobs()) {
      absl::StrAppend(&text, "\n", Printable(Heading(job)), "\n");
      for (const auto& [label, value] : CellLines(job, zone)) {
        std::string first = PadRight("  " + label, kLabelWidth);
        for (const std::string& line : Wrap(Printable(value), width > 0 ? std::max(width - kLabelWidth, 1) : 0)) {
          absl::StrAppend(&text, first, line, "\n");
          first = PadRight("", kLabelWidth);
        }
      }
    }
  }
  return text;
}

}  // namespace attnfleet::client
