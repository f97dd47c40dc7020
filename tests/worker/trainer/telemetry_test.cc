#include "worker/trainer/telemetry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnfleet::trainer {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kMebibyte = 1 << 20;
constexpr int64_t kOwn = 4000;
constexpr int64_t kOwnBytes = 9000 * kMebibyte;

// One sample of an H100 as nvidia-smi shows it under load.
GpuSample Sample(int clock, uint64_t reasons, std::vector<GpuProcess> processes = {{kOwn, kOwnBytes}}) {
  GpuSample sample;
  sample.sm_clock_mhz = clock;
  sample.memory_clock_mhz = 2619;
  sample.temperature_celsius = 61;
  sample.power_watts = 640.5;
  sample.throttle_reasons = reasons;
  sample.used_bytes = kOwnBytes + 4 * kMebibyte;
  sample.processes = std::move(processes);
  return sample;
}

// A run alone on its card, on a host whose processes it sees.
GpuRecord Clean() {
  GpuRecord record;
  record.processes_before.emplace();
  record.processes_after = {{kOwn, kOwnBytes}};
  record.used_bytes_before = 4 * kMebibyte;
  for (const int clock : {1980, 1965, 1980, 1965, 1980, 1965, 1980, 1965}) record.samples.push_back(Sample(clock, 0));
  record.begin = {1000.0, true, 3};
  record.end = {1600.0, true, 3};
  record.seconds = 1;
  record.own_pid = kOwn;
  record.sees_all_processes = true;
  return record;
}

TEST(Telemetry, CleanRunHasItsFiguresAndNothingAgainstIt) {
  const GpuTelemetry telemetry = Summarise(Clean());
  EXPECT_EQ(telemetry.samples, 8);
  EXPECT_EQ(telemetry.sm_clock_mhz_median, 1972);
  EXPECT_EQ(telemetry.sm_clock_mhz_min, 1965);
  EXPECT_EQ(telemetry.memory_clock_mhz_median, 2619);
  EXPECT_EQ(telemetry.temperature_celsius_max, 61);
  EXPECT_NEAR(telemetry.power_watts_mean, 640.5, 1e-9);
  EXPECT_EQ(telemetry.energy_joules, 600);
  EXPECT_TRUE(telemetry.ecc_enabled);
  EXPECT_EQ(telemetry.ecc_uncorrected_errors, 0);
  EXPECT_THAT(telemetry.throttle_reasons, IsEmpty());
  EXPECT_THAT(telemetry.other_processes, IsEmpty());
  EXPECT_THAT(telemetry.unknown, IsEmpty());
  EXPECT_THAT(Contamination(Clean()), IsEmpty());
}

TEST(Telemetry, WithoutNvmlEverythingIsUnknown) {
  const GpuTelemetry telemetry = Summarise(GpuRecord());
  EXPECT_THAT(telemetry.unknown, ElementsAre("SM clock", "memory clock", "temperature", "power", "throttle reasons",
                                             "energy", "ECC errors", "memory of others", "other processes"));
  EXPECT_THAT(Contamination(GpuRecord()), IsEmpty());
}

TEST(Telemetry, ClockReasonsOfEveryRunAreNoContamination) {
  GpuRecord record = Clean();
  for (GpuSample& sample : record.samples) sample.throttle_reasons = 0x1 | 0x2 | 0x4 | 0x100;
  EXPECT_THAT(Summarise(record).throttle_reasons,
              ElementsAre("idle", "application clocks", "power cap", "display clocks"));
  EXPECT_THAT(Contamination(record), IsEmpty());
}

TEST(Telemetry, SlowdownsOfTheCardContaminate) {
  const std::pair<uint64_t, const char*> reasons[] = {{0x8, "hardware slowdown"},
                                                      {0x20, "software thermal slowdown"},
                                                      {0x40, "hardware thermal slowdown"},
                                                      {0x80, "power brake"}};
  for (const auto& [bit, name] : reasons) {
    GpuRecord record = Clean();
    record.samples[3].throttle_reasons = bit | 0x4;  // in one sample alone
    EXPECT_THAT(Summarise(record).throttle_reasons, Contains(name));
    EXPECT_THAT(Contamination(record), ElementsAre(name));
  }
}

TEST(Telemetry, PowerCapContaminatesOnceTheClockFell) {
  GpuRecord record = Clean();
  record.samples.clear();
  for (const int clock : {1980, 1980, 1965, 1920, 1890, 1860, 1845, 1830}) record.samples.push_back(Sample(clock, 0x4));
  EXPECT_THAT(Contamination(record),
              ElementsAre("power cap: the SM clock fell by 7 % (a longer --warmup lets it settle first)"));
  for (GpuSample& sample : record.samples) sample.throttle_reasons = 0;
  EXPECT_THAT(Contamination(record), IsEmpty());
}

TEST(Telemetry, UnknownClockReasonKeepsItsBit) {
  GpuRecord record = Clean();
  record.samples[0].throttle_reasons = 0x800;
  EXPECT_THAT(Summarise(record).throttle_reasons, ElementsAre("reason 0x800"));
}

TEST(Telemetry, OtherProcessContaminatesAndIsNamed) {
  GpuRecord record = Clean();
  record.samples[5].processes->push_back({77, 600 * kMebibyte});
  record.processes_after->push_back({77, 500 * kMebibyte});
  record.process_names[77] = "python3";
  const GpuTelemetry telemetry = Summarise(record);
  ASSERT_EQ(telemetry.other_processes.size(), 1u);
  EXPECT_EQ(telemetry.other_processes[0].pid, 77);
  EXPECT_EQ(telemetry.other_processes[0].name, "python3");
  EXPECT_EQ(telemetry.other_processes[0].used_bytes, 600 * kMebibyte);
  EXPECT_THAT(telemetry.other_processes[0].phases, ElementsAre("during", "after"));
  EXPECT_THAT(telemetry.unknown, IsEmpty());
  EXPECT_THAT(Contamination(record), ElementsAre("other processes on the GPU: python3 77"));
}

TEST(Telemetry, ProcessThatLeftBeforeTheTimedStepsIsToldAndHarmless) {
  GpuRecord record = Clean();
  record.processes_before = {{77, std::nullopt}};
  EXPECT_THAT(Summarise(record).other_processes.at(0).phases, ElementsAre("before"));
  EXPECT_THAT(Contamination(record), IsEmpty());
}

// As in a container: own process under a number of the host, or none listed at all.
TEST(Telemetry, OwnProcessUnderAForeignNumberIsNoOther) {
  GpuRecord record = Clean();
  record.sees_all_processes = false;
  record.own_pid = 12;
  EXPECT_THAT(Summarise(record).other_processes, IsEmpty());
  EXPECT_THAT(Summarise(record).unknown, ElementsAre("other processes"));
  EXPECT_THAT(Contamination(record), IsEmpty());
  record.processes_before = {{77, kMebibyte}};
  record.samples[0].processes->push_back({77, kMebibyte});
  EXPECT_EQ(Summarise(record).other_processes.at(0).pid, 77);
  EXPECT_THAT(Contamination(record), ElementsAre("other processes on the GPU: 77"));
}

TEST(Telemetry, OwnNumberThatSomebodyElseHadBeforeIsNotTakenForOurs) {
  GpuRecord record = Clean();
  record.sees_all_processes = false;
  record.processes_before = {{kOwn, kOwnBytes}};
  EXPECT_EQ(Summarise(record).other_processes.at(0).pid, kOwn);
  EXPECT_THAT(Contamination(record), Contains(HasSubstr("other processes")));
}

TEST(Telemetry, TwoNewProcessesOfWhichOneIsOursContaminate) {
  GpuRecord record = Clean();
  record.sees_all_processes = false;
  record.own_pid = 12;
  record.samples[4].processes->push_back({78, kMebibyte});
  EXPECT_THAT(Summarise(record).other_processes, IsEmpty());
  EXPECT_THAT(Summarise(record).unknown, Contains("other processes"));
  EXPECT_THAT(Contamination(record), ElementsAre("other processes on the GPU: 1 began during the run"));
}

TEST(Telemetry, ListsThatLackThisProcessProveNothing) {
  GpuRecord record = Clean();
  record.processes_after->clear();
  for (GpuSample& sample : record.samples) sample.processes->clear();
  EXPECT_THAT(Summarise(record).unknown, ElementsAre("other processes"));
  EXPECT_THAT(Contamination(record), IsEmpty());
}

TEST(Telemetry, MissingListIsUnknown) {
  GpuRecord record = Clean();
  record.processes_before.reset();
  EXPECT_THAT(Summarise(record).unknown, ElementsAre("other processes"));
  record = Clean();
  record.processes_after.reset();
  EXPECT_THAT(Summarise(record).unknown, ElementsAre("other processes"));
}

TEST(Telemetry, MemoryThatNobodyListedOwnsContaminates) {
  GpuRecord record = Clean();
  record.sees_all_processes = false;
  record.samples[2].used_bytes = kOwnBytes + 700 * kMebibyte;
  EXPECT_THAT(Contamination(record), ElementsAre("others hold 700 MiB of the GPU's memory"));
}

TEST(Telemetry, MemoryOfOthersShowsWhereNoProcessIsListed) {
  GpuRecord record = Clean();
  record.sees_all_processes = false;
  record.processes_after->clear();
  for (GpuSample& sample : record.samples) sample.processes->clear();
  record.samples[6].used_bytes = *record.samples[6].used_bytes + 900 * kMebibyte;
  EXPECT_THAT(Contamination(record), ElementsAre("the memory that others hold on the GPU changed by 900 MiB"));
  record.own_growth_bytes = 800 * kMebibyte;
  EXPECT_THAT(Contamination(record), IsEmpty());
  record.used_bytes_before = 3000 * kMebibyte;
  EXPECT_THAT(Contamination(record), ElementsAre("3000 MiB of the GPU's memory were in use before the run"));
}

TEST(Telemetry, NewEccErrorsContaminateOldOnesDoNot) {
  GpuRecord record = Clean();
  record.end.ecc_uncorrected_errors = 5;
  EXPECT_EQ(Summarise(record).ecc_uncorrected_errors, 2);
  EXPECT_THAT(Contamination(record), ElementsAre("uncorrected ECC errors: 2"));
}

TEST(Telemetry, EccThatIsOffIsKnown) {
  GpuRecord record = Clean();
  record.begin.ecc_uncorrected_errors.reset();
  record.end = {1600.0, false, std::nullopt};
  EXPECT_FALSE(Summarise(record).ecc_enabled);
  EXPECT_THAT(Summarise(record).unknown, IsEmpty());
}

TEST(Telemetry, EnergyOfAWindowTooShortForItsCounterIsUnknown) {
  GpuRecord record = Clean();
  record.seconds = 0.1;
  EXPECT_EQ(Summarise(record).energy_joules, 0);
  EXPECT_THAT(Summarise(record).unknown, ElementsAre("energy"));
}

}  // namespace
}  // namespace attnfleet::trainer
