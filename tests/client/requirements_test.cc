#include "client/requirements.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnfleet::client {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

v1::ListWorkersResponse Fleet() {
  v1::ListWorkersResponse fleet;
  v1::Slot& slot = *fleet.add_workers()->mutable_info()->add_slots();
  slot.set_device_kind(v1::DEVICE_KIND_CPU);
  slot.set_device_name("AMD EPYC");
  slot.set_memory_bytes(8'000'000'000);
  return fleet;
}

TEST(Requirements, NoneAreAlwaysMet) { EXPECT_TRUE(CheckRequirements({}, Fleet()).ok()); }

TEST(Requirements, UnmetOnesAreNamedWithWhatThereIs) {
  v1::SlotRequirements cuda;
  cuda.set_device_kind(v1::DEVICE_KIND_CUDA);
  const std::string text(CheckRequirements(cuda, Fleet()).message());
  EXPECT_THAT(text, StartsWith("requirements.device_kind: "));
  EXPECT_THAT(text, HasSubstr("AMD EPYC (cpu, 8.0 GB)"));
  v1::SlotRequirements memory;
  memory.set_min_memory_bytes(9'000'000'000);
  EXPECT_THAT(std::string(CheckRequirements(memory, Fleet()).message()), StartsWith("requirements.min_memory_bytes"));
  v1::SlotRequirements name;
  name.set_device_name_contains("H100");
  EXPECT_FALSE(CheckRequirements(name, Fleet()).ok());
  v1::SlotRequirements labels;
  (*labels.mutable_labels())["rack"] = "a3";
  EXPECT_THAT(std::string(CheckRequirements(labels, Fleet()).message()), StartsWith("requirements.labels"));
}

TEST(Requirements, AStepThatAutoPrecisionRulesOutWhereAllIsCpu) {
  v1::BenchmarkSpec spec;
  spec.mutable_training()->set_step(v1::TRAINING_STEP_FUSED_BF16_STREAM);
  spec.mutable_training()->set_precision(v1::PRECISION_AUTO);
  EXPECT_EQ(CheckStep(spec, Fleet()).message(),
            "training.step: fused-bf16-stream is for precision bf16-mixed, and auto is fp32 on the CPU; give precision "
            "bf16-mixed, or step fused");
  EXPECT_TRUE(CheckStep(spec, {}).ok()) << "who knows what comes";
  v1::ListWorkersResponse mixed = Fleet();
  mixed.mutable_workers(0)->mutable_info()->add_slots()->set_device_kind(v1::DEVICE_KIND_CUDA);
  EXPECT_TRUE(CheckStep(spec, mixed).ok());
  spec.mutable_training()->set_precision(v1::PRECISION_BF16_MIXED);
  EXPECT_TRUE(CheckStep(spec, Fleet()).ok());
}

TEST(Requirements, WorkersThatFitAndAreNotToBeHadAreLeftOut) {
  v1::ListWorkersResponse fleet;
  const auto add = [&fleet](const char* name, bool connected) -> v1::WorkerStatus& {
    v1::WorkerStatus& worker = *fleet.add_workers();
    *worker.mutable_info() = Fleet().workers(0).info();
    worker.mutable_info()->set_name(name);
    worker.set_connected(connected);
    return worker;
  };
  add("w1", true).set_drained(true);
  add("w2", true).set_draining(true);
  add("w3", false);
  add("w4", false).set_drained(true);
  v1::WorkerStatus& small = add("small", false);
  small.mutable_info()->mutable_slots(0)->set_memory_bytes(1);
  v1::WorkerStatus& untold = add("w5", false);
  untold.mutable_info()->clear_slots();
  untold.set_drained(true);
  v1::SlotRequirements memory;
  memory.set_min_memory_bytes(2);
  EXPECT_THAT(LeftOut(memory, fleet), testing::IsEmpty()) << "it waits for whoever comes first";
  add("there", true);
  EXPECT_THAT(LeftOut(memory, fleet),
              testing::ElementsAre("w1 (drained)", "w2 (draining)", "w3 (lost)", "w4 (lost, drained)",
                                   "w5 (not back since the server started, drained)"));
}

}  // namespace
}  // namespace attnfleet::client
