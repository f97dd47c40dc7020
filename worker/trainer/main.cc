// attnfleet-trainer-libtorch: one run. Started by attnfleet-trainer, which finds LibTorch for it.

#include <torch/headeronly/version.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/support/process.h"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/config.h"
#include "worker/trainer/cuda_module.h"
#include "worker/trainer/events.h"
#include "worker/trainer/exit_code.h"
#include "worker/trainer/gpu_watch.h"
#include "worker/trainer/host_memory.h"
#include "worker/trainer/nvml.h"
#include "worker/trainer/precision.h"
#include "worker/trainer/say.h"
#include "worker/trainer/training.h"
#include "worker/trainer/verify.h"

namespace attnfleet::trainer {
namespace {

volatile std::sig_atomic_t stop_requested = 0;

void RequestStop(int) { stop_requested = 1; }

// The first SIGTERM or Ctrl-C asks for a stop at the next step, a second one ends the process.
void InstallSignals() {
  struct sigaction action = {};
  action.sa_handler = RequestStop;
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write()
}

// Nobody can read what cannot be written, so a failure ends the process, at once and whatever its threads do.
void Emit(const std::string& line) {
  const absl::Status status = WriteLine(STDOUT_FILENO, line);
  if (status.ok()) return;
  Say(std::string(status.message()));
  std::_Exit(kExitFailed);
}

int ListBackends(bool json) {
  Capabilities capabilities;
  for (const Backend* backend : Backends()) {
    capabilities.backends.push_back({backend->name, backend->description, backend->cpu, backend->cuda});
  }
  if (!json) {
    std::string text;
    for (const BackendInfo& backend : capabilities.backends) {
      const char* const devices = backend.cpu && backend.cuda ? "cpu, cuda" : backend.cuda ? "cuda" : "cpu";
      absl::StrAppend(&text, absl::StrFormat("%-10s %-10s %s\n", backend.name, devices, backend.description));
    }
    text.pop_back();
    Emit(text);
    return kExitResult;
  }
  capabilities.libtorch_version = TORCH_VERSION;
  const char* const directory = std::getenv("ATTNFLEET_TORCH");
  if (directory != nullptr) capabilities.libtorch_directory = directory;
  const absl::Status cuda = LoadCudaModule();
  capabilities.cuda_module = cuda.ok();
  capabilities.cuda_module_error = std::string(cuda.message());
  Emit(CapabilitiesLine(capabilities));
  return kExitResult;
}

// Without --device=cuda on the CPU, whose fp32 is the bound's.
int Verify(const Config& config, const Backend& backend) {
  const bool on_cuda = config.device == Device::kCuda;
  absl::StatusOr<std::unique_ptr<CudaDevice>> cuda = nullptr;
  if (on_cuda) cuda = OpenCudaDevice();
  if (!cuda.ok()) {
    Say(absl::StrCat("--device=cuda: ", std::string(cuda.status().message())));
    return kExitFailed;
  }
  if (on_cuda ? !backend.cuda : !backend.cpu) {
    Say(absl::StrCat("--verify: ", backend.name, " does not run on ", on_cuda ? "CUDA" : "the CPU"));
    return kExitUsage;
  }
  SetFp32Products(Precision::kFp32);
  const absl::StatusOr<ModelCase> model_case = ModelCase::Read(config.verify);
  const auto compare = [&]() -> absl::StatusOr<CaseError> {
    if (!model_case.ok()) return model_case.status();
    Model model = model_case->MakeModel(on_cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU));
    return model_case->Compare(model, backend, config.step);
  };
  const absl::StatusOr<CaseError> error = compare();
  if (!error.ok()) {
    Say(absl::StrCat("--verify: ", std::string(error.status().message())));
    return kExitUsage;
  }
  Emit(Report(config.verify, model_case->config(), *error));
  return error->Within(kVerifyBound) ? kExitResult : kExitFailed;
}

int Train(const Config& config, const Backend& backend) {
  const Nvml nvml(config.device == Device::kCpu ? NvmlFunctions() : LoadNvml());
  GpuWatch watch(nvml);  // before there is a context on a GPU
  std::unique_ptr<CudaDevice> cuda;
  if (config.device != Device::kCpu) {
    absl::StatusOr<std::unique_ptr<CudaDevice>> opened = OpenCudaDevice();
    if (opened.ok()) {
      cuda = *std::move(opened);
    } else if (config.device == Device::kCuda) {
      Say(absl::StrCat("--device=cuda: ", std::string(opened.status().message())));
      return kExitFailed;
    } else {
      Say(absl::StrCat("on the CPU: ", std::string(opened.status().message())));
    }
  }
  if (cuda == nullptr) LimitHostMemory();
  RunHooks hooks;
  hooks.started = [](const Environment& environment, int64_t parameters) {
    Emit(StartedLine(environment, parameters, RequestId()));
  };
  hooks.progress = [](const Progress& progress) { Emit(ProgressLine(progress)); };
  hooks.notice = Say;
  hooks.stop_requested = [] { return stop_requested != 0; };
  const RunResult result = RunTraining(config, backend, cuda.get(), hooks, &watch);
  if (result.outcome != Outcome::kMeasured) Say(result.reason);
  Emit(ResultLine(result));
  return result.outcome == Outcome::kFailed ? kExitFailed : kExitResult;
}

int Main(int argc, char** argv) {
  const absl::StatusOr<Config> config = ParseCommandLine(argc, argv);
  if (!config.ok()) {
    Say(std::string(config.status().message()));
    return kExitUsage;
  }
  if (config->parent_pid != 0) {
    const absl::Status status = DieWithParent(config->parent_pid, SIGKILL);
    if (!status.ok()) {
      Say(std::string(status.message()));
      return kExitFailed;
    }
  }
  InstallSignals();
  // LibTorch's profiler would call it an error that there is no GPU.
  setenv("KINETO_LOG_LEVEL", "5", /*overwrite=*/0);
  if (config->list_backends) return ListBackends(config->json);
  const absl::StatusOr<const Backend*> backend = FindBackend(config->backend);
  if (!backend.ok()) {
    Say(std::string(backend.status().message()));
    return kExitUsage;
  }
  if (!config->verify.empty()) return Verify(*config, **backend);
  return Train(*config, **backend);
}

}  // namespace
}  // namespace attnfleet::trainer

int main(int argc, char** argv) { return attnfleet::trainer::Main(argc, argv); }
