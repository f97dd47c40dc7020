#include "worker/trainer/environment.h"

#include <ATen/Parallel.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "worker/trainer/build_id.h"
#include "worker/trainer/host_memory.h"
#include "worker/trainer/precision.h"

namespace attnfleet::trainer {
namespace {

// The text after the colon of the first line of a /proc file that starts with `key`; empty if there is none.
std::string ProcValue(const char* path, const char* key) {
  std::string line;
  for (std::ifstream stream(path); std::getline(stream, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || !absl::StartsWith(line, key)) continue;
    return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return "";
}

}  // namespace

Environment DescribeEnvironment(CudaDevice* cuda, Precision precision, uint64_t seed) {
  Environment environment;
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  environment.host = host;
  if (cuda != nullptr) {
    const CudaDeviceInfo info = cuda->Info();
    environment.cuda = true;
    environment.device_name = info.name;
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    const std::string instance = FirstMigInstance(visible == nullptr ? "" : visible);
    environment.device_uuid = instance.empty() ? info.uuid : instance;
    environment.device_memory_bytes = info.memory_bytes;
    environment.driver_version = info.driver_version;
    environment.cuda_version = info.cuda_version;
    environment.cudnn_version = info.cudnn_version;
  } else {
    environment.device_name = ProcValue("/proc/cpuinfo", "model name");
    environment.device_memory_bytes = ReadHostMemory().total_bytes;
  }
  environment.libtorch_version = TORCH_VERSION;
  environment.cpu_threads = at::get_num_threads();
  environment.precision = PrecisionName(precision);
  environment.seed = seed;
  environment.build_id = BuildId();
  return environment;
}

std::string FirstMigInstance(std::string_view cuda_visible_devices) {
  const std::string_view first = cuda_visible_devices.substr(0, cuda_visible_devices.find(','));
  return first.rfind("MIG-", 0) == 0 ? std::string(first) : "";
}

// Not getrusage: its figure survives exec, so it could be the launcher's.
int64_t PeakResidentBytes() { return std::atoll(ProcValue("/proc/self/status", "VmHWM").c_str()) * 1024; }

}  // namespace attnfleet::trainer
