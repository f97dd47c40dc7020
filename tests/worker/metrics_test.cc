#include "worker/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "support.h"
#include "worker/gpu_telemetry.h"

namespace attnfleet::worker {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::string Text(const prometheus::Collectable& collectable) {
  return prometheus::TextSerializer().Serialize(collectable.Collect());
}

TEST(Metrics, WhatRunsIsThereWhileItRuns) {
  Metrics metrics({CpuSlot("cpu0"), CpuSlot("cpu1")});
  const v1::StartRun start = MakeStart(1, 1, "cpu1", "sdpa");
  metrics.TrainerStarted(start);
  std::string text = Text(metrics);
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_trainer_starts_total 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_slots{state=\"busy\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_slots{state=\"idle\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_run_info{slot=\"cpu1\",backend=\"sdpa\""));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_connected 0\n"));
  metrics.TrainerEnded(start, v1::OUTCOME_OUT_OF_MEMORY);
  metrics.SetConnected(true);
  metrics.SetUndelivered(3);
  metrics.SetOutOfService(1);
  text = Text(metrics);
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_trainer_exits_total{outcome=\"out_of_memory\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_slots{state=\"busy\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_slots{state=\"idle\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_slots{state=\"out_of_service\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("attnfleet_worker_run_info")));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_connected 1\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_worker_undelivered_results 3\n"));
}

class FakeReader : public GpuReader {
 public:
  GpuReading Read(const std::string& uuid) override {
    GpuReading reading;
    reading.power_watts = 0;
    if (uuid == "GPU-1") reading.temperature_celsius = 41;
    return reading;
  }
};

// Of which no call returns while it hangs.
class Driver {
 public:
  void Hang(bool hangs) {
    const std::lock_guard lock(mutex_);
    hangs_ = hangs;
    changed_.notify_all();
  }
  void Call() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !hangs_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool hangs_ = false;
};

class DriverReader : public GpuReader {
 public:
  explicit DriverReader(std::shared_ptr<Driver> driver) : driver_(std::move(driver)) {}
  GpuReading Read(const std::string&) override {
    driver_->Call();
    GpuReading reading;
    reading.power_watts = 250;
    return reading;
  }

 private:
  const std::shared_ptr<Driver> driver_;
};

v1::Slot GpuSlot(const std::string& id) {
  v1::Slot slot;
  slot.set_id(id);
  slot.set_device_kind(v1::DEVICE_KIND_CUDA);
  return slot;
}

TEST(GpuTelemetry, NobodyWaitsForADriverThatHangsAndItIsReadAgainWhenItDoesNot) {
  const auto driver = std::make_shared<Driver>();
  {
    const GpuTelemetry telemetry({GpuSlot("GPU-1")}, std::make_unique<DriverReader>(driver),
                                 std::chrono::milliseconds(50));
    for (int i = 0; i < 2; ++i) {
      driver->Hang(true);
      EXPECT_THAT(telemetry.Collect(), IsEmpty());
      EXPECT_THAT(telemetry.Collect(), IsEmpty());
      driver->Hang(false);
      while (telemetry.Collect().empty()) {
      }
    }
    driver->Hang(true);
    EXPECT_THAT(telemetry.Collect(), IsEmpty());
  }
  // Its thread still is in the call, and ends by itself.
  driver->Hang(false);
  while (driver.use_count() > 1) std::this_thread::yield();
}

TEST(GpuTelemetry, ZeroIsAReadingAndWhatIsNotToldIsAbsent) {
  const std::vector<v1::Slot> slots = {GpuSlot("GPU-1"), GpuSlot("GPU-2"), CpuSlot("cpu0")};
  const std::string text = Text(GpuTelemetry(slots, std::make_unique<FakeReader>(), kPatience));
  EXPECT_THAT(text, HasSubstr("attnfleet_gpu_power_watts{slot=\"GPU-1\",device=\"\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_gpu_power_watts{slot=\"GPU-2\",device=\"\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("attnfleet_gpu_temperature_celsius{slot=\"GPU-1\",device=\"\"} 41\n"));
  EXPECT_THAT(text, Not(HasSubstr("attnfleet_gpu_temperature_celsius{slot=\"GPU-2\"")));
  EXPECT_THAT(text, Not(HasSubstr("attnfleet_gpu_utilization_ratio")));
  EXPECT_THAT(text, Not(HasSubstr("cpu0")));
}

TEST(GpuTelemetry, WithoutADriverThereIsNothing) {
  EXPECT_THAT(GpuTelemetry({GpuSlot("GPU-1")}, nullptr).Collect(), IsEmpty());
}

}  // namespace
}  // namespace attnfleet::worker
