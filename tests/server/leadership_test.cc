#include "server/leadership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "postgres_cluster.h"
#include "server/postgres_store.h"

namespace attnfleet::server {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(LeaderWatchTest, LeaderIsGoneWhenItsHeartbeatStandsStill) {
  LeaderWatch watch({.lease = milliseconds(4'000), .grace = milliseconds(1'500)});
  const SteadyTime start{};
  EXPECT_FALSE(watch.IsGone({1, 1, "a:1", true}, start));
  EXPECT_FALSE(watch.IsGone({1, 1, "a:1", true}, start + milliseconds(3'999)));
  EXPECT_FALSE(watch.IsGone({1, 2, "a:1", true}, start + milliseconds(5'000))) << "it beat";
  EXPECT_FALSE(watch.IsGone({2, 2, "b:1", true}, start + milliseconds(8'000))) << "another took over";
  EXPECT_TRUE(watch.IsGone({2, 2, "b:1", true}, start + milliseconds(12'000)));
}

TEST(LeaderWatchTest, LeaderWithoutAConnectionIsGoneSoonerAndOneThatResignedAtOnce) {
  LeaderWatch watch({.lease = milliseconds(4'000), .grace = milliseconds(1'500)});
  const SteadyTime start{};
  EXPECT_FALSE(watch.IsGone({1, 1, "a:1", false}, start));
  EXPECT_FALSE(watch.IsGone({1, 1, "a:1", false}, start + milliseconds(1'499)));
  EXPECT_TRUE(watch.IsGone({1, 1, "a:1", false}, start + milliseconds(1'500)));
  EXPECT_TRUE(watch.IsGone({1, 2, "", true}, start + milliseconds(1'500)));
}

TEST(PostgresTest, PasswordInTheUrlIsRefusedAndNeverShown) {
  const std::string url = "postgresql://ann:secret@db.example/fleet";
  const absl::Status status = Postgres::ValidateUrl(url);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("PGPASSFILE"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("secret")));
  EXPECT_EQ(Postgres(url, milliseconds(1)).name(), "store postgresql://db.example/fleet");
  EXPECT_EQ(Postgres::ValidateUrl("postgresql://ann@db.example:5433/fleet"), absl::OkStatus());
  EXPECT_EQ(Postgres::ValidateUrl("postgresql://db.example/fleet?sslmod=no").code(),
            absl::StatusCode::kInvalidArgument);
}

// With a database of its own for each test.
class LeadershipTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    absl::StatusOr<std::unique_ptr<PostgresCluster>> cluster = PostgresCluster::Start();
    ASSERT_EQ(cluster.status(), absl::OkStatus());
    cluster_ = *std::move(cluster);
  }
  static void TearDownTestSuite() { cluster_.reset(); }

  void SetUp() override {
    ASSERT_NE(cluster_, nullptr);
    const absl::StatusOr<std::string> url = cluster_->NewDatabase();
    ASSERT_EQ(url.status(), absl::OkStatus());
    url_ = *url;
    ASSERT_EQ(PostgresStore::Migrate(url_), absl::OkStatus());
  }

  // Tries until it leads; 0 if that takes too long.
  static int64_t Lead(Leadership& leadership) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      const absl::StatusOr<int64_t> epoch = leadership.TryToLead();
      if (epoch.ok() && *epoch > 0) return *epoch;
      std::this_thread::sleep_for(milliseconds(20));
    }
    return 0;
  }

  template <typename Condition>
  static bool Eventually(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(milliseconds(20));
    }
    return true;
  }

  // A store with that epoch; saves a setting.
  absl::Status Save(int64_t epoch, const std::string& value) {
    absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, epoch);
    if (!store.ok()) return store.status();
    return (*store)->Save({{}, {}, {{"test", value}}});
  }

  static std::unique_ptr<PostgresCluster> cluster_;
  std::string url_;
};

std::unique_ptr<PostgresCluster> LeadershipTest::cluster_;

constexpr LeadershipTiming kQuick{
    .beat = milliseconds(50), .lease = milliseconds(60'000), .grace = milliseconds(1'000)};

TEST_F(LeadershipTest, OneLeadsAndTheOtherKnowsWhoUntilItResigns) {
  Leadership first(url_, "a:1", kQuick), second(url_, "b:1", kQuick);
  const int64_t epoch = Lead(first);
  ASSERT_GT(epoch, 0);
  EXPECT_EQ(second.TryToLead().value_or(-1), 0);
  EXPECT_EQ(second.leader(), "a:1");
  EXPECT_EQ(Save(epoch, "first"), absl::OkStatus());
  first.Resign();
  EXPECT_GT(second.TryToLead().value_or(-1), epoch);
  EXPECT_EQ(second.leader(), "b:1");
}

TEST_F(LeadershipTest, LeaderThatWasPassedOverCannotWriteAndLearnsOfIt) {
  // Its heartbeat is so slow that the other takes it for gone, as if it had been paused.
  LeadershipTiming paused = kQuick;
  paused.beat = milliseconds(2'000);
  LeadershipTiming impatient = kQuick;
  impatient.lease = milliseconds(100);
  Leadership first(url_, "a:1", paused), second(url_, "b:1", impatient);
  const int64_t old_epoch = Lead(first);
  EXPECT_EQ(Save(old_epoch, "old"), absl::OkStatus());
  const int64_t new_epoch = Lead(second);
  ASSERT_GT(new_epoch, old_epoch);
  const absl::Status late = Save(old_epoch, "late");
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(late.message()), HasSubstr("does not lead"));
  absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, new_epoch);
  ASSERT_EQ(store.status(), absl::OkStatus());
  EXPECT_EQ((*store)->LoadSettings()->at("test"), "old");
  EXPECT_EQ((*store)->ConfirmLead(), absl::OkStatus());
  EXPECT_EQ((*PostgresStore::Open(url_, old_epoch))->ConfirmLead().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ((*PostgresStore::Open(url_, old_epoch))->Delete({1}).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Eventually([&] { return first.lost(); }));
  EXPECT_FALSE(second.lost());
}

TEST_F(LeadershipTest, LeaderWhoseConnectionEndedIsReplacedWithoutWaitingForTheLease) {
  Leadership second(url_, "b:1", kQuick);
  int64_t epoch = 0;
  {
    Leadership first(url_, "a:1", kQuick);  // killed: it does not resign
    epoch = Lead(first);
    ASSERT_GT(epoch, 0);
    EXPECT_EQ(second.TryToLead().value_or(-1), 0);
  }
  EXPECT_GT(Lead(second), epoch);  // within the test's patience, which is the lease
}

TEST_F(LeadershipTest, RestartOfTheDatabaseIsSurvivedByLeaderAndStore) {
  Leadership leadership(url_, "a:1", kQuick);
  const int64_t epoch = Lead(leadership);
  absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, epoch);
  ASSERT_EQ(store.status(), absl::OkStatus());
  ASSERT_EQ((*store)->Save({{}, {}, {{"test", "before"}}}), absl::OkStatus());
  ASSERT_EQ(cluster_->Restart(), absl::OkStatus());
  EXPECT_EQ((*store)->Save({{}, {}, {{"test", "after"}}}).code(), absl::StatusCode::kUnavailable)
      << "the connection broke, and the caller is told";
  EXPECT_EQ((*store)->Save({{}, {}, {{"test", "after"}}}), absl::OkStatus());
  EXPECT_EQ((*store)->LoadSettings()->at("test"), "after");
  EXPECT_FALSE(leadership.lost());
}

TEST_F(LeadershipTest, StoreWithoutTablesOrOfAnotherVersionIsRefused) {
  const std::string empty = cluster_->NewDatabase().value_or("");
  EXPECT_THAT(std::string(PostgresStore::Open(empty, 0).status().message()), HasSubstr("holds no attnfleet store"));
  Postgres postgres(url_, std::chrono::seconds(10));
  ASSERT_EQ(postgres.Script("UPDATE attnfleet_schema SET version = 99"), absl::OkStatus());
  const absl::Status status = PostgresStore::Open(url_, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("newer attnfleet"));
  EXPECT_EQ(PostgresStore::Migrate(url_), absl::OkStatus()) << "nothing to do, and nothing is done";
}

TEST_F(LeadershipTest, StatementThatFailsIsReportedAndTheConnectionGoesOn) {
  Postgres postgres(url_, std::chrono::seconds(10));
  EXPECT_EQ(postgres.Execute("SELECT 1 / 0").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(postgres.Execute("SELECT 7::int8")->Int(0, 0), 7);
  EXPECT_EQ(postgres.connections(), 1);
}

TEST_F(LeadershipTest, StatementThatTakesTooLongEndsInTime) {
  Postgres postgres(url_, milliseconds(200));
  const absl::Status status = postgres.Execute("SELECT pg_sleep(600)").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("200 ms"));
  EXPECT_EQ(postgres.Execute("SELECT 7::int8").status(), absl::OkStatus()) << "on a new connection";
}

}  // namespace
}  // namespace attnfleet::server
