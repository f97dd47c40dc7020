#include "worker/trainer/training.h"

#include <exception>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "worker/trainer/environment.h"
#include "worker/trainer/failure.h"
#include "worker/trainer/host_memory.h"
#include "worker/trainer/precision.h"
#include "worker/trainer/run.h"

namespace attnfleet::trainer {
namespace {

std::string FirstLine(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

void SetOutOfMemory(RunResult& result, const char* stage, std::string_view message) {
  result.outcome = Outcome::kOutOfMemory;
  result.reason = absl::StrCat("out of memory in ", stage, ": ", FirstLine(message));
  result.memory_phase = stage;
  result.out_of_memory = ParseOutOfMemory(message);
  if (result.out_of_memory.host_memory) {
    result.out_of_memory.total_bytes = ReadHostMemory().total_bytes;
    result.out_of_memory.free_bytes = LeastFreeHostBytes();
  }
}

void SetFailed(RunResult& result, const char* stage, std::string_view message) {
  result.outcome = Outcome::kFailed;
  result.reason = absl::StrCat("failed in ", stage, ": ", FirstLine(message));
}

}  // namespace

RunResult RunTraining(const Config& given, const Backend& backend, CudaDevice* cuda, const RunHooks& hooks,
                      GpuWatch* watch) {
  Config config = given;
  config.precision = ResolvePrecision(config.precision, cuda != nullptr);
  SetFp32Products(config.precision);
  RunResult result;
  result.environment.cuda = cuda != nullptr;
  Run run(config, backend, cuda, hooks, watch);
  try {
    result.environment = DescribeEnvironment(cuda, config.precision, config.seed);
    result.environment.step = StepName(config.step);
    if (const absl::Status data = run.ReadDocuments(); !data.ok()) {
      result.reason = absl::StrCat("--data: ", std::string(data.message()));
      return result;  // failed
    }
    if (const std::optional<std::string> refusal = run.Refusal()) {
      result.outcome = Outcome::kUnsupported;
      result.reason = *refusal;
      return result;
    }
    result.measurement = run.Measure(result.environment);
    if (run.gpu_record().has_value()) {
      result.telemetry = Summarise(*run.gpu_record());
      result.measurement.energy_joules_per_iteration =
          result.telemetry->energy_joules / static_cast<double>(result.measurement.step_seconds.size());
      result.contamination = Contamination(*run.gpu_record());
    }
    result.outcome = Outcome::kMeasured;
  } catch (const Cancelled&) {
    result.outcome = Outcome::kCancelled;
    result.reason = "stopped by a signal";
  } catch (const std::exception&) {
    const Failure failure = DescribeCurrentException();
    if (failure.out_of_memory) {
      SetOutOfMemory(result, run.stage(), failure.message);
    } else {
      SetFailed(result, run.stage(), failure.message);
    }
  }
  return result;
}

}  // namespace attnfleet::trainer
