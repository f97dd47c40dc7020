#include "worker/trainer/events.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>

#include "worker/trainer/statistics.h"

namespace attnfleet::trainer {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no NaN and no infinity; protobuf JSON writes them as strings.
Json Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

// Text that a driver or an exception gave may be no UTF-8: replace what is not, rather than throw.
std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

const char* PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kSetup:
      return "TRAINER_PHASE_SETUP";
    case Phase::kWarmup:
      return "TRAINER_PHASE_WARMUP";
    case Phase::kTimed:
      return "TRAINER_PHASE_TIMED";
  }
  return "TRAINER_PHASE_UNSPECIFIED";
}

const char* OutcomeName(Outcome outcome) {
  switch (outcome) {
    case Outcome::kMeasured:
      return "OUTCOME_MEASURED";
    case Outcome::kOutOfMemory:
      return "OUTCOME_OUT_OF_MEMORY";
    case Outcome::kUnsupported:
      return "OUTCOME_UNSUPPORTED";
    case Outcome::kFailed:
      return "OUTCOME_FAILED";
    case Outcome::kCancelled:
      return "OUTCOME_CANCELLED";
  }
  return "OUTCOME_UNSPECIFIED";
}

Json ToJson(const Environment& environment) {
  return {{"host", environment.host},
          {"device_kind", environment.cuda ? "DEVICE_KIND_CUDA" : "DEVICE_KIND_CPU"},
          {"device_name", environment.device_name},
          {"device_uuid", environment.device_uuid},
          {"device_memory_bytes", environment.device_memory_bytes},
          {"driver_version", environment.driver_version},
          {"cuda_version", environment.cuda_version},
          {"libtorch_version", environment.libtorch_version},
          {"cudnn_version", environment.cudnn_version},
          {"cpu_threads", environment.cpu_threads},
          {"precision", environment.precision},
          {"seed", environment.seed},
          {"build_id", environment.build_id},
          {"step", environment.step},
          {"attnfleet_version", ATTNFLEET_VERSION}};
}

Json ToJson(const NumericalCheck& check) {
  return {{"samples", check.samples},
          {"output_error", Number(check.output_error)},
          {"loss_error", Number(check.loss_error)},
          {"gradient_error", Number(check.gradient_error)},
          {"gradient_worst", check.gradient_worst},
          {"skipped", check.skipped}};
}

Json ToJson(const GpuTelemetry& telemetry) {
  Json processes = Json::array();
  for (const OtherProcess& process : telemetry.other_processes) {
    processes.push_back(
        {{"pid", process.pid}, {"name", process.name}, {"used_bytes", process.used_bytes}, {"phases", process.phases}});
  }
  return {{"samples", telemetry.samples},
          {"sm_clock_mhz_median", telemetry.sm_clock_mhz_median},
          {"sm_clock_mhz_min", telemetry.sm_clock_mhz_min},
          {"memory_clock_mhz_median", telemetry.memory_clock_mhz_median},
          {"temperature_celsius_max", telemetry.temperature_celsius_max},
          {"power_watts_mean", Number(telemetry.power_watts_mean)},
          {"energy_joules", Number(telemetry.energy_joules)},
          {"throttle_reasons", telemetry.throttle_reasons},
          {"other_processes", std::move(processes)},
          {"ecc_uncorrected_errors", telemetry.ecc_uncorrected_errors},
          {"ecc_enabled", telemetry.ecc_enabled},
          {"unknown", telemetry.unknown}};
}

Json ToJson(const Measurement& measurement) {
  const std::vector<double>& steps = measurement.step_seconds;
  Json step_seconds = Json::array();
  for (const double seconds : steps) step_seconds.push_back(Number(seconds));
  Json json = {{"timed_steps", steps.size()},
               {"wall_seconds", Number(measurement.wall_seconds)},
               {"iterations_per_second", Number(static_cast<double>(steps.size()) / measurement.wall_seconds)},
               {"step_seconds_median", Number(Quantile(steps, 0.5))},
               {"step_seconds_p90", Number(Quantile(steps, 0.9))},
               {"step_seconds_p99", Number(Quantile(steps, 0.99))},
               {"data_wait_seconds", Number(measurement.data_wait_seconds)},
               {"peak_allocated_bytes", measurement.peak_allocated_bytes},
               {"peak_reserved_bytes", measurement.peak_reserved_bytes},
               {"peak_device_bytes", measurement.peak_device_bytes},
               {"peak_resident_bytes", measurement.peak_resident_bytes},
               {"first_loss", Number(measurement.first_loss)},
               {"last_loss", Number(measurement.last_loss)},
               {"warmup_steps", measurement.warmup_steps},
               {"warmup_stable", measurement.warmup_stable},
               {"iterations_per_second_low", Number(measurement.iterations_per_second_low)},
               {"iterations_per_second_high", Number(measurement.iterations_per_second_high)},
               {"energy_joules_per_iteration", Number(measurement.energy_joules_per_iteration)},
               {"attention_kernels", measurement.attention_kernels},
               {"attention_kernels_unknown", measurement.attention_kernels_unknown},
               {"model_bytes", measurement.model_bytes},
               {"gradient_bytes", measurement.gradient_bytes},
               {"optimizer_bytes", measurement.optimizer_bytes},
               {"activation_bytes", measurement.activation_bytes},
               {"model_flops_per_iteration", Number(measurement.model_flops_per_iteration)},
               {"peak_flops_per_second", Number(measurement.peak_flops_per_second)},
               {"tokens_per_iteration", measurement.tokens_per_iteration},
               {"attention_dropout_placement", measurement.dropout_placement == DropoutPlacement::kOutput
                                                   ? "DROPOUT_PLACEMENT_OUTPUT"
                                                   : "DROPOUT_PLACEMENT_PROBABILITIES"},
               {"step_seconds", std::move(step_seconds)}};
  if (measurement.numerical_check.has_value()) json["numerical_check"] = ToJson(*measurement.numerical_check);
  return json;
}

}  // namespace

std::string StartedLine(const Environment& environment, int64_t parameter_count, const std::string& request_id) {
  return Dump(
      {{"started",
        {{"environment", ToJson(environment)}, {"parameter_count", parameter_count}, {"request_id", request_id}}}});
}

std::string ProgressLine(const Progress& progress) {
  return Dump({{"progress",
                {{"phase", PhaseName(progress.phase)},
                 {"steps_done", progress.steps_done},
                 {"steps_total", progress.steps_total},
                 {"elapsed_seconds", Number(progress.elapsed_seconds)},
                 {"remaining_seconds", Number(progress.remaining_seconds)}}}});
}

std::string ResultLine(const RunResult& result) {
  Json json = {{"outcome", OutcomeName(result.outcome)}, {"reason", result.reason}};
  if (result.outcome == Outcome::kMeasured) json["measurement"] = ToJson(result.measurement);
  if (result.outcome == Outcome::kOutOfMemory) {
    json["out_of_memory"] = {{"requested_bytes", result.out_of_memory.requested_bytes},
                             {"free_bytes", result.out_of_memory.free_bytes},
                             {"total_bytes", result.out_of_memory.total_bytes},
                             {"host_memory", result.out_of_memory.host_memory},
                             {"phase", result.memory_phase}};
  }
  if (!result.contamination.empty()) json["contamination"] = result.contamination;
  if (result.telemetry.has_value()) json["telemetry"] = ToJson(*result.telemetry);
  json["environment"] = ToJson(result.environment);
  return Dump({{"result", std::move(json)}});
}

std::string CapabilitiesLine(const Capabilities& capabilities) {
  Json backends = Json::array();
  for (const BackendInfo& backend : capabilities.backends) {
    Json devices = Json::array();
    if (backend.cpu) devices.push_back("DEVICE_KIND_CPU");
    if (backend.cuda) devices.push_back("DEVICE_KIND_CUDA");
    backends.push_back({{"name", backend.name}, {"description", backend.description}, {"devices", std::move(devices)}});
  }
  return Dump(
      {{"backends", std::move(backends)},
       {"libtorch_version", capabilities.libtorch_version},
       {"libtorch_directory", capabilities.libtorch_directory},
       {"cuda_module", capabilities.cuda_module},
       {"cuda_module_error", capabilities.cuda_module_error},
       {"trainer_version", ATTNFLEET_VERSION},
       {"steps", Json::array({"TRAINING_STEP_REFERENCE", "TRAINING_STEP_FUSED", "TRAINING_STEP_FUSED_BF16_STREAM"})}});
}

absl::Status WriteLine(int descriptor, const std::string& line) {
  const std::string text = line + "\n";
  for (size_t written = 0; written < text.size();) {
    const ssize_t count = write(descriptor, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, "cannot write to standard output");
    written += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

}  // namespace attnfleet::trainer
