#include "server/work_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class WorkQueueTest : public testing::Test {
 protected:
  Slot& AddSlot(const std::string& worker, int64_t memory_bytes = 0,
                const std::vector<std::string>& backends = {"eager", "sdpa"}) {
    Worker& owner = fleet_.FindOrAdd(worker, 0);
    owner.info = MakeHello(worker, 1, backends).worker();
    Slot& slot = fleet_.FindOrAddSlot(owner, "cpu0");
    slot.info = owner.info.slots(0);
    slot.info.set_memory_bytes(memory_bytes);
    queue_.AddSlot(slot);
    queue_.SetTakes(slot, true);
    return slot;
  }

  WorkClass& Class(int64_t min_memory_bytes = 0, int count = 0) {
    v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
    spec.mutable_requirements()->set_min_memory_bytes(min_memory_bytes);
    spec.mutable_requirements()->set_count(count);
    return *queue_.UseClass(spec, {.wanted = 1});
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
  const auto best = [&] { return queue_.Best(slot).rank.benchmark; };
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

// What is filed of a share may be old; what is answered may not. Against a queue that looks at everything.
TEST_F(WorkQueueTest, TheBestIsTheBestHoweverSharesChange) {
  Slot& slot = AddSlot("a", 1'000);
  queue_.SetBusy(slot, true);
  const std::vector<WorkClass*> classes = {&Class(), &Class(50), &Class(100)};
  std::vector<Submitter*> submitters;
  for (const char* name : {"ann", "bob", "cleo", "dan"}) submitters.push_back(queue_.UseSubmitter(name));
  struct Waiting {
    WorkClass* work_class;
    Submitter* submitter;
    int priority;
    uint64_t benchmark;
  };
  std::vector<Waiting> waiting;
  const auto best = [&]() -> uint64_t {
    std::map<WorkClass*, Waiting> firsts;  // of each class
    const auto share = [](const Waiting& one) {
      return std::tuple(-one.priority, one.submitter->running, one.submitter->served);
    };
    for (const Waiting& one : waiting) {
      const auto [first, is_new] = firsts.emplace(one.work_class, one);
      const auto rank = [&](const Waiting& w) { return std::tuple(share(w), w.submitter->serial, w.benchmark); };
      if (!is_new && rank(one) < rank(first->second)) first->second = one;
    }
    const Waiting* found = nullptr;
    for (const auto& [work_class, one] : firsts) {
      const auto rank = [&](const Waiting& w) { return std::tuple(share(w), w.benchmark); };
      if (found == nullptr || rank(one) < rank(*found)) found = &one;
    }
    return found == nullptr ? 0 : found->benchmark;
  };
  std::minstd_rand random(1);
  for (uint64_t step = 1; step <= 20'000; ++step) {
    Submitter& submitter = *submitters[random() % submitters.size()];
    switch (random() % 5) {
      case 0:
      case 1:
        if (waiting.size() > 60) break;
        waiting.push_back({classes[random() % classes.size()], &submitter, static_cast<int>(random() % 3), step});
        queue_.Push(*waiting.back().work_class, submitter, waiting.back().priority, step);
        break;
      case 2: {
        if (waiting.empty()) break;
        std::swap(waiting[random() % waiting.size()], waiting.back());
        const Waiting& one = waiting.back();
        queue_.Remove(*one.work_class, *one.submitter, one.priority, one.benchmark);
        waiting.pop_back();
        break;
      }
      case 3:
        queue_.Serve(submitter);
        queue_.AddRunning(submitter, 1);
        break;
      default:
        if (submitter.running > 0) queue_.AddRunning(submitter, -1);
    }
    if (random() % 3 == 0) {
      ASSERT_EQ(queue_.Best(slot).rank.benchmark, best()) << "step " << step;
    }
    if (step % 100 == 0) {
      ASSERT_EQ(queue_.Check(), absl::OkStatus()) << "step " << step;
    }
  }
}

TEST_F(WorkQueueTest, ClassOpensAndClosesWithItsCount) {
  WorkClass& work_class = Class(0, 2);
  queue_.Push(work_class, *queue_.UseSubmitter("ann"), 0, 1);
  queue_.changed().clear();
  work_class.changed = false;
  Slot& first = AddSlot("a");
  EXPECT_FALSE(work_class.open());
  EXPECT_EQ(queue_.Best(first).work_class, nullptr);
  EXPECT_TRUE(queue_.changed().empty());
  Slot& second = AddSlot("b");
  EXPECT_TRUE(work_class.open());
  EXPECT_EQ(queue_.changed().size(), 1u);
  EXPECT_NE(queue_.CheckNothingIdles(), absl::OkStatus()) << "both are idle, and something waits";
  queue_.RemoveSlot(second);
  EXPECT_FALSE(work_class.open());
  EXPECT_EQ(queue_.CheckNothingIdles(), absl::OkStatus());
}

TEST_F(WorkQueueTest, ASlotFitsIfNoOtherHasTheSameBackendsAndMore) {
  const WorkClass& three = *queue_.UseClass(MakeSpec({"eager", "sdpa", "flash2"}, 1, 1), {.wanted = 0b111});
  const WorkClass& left = *queue_.UseClass(MakeSpec({"eager", "sdpa", "flash2"}, 1, 1), {.wanted = 0b100});
  const Slot& eager = AddSlot("eager", 0, {"eager"});
  EXPECT_THAT(three.kinds, ElementsAre(eager.kind));
  EXPECT_THAT(left.kinds, IsEmpty());
  EXPECT_EQ(three.offered(), 0b001u);
  Slot& both = AddSlot("both", 0, {"eager", "sdpa"});
  EXPECT_THAT(three.kinds, ElementsAre(both.kind)) << "what can run together does";
  Slot& other = AddSlot("other", 0, {"eager", "flash2"});
  EXPECT_THAT(three.kinds, UnorderedElementsAre(both.kind, other.kind)) << "neither has all that the other has";
  EXPECT_THAT(left.kinds, ElementsAre(other.kind));
  queue_.SetTakes(other, false);
  EXPECT_THAT(left.kinds, ElementsAre(other.kind)) << "it may take runs again";
  EXPECT_EQ(left.slots, 0u);
  EXPECT_EQ(queue_.Check(), absl::OkStatus());
  queue_.RemoveSlot(other);
  queue_.RemoveSlot(both);
  EXPECT_THAT(three.kinds, ElementsAre(eager.kind));
  EXPECT_EQ(three.slots, 1u);
  EXPECT_EQ(queue_.Check(), absl::OkStatus());
}

TEST_F(WorkQueueTest, WhileTheFleetGathersASlotFitsIfItHasAll) {
  WorkClass& both = *queue_.UseClass(MakeSpec({"eager", "flash2"}, 1, 1), {.wanted = 0b11});
  queue_.SetGathering(true);
  queue_.Push(both, *queue_.UseSubmitter("ann"), 0, 1);
  const Slot& some = AddSlot("some");
  EXPECT_THAT(both.kinds, IsEmpty());
  EXPECT_EQ(queue_.Check(), absl::OkStatus());
  queue_.changed().clear();
  both.changed = false;
  queue_.SetGathering(false);
  EXPECT_THAT(both.kinds, ElementsAre(some.kind));
  EXPECT_THAT(queue_.changed(), ElementsAre(&both));
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
