#include "server/work_queue.h"

#include <gtest/gtest.h>

#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

class WorkQueueTest : public testing::Test {
 protected:
  Slot& AddSlot(const std::string& worker, int64_t memory_bytes = 0) {
    Worker& owner = fleet_.FindOrAdd(worker, 0);
    owner.info = MakeHello(worker, 1).worker();
    Slot& slot = fleet_.FindOrAddSlot(owner, "cpu0");
    slot.info = owner.info.slots(0);
    slot.info.set_memory_bytes(memory_bytes);
    queue_.AddSlot(slot);
    return slot;
  }

  WorkClass& Class(int64_t min_memory_bytes = 0, int count = 0) {
    v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
    spec.mutable_requirements()->set_min_memory_bytes(min_memory_bytes);
    spec.mutable_requirements()->set_count(count);
    return *queue_.UseClass(spec);
  }

  Fleet fleet_;
  WorkQueue queue_;
};

TEST_F(WorkQueueTest, EqualRequirementsShareAClassAndEqualSlotsAKind) {
  const Slot& a = AddSlot("a");
  const Slot& b = AddSlot("b");
  const Slot& big = AddSlot("big", 100);
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_NE(a.kind, big.kind);
  EXPECT_EQ(&Class(), &Class());
  EXPECT_NE(&Class(), &Class(50));
  EXPECT_EQ(Class().slots, 3u);
  EXPECT_EQ(Class(50).slots, 1u);
  EXPECT_EQ(queue_.Check(), absl::OkStatus());
}

TEST_F(WorkQueueTest, PriorityThenFewestSlotsThenLongestUnservedThenAge) {
  Slot& slot = AddSlot("a");
  queue_.SetBusy(slot, true);
  WorkClass& work_class = Class();
  Submitter& ann = *queue_.UseSubmitter("ann");
  Submitter& bob = *queue_.UseSubmitter("bob");
  const auto best = [&] { return queue_.Best(*slot.kind).rank.benchmark; };
  EXPECT_EQ(best(), 0u);
  queue_.Push(work_class, ann, 0, 1);
  queue_.Push(work_class, ann, 0, 2);
  queue_.Push(work_class, bob, 0, 3);
  EXPECT_EQ(best(), 1u);
  queue_.AddRunning(ann, 1);
  EXPECT_EQ(best(), 3u) << "bob holds no slot";
  queue_.AddRunning(bob, 1);
  queue_.Serve(bob);
  EXPECT_EQ(best(), 1u) << "bob was served last";
  queue_.Push(work_class, bob, 1, 4);
  EXPECT_EQ(best(), 4u);
  queue_.Remove(work_class, bob, 1, 4);
  queue_.Remove(work_class, ann, 0, 1);
  EXPECT_EQ(best(), 2u);
  EXPECT_EQ(queue_.Check(), absl::OkStatus());
}

TEST_F(WorkQueueTest, ClassOpensAndClosesWithItsCount) {
  WorkClass& work_class = Class(0, 2);
  queue_.Push(work_class, *queue_.UseSubmitter("ann"), 0, 1);
  queue_.changed().clear();
  work_class.changed = false;
  Slot& first = AddSlot("a");
  EXPECT_FALSE(work_class.open());
  EXPECT_EQ(queue_.Best(*first.kind).work_class, nullptr);
  EXPECT_TRUE(queue_.changed().empty());
  Slot& second = AddSlot("b");
  EXPECT_TRUE(work_class.open());
  EXPECT_EQ(queue_.changed().size(), 1u);
  EXPECT_NE(queue_.CheckNothingIdles(), absl::OkStatus()) << "both are idle, and something waits";
  queue_.RemoveSlot(second);
  EXPECT_FALSE(work_class.open());
  EXPECT_EQ(queue_.CheckNothingIdles(), absl::OkStatus());
}

TEST_F(WorkQueueTest, AnotherWorkersSlotIsPreferred) {
  Slot& a = AddSlot("a");
  Slot& b = AddSlot("b");
  const WorkClass& work_class = Class();
  EXPECT_EQ(WorkQueue::FindIdle(work_class, "a"), &b);
  queue_.SetBusy(b, true);
  EXPECT_EQ(WorkQueue::FindIdle(work_class, "a"), &a);
  queue_.SetBusy(a, true);
  EXPECT_EQ(WorkQueue::FindIdle(work_class, ""), nullptr);
}

}  // namespace
}  // namespace attnfleet::server
