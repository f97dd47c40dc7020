#include "worker/trainer/nvml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "worker/trainer/gpu_watch.h"

namespace attnfleet::trainer {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr char kUuid[] = "GPU-00000000-0000-0000-0000-000000000001";
constexpr int kNotSupported = 3;

int device_handle;

// A driver of one GPU that answers everything.
NvmlFunctions FakeNvml() {
  NvmlFunctions nvml;
  nvml.init = [] { return 0; };
  nvml.driver_version = [](char* text, unsigned) { return std::strcpy(text, "580.65") == nullptr ? 1 : 0; };
  nvml.count = [](unsigned* count) { return static_cast<int>(*count = 1) - 1; };
  nvml.by_index = [](unsigned, NvmlDevice* device) { return *device = &device_handle, 0; };
  nvml.uuid = [](NvmlDevice, char* text, unsigned) { return std::strcpy(text, kUuid) == nullptr ? 1 : 0; };
  nvml.clock = [](NvmlDevice, int type, unsigned* value) { return *value = type == 1 ? 1980 : 2619, 0; };
  nvml.temperature = [](NvmlDevice, int, unsigned* value) { return *value = 55, 0; };
  nvml.power = [](NvmlDevice, unsigned* value) { return *value = 612'345, 0; };
  nvml.throttle_reasons = [](NvmlDevice, unsigned long long* value) { return *value = 4, 0; };
  nvml.energy = [](NvmlDevice, unsigned long long* value) { return *value = 7'500, 0; };
  nvml.ecc_mode = [](NvmlDevice, int* current, int* pending) { return *current = *pending = 1, 0; };
  nvml.ecc_errors = [](NvmlDevice, int type, int, unsigned long long* value) { return *value = type == 1 ? 2 : 99, 0; };
  nvml.memory = [](NvmlDevice, NvmlMemory* memory) {
    memory->used = 1000;
    return memory->version == (40u | 2u << 24) ? 0 : kNotSupported;
  };
  nvml.compute_processes = [](NvmlDevice, unsigned* count, NvmlProcessInfo* list) {
    list[0] = {10, 4096, 0, 0};
    list[1] = {11, ~0ULL, 0, 0};
    return *count = 2, 0;
  };
  nvml.graphics_processes = [](NvmlDevice, unsigned* count, NvmlProcessInfo* list) {
    list[0] = {10, 4096, 0, 0};  // does both
    list[1] = {12, 1, 0, 0};
    return *count = 2, 0;
  };
  return nvml;
}

TEST(Nvml, ReadsWhatTheDriverSays) {
  const Nvml nvml(FakeNvml());
  EXPECT_THAT(nvml.Uuids(), ElementsAre(kUuid));
  EXPECT_EQ(nvml.DriverVersion(), "580.65");
  const GpuSample sample = nvml.Sample(kUuid);
  EXPECT_EQ(sample.sm_clock_mhz, 1980);
  EXPECT_EQ(sample.memory_clock_mhz, 2619);
  EXPECT_EQ(sample.temperature_celsius, 55);
  EXPECT_DOUBLE_EQ(sample.power_watts.value(), 612.345);
  EXPECT_EQ(sample.throttle_reasons, 4u);
  EXPECT_EQ(sample.used_bytes, 1000);
  ASSERT_TRUE(sample.processes.has_value());
  ASSERT_EQ(sample.processes->size(), 3u);
  EXPECT_EQ((*sample.processes)[0].used_bytes, 4096);
  EXPECT_FALSE((*sample.processes)[1].used_bytes.has_value());
  EXPECT_EQ((*sample.processes)[2].pid, 12);
  const GpuCounters counters = nvml.Counters(kUuid);
  EXPECT_DOUBLE_EQ(counters.energy_joules.value(), 7.5);
  EXPECT_EQ(counters.ecc_enabled, true);
  EXPECT_EQ(counters.ecc_uncorrected_errors, 2);
}

TEST(Nvml, WhatTheDriverRefusesIsMissing) {
  NvmlFunctions functions = FakeNvml();
  functions.power = [](NvmlDevice, unsigned*) { return kNotSupported; };
  functions.graphics_processes = [](NvmlDevice, unsigned*, NvmlProcessInfo*) { return kNotSupported; };
  functions.energy = nullptr;
  const Nvml nvml(functions);
  EXPECT_FALSE(nvml.Sample(kUuid).power_watts.has_value());
  EXPECT_EQ(nvml.Sample(kUuid).processes->size(), 2u);
  EXPECT_FALSE(nvml.Counters(kUuid).energy_joules.has_value());
  functions.compute_processes = [](NvmlDevice, unsigned*, NvmlProcessInfo*) { return kNotSupported; };
  EXPECT_FALSE(Nvml(functions).Sample(kUuid).processes.has_value());
}

TEST(Nvml, WithoutADriverNothingIsKnown) {
  const Nvml nvml((NvmlFunctions()));
  EXPECT_THAT(nvml.Uuids(), IsEmpty());
  EXPECT_EQ(nvml.DriverVersion(), "");
  EXPECT_FALSE(nvml.Sample(kUuid).sm_clock_mhz.has_value());
  EXPECT_FALSE(nvml.Counters(kUuid).ecc_enabled.has_value());
  EXPECT_FALSE(nvml.Processes(kUuid).has_value());
  EXPECT_EQ(nvml.ProcessName(1), "");
}

TEST(Nvml, AnotherGpuIsUnknown) { EXPECT_FALSE(Nvml(FakeNvml()).Sample("GPU-2").sm_clock_mhz.has_value()); }

TEST(GpuWatch, SamplesFromBeginToEnd) {
  const Nvml nvml(FakeNvml());
  GpuWatch watch(nvml, std::chrono::milliseconds(1));
  watch.Begin(kUuid);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const GpuRecord record = watch.End();
  EXPECT_GE(record.samples.size(), 2u);
  EXPECT_GE(record.seconds, 0.05);
  EXPECT_EQ(record.used_bytes_before, 1000);
  EXPECT_EQ(record.processes_before->size(), 3u);
  EXPECT_EQ(record.processes_after->size(), 3u);
  EXPECT_EQ(record.begin.energy_joules, 7.5);
  EXPECT_EQ(record.end.energy_joules, 7.5);
}

TEST(GpuWatch, ShortWindowHasOneSampleAndTheNextOneBeginsAnew) {
  const Nvml nvml(FakeNvml());
  GpuWatch watch(nvml, std::chrono::hours(1));
  watch.Begin(kUuid);  // as if the run failed
  watch.Begin(kUuid);
  EXPECT_EQ(watch.End().samples.size(), 1u);
  watch.Begin(kUuid);
  EXPECT_EQ(watch.End().samples.size(), 1u);
}

}  // namespace
}  // namespace attnfleet::trainer
