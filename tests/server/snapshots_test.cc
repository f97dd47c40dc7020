#include "server/snapshots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>

namespace attnfleet::server {
namespace {

using Kind = Snapshots::Kind;

constexpr uint64_t kLarge = 100;  // benchmarks from this one on

// In place of the coordinator: what it takes of a benchmark is how often it has changed.
class SnapshotsTest : public testing::Test {
 protected:
  void SetUp() override {
    snapshots_ = std::make_unique<Snapshots>(Snapshots::Options{
        .kept_bytes = 1'000,
        .kept_for = std::chrono::seconds(5),
        .now = [this] { return now_; },
        .take = [this](const Snapshots::Key& key) { return Take(key); },
        .is_large = [](uint64_t id) { return id >= kLarge; },
        .post =
            [this](std::function<void()> call) {
              const std::lock_guard<std::mutex> lock(mutex_);
              posted_.push_back(std::move(call));
              wake_.notify_one();
            },
    });
  }

  void TearDown() override {
    gate_.set_value();
    snapshots_.reset();
  }

  absl::StatusOr<Snapshots::Make> Take(const Snapshots::Key& key) {
    if (key.first == 404) return absl::NotFoundError("gone");
    ++taken_;
    const std::string text = std::to_string(changes_[key.first]) + std::string(static_cast<size_t>(padding_), ' ');
    return [text, waits = key.first >= kLarge, open = open_]() -> Snapshots::Answer {
      if (waits) open.wait();
      return std::make_shared<const std::string>(text);
    };
  }

  void Change(uint64_t id) {
    ++changes_[id];
    snapshots_->Changed(id);
  }

  // Where the answer will be.
  std::shared_ptr<std::vector<Snapshots::Answer>> Ask(uint64_t id, Kind kind = Kind::kBenchmark) {
    auto answers = std::make_shared<std::vector<Snapshots::Answer>>();
    snapshots_->Ask({id, kind}, [answers](const Snapshots::Answer& answer) { answers->push_back(answer); });
    return answers;
  }

  // One answer that has been made, handed out.
  void TakePosted() {
    std::unique_lock<std::mutex> lock(mutex_);
    ASSERT_TRUE(wake_.wait_for(lock, std::chrono::seconds(60), [this] { return !posted_.empty(); }));
    const std::function<void()> call = std::move(posted_.front());
    posted_.pop_front();
    lock.unlock();
    call();
  }

  void FinishAll() {
    for (snapshots_->Begin(); snapshots_->busy(); snapshots_->Begin()) TakePosted();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> posted_;  // guarded by mutex_
  std::promise<void> gate_;                   // what large benchmarks wait for
  std::shared_future<void> open_ = gate_.get_future().share();
  Snapshots::Clock::time_point now_;
  std::map<uint64_t, int> changes_;
  int taken_ = 0;
  int padding_ = 0;
  std::unique_ptr<Snapshots> snapshots_;
};

TEST_F(SnapshotsTest, IsMadeOnceForAllWhoAskAndKept) {
  const auto first = Ask(1);
  const auto second = Ask(1);
  EXPECT_TRUE(first->empty());
  snapshots_->Begin();
  const auto third = Ask(1);  // while it is being made
  FinishAll();
  const auto later = Ask(1);
  ASSERT_EQ(later->size(), 1u);
  for (const auto& answers : {first, second, third}) {
    ASSERT_EQ(answers->size(), 1u);
    EXPECT_EQ(*answers->front(), *later->front()) << "the same bytes, not equal ones";
  }
  EXPECT_EQ(taken_, 1);
  Ask(1, Kind::kWithContaminated);
  FinishAll();
  EXPECT_EQ(taken_, 2) << "another answer";
}

TEST_F(SnapshotsTest, IsNeverOlderThanTheQuestion) {
  const auto before = Ask(1);
  snapshots_->Begin();
  Change(1);
  const auto after = Ask(1);
  FinishAll();
  EXPECT_EQ(**before->front(), "0");
  EXPECT_EQ(**after->front(), "1");
  EXPECT_EQ(**Ask(1)->front(), "1") << "and that one is kept";
  Change(1);
  const auto again = Ask(1);
  EXPECT_TRUE(again->empty());
  FinishAll();
  EXPECT_EQ(**again->front(), "2");
}

TEST_F(SnapshotsTest, ExplanationsAreMadeAnewForTheyTellOfTheFleetToo) {
  Ask(1, Kind::kExplanations);
  snapshots_->Begin();
  Ask(1, Kind::kExplanations);
  FinishAll();
  EXPECT_EQ(taken_, 2);
}

TEST_F(SnapshotsTest, SmallOnesDoNotWaitForLargeOnesOfWhichOneIsTakenAtATime) {
  const auto large = Ask(kLarge);
  const auto next = Ask(kLarge + 1);
  const auto small = Ask(1);
  const auto other = Ask(2);
  snapshots_->Begin();
  TakePosted();
  snapshots_->Begin();
  TakePosted();
  EXPECT_EQ(small->size() + other->size(), 2u);
  EXPECT_EQ(large->size() + next->size(), 0u);
  EXPECT_EQ(taken_, 3) << "the next is not taken before the first is made";
  snapshots_->Refuse(absl::UnavailableError("stops"), Snapshots::Which::kLarge);
  EXPECT_EQ(next->front().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Ask(kLarge + 2)->front().status().code(), absl::StatusCode::kUnavailable) << "and none is begun anew";
  EXPECT_TRUE(snapshots_->busy()) << "the first goes on";
  const auto late = Ask(3);
  EXPECT_TRUE(late->empty()) << "small ones are still made";
  snapshots_->Refuse(absl::UnavailableError("stops"), Snapshots::Which::kAll);
  EXPECT_EQ(late->front().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Ask(4)->front().status().code(), absl::StatusCode::kUnavailable);
  gate_.set_value();
  FinishAll();
  EXPECT_TRUE(large->front().ok());
  gate_ = {};
}

TEST_F(SnapshotsTest, WhatIsNotAskedForTheLongestTimeIsNotKept) {
  padding_ = 399;
  for (const uint64_t id : {1u, 2u}) Ask(id);
  FinishAll();
  EXPECT_EQ(Ask(1)->size(), 1u);  // asked for later than 2
  Ask(3);
  FinishAll();
  EXPECT_EQ(taken_, 3);
  EXPECT_EQ(Ask(3)->size(), 1u);
  EXPECT_EQ(Ask(1)->size(), 1u);
  EXPECT_EQ(Ask(2)->size(), 0u);
  FinishAll();
}

TEST_F(SnapshotsTest, WhatNobodyHasAskedForLatelyIsNotKept) {
  Ask(1);
  Ask(2);
  FinishAll();
  now_ += std::chrono::seconds(4);
  EXPECT_EQ(Ask(1)->size(), 1u);
  now_ += std::chrono::seconds(4);
  snapshots_->Begin();
  EXPECT_EQ(Ask(1)->size(), 1u);
  EXPECT_EQ(Ask(2)->size(), 0u) << "8 seconds after the last question";
  FinishAll();
  EXPECT_EQ(taken_, 3);
}

TEST_F(SnapshotsTest, WhatIsGoneIsAnErrorForAllWhoAskedAndTheNextGoesOn) {
  const auto gone = Ask(404);
  const auto also = Ask(404);
  const auto there = Ask(405);
  gate_.set_value();
  FinishAll();
  EXPECT_EQ(gone->front().status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(also->front().status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(there->front().ok());
  gate_ = {};
}

}  // namespace
}  // namespace attnfleet::server
