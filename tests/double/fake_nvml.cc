// A driver's library that tells of two GPUs. The second one has no sensor of power. With ATTNFLEET_FAKE_NVML=hang no
// reading of a sensor returns, as when the driver hangs.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int kSuccess = 0;
constexpr int kNotSupported = 3;
constexpr int kNotFound = 6;

int cards[2];  // a handle is the address of its card

long Index(const void* device) { return static_cast<const int*>(device) - cards; }

struct Memory {
  unsigned long long total, free, used;
};

struct Utilization {
  unsigned gpu, memory;
};

}  // namespace

extern "C" {

int nvmlInit_v2() { return kSuccess; }
int nvmlShutdown() { return kSuccess; }
const char* nvmlErrorString(int) { return "pretended"; }

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 2;
  return kSuccess;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = &cards[index];
  return kSuccess;
}

int nvmlDeviceGetUUID(void* device, char* text, unsigned length) {
  std::snprintf(text, length, "GPU-fake-%ld", Index(device));
  return kSuccess;
}

int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  for (int& card : cards) {
    char text[32];
    nvmlDeviceGetUUID(&card, text, sizeof text);
    *device = &card;
    if (std::strcmp(text, uuid) == 0) return kSuccess;
  }
  return kNotFound;
}

int nvmlDeviceGetName(void*, char* text, unsigned length) {
  std::snprintf(text, length, "Fake GPU");
  return kSuccess;
}

int nvmlDeviceGetMemoryInfo(void*, Memory* memory) {
  *memory = {80'000'000'000, 79'000'000'000, 1'000'000'000};
  return kSuccess;
}

int nvmlDeviceGetTemperature(void* device, int, unsigned* celsius) {
  const char* const behaviour = std::getenv("ATTNFLEET_FAKE_NVML");
  while (behaviour != nullptr && std::strcmp(behaviour, "hang") == 0) pause();
  *celsius = 41 + static_cast<unsigned>(Index(device));
  return kSuccess;
}

int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  *milliwatts = 250'500;
  return Index(device) == 0 ? kSuccess : kNotSupported;
}

int nvmlDeviceGetUtilizationRates(void*, Utilization* utilization) {
  *utilization = {75, 10};
  return kSuccess;
}

int nvmlDeviceGetClockInfo(void*, int type, unsigned* megahertz) {
  *megahertz = type == 1 ? 1'980 : 2'619;
  return kSuccess;
}

}  // extern "C"
