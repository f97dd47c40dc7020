#include "server/leadership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <csignal>
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

TEST(LeaderWatchTest, SilenceIsCountedAnewAfterALookThatFailed) {
  LeaderWatch watch({.lease = milliseconds(4'000), .grace = milliseconds(1'500)});
  const SteadyTime start{};
  EXPECT_FALSE(watch.IsGone({1, 1, "a:1", true}, start));
  watch.Forget();
  EXPECT_FALSE(watch.IsGone({1, 1, "a:1", false}, start + milliseconds(5'000))) << "it could not beat meanwhile";
  EXPECT_FALSE(watch.IsGone({1, 1, "a:1", false}, start + milliseconds(6'499)));
  EXPECT_TRUE(watch.IsGone({1, 1, "a:1", false}, start + milliseconds(6'500)));
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

TEST(PostgresTest, ParametersBeyondWhatAStatementTakesAreRefusedBeforeAnythingIsSent) {
  const std::string part(64 << 20, 'x');
  PostgresParameters parameters;
  for (int i = 0; i < 15; ++i) parameters.Add(part);
  const std::string url = "postgresql:///none?host=" + testing::TempDir() + "/none";
  EXPECT_EQ(Postgres(url, milliseconds(10)).Execute("SELECT 1", parameters).status().code(),
            absl::StatusCode::kOutOfRange);
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

  // Of that leader; saves a setting.
  absl::Status Save(Leadership& leadership, const std::string& value) {
    absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, &leadership);
    if (!store.ok()) return store.status();
    return (*store)->Save({{}, {}, {{"test", value}}});
  }

  // The process of the database that carried out the last Save; 0 if it has ended.
  static int64_t SavingProcess(Postgres& other) {
    const absl::StatusOr<PostgresRows> rows = other.Execute(
        "SELECT pid::int8 FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%saved_settings%'");
    return rows.ok() && rows->size() == 1 ? rows->Int(0, 0) : 0;
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
  EXPECT_EQ(Save(first, "first"), absl::OkStatus());
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
  EXPECT_EQ(Save(first, "old"), absl::OkStatus());
  const int64_t new_epoch = Lead(second);
  ASSERT_GT(new_epoch, old_epoch);
  const absl::Status late = Save(first, "late");
  EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(late.message()), HasSubstr("does not lead"));
  absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, &second);
  ASSERT_EQ(store.status(), absl::OkStatus());
  EXPECT_EQ((*store)->LoadSettings()->at("test"), "old");
  EXPECT_EQ((*store)->ConfirmLead(), absl::OkStatus());
  EXPECT_EQ((*PostgresStore::Open(url_, &first))->ConfirmLead().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ((*PostgresStore::Open(url_, &first))->Delete({1}).code(), absl::StatusCode::kUnavailable);
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
  ASSERT_GT(Lead(leadership), 0);
  absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, &leadership);
  ASSERT_EQ(store.status(), absl::OkStatus());
  ASSERT_EQ((*store)->Save({{}, {}, {{"test", "before"}}}), absl::OkStatus());
  ASSERT_EQ(cluster_->Restart(), absl::OkStatus());
  EXPECT_EQ((*store)->Save({{}, {}, {{"test", "after"}}}).code(), absl::StatusCode::kUnavailable)
      << "the connection broke, and the caller is told";
  EXPECT_EQ((*store)->Save({{}, {}, {{"test", "after"}}}), absl::OkStatus());
  EXPECT_EQ((*store)->LoadSettings()->at("test"), "after");
  EXPECT_FALSE(leadership.lost());
}

TEST_F(LeadershipTest, LeaderIsNotPassedOverForTheTimeInWhichTheDatabaseWasAway) {
  LeadershipTiming slow = kQuick;
  slow.beat = milliseconds(600'000);  // it does not beat in this test, before the other has looked or after
  Leadership first(url_, "a:1", slow), second(url_, "b:1", kQuick);
  ASSERT_GT(Lead(first), 0);
  ASSERT_EQ(second.TryToLead().value_or(-1), 0);
  ASSERT_EQ(cluster_->Restart(), absl::OkStatus());
  std::this_thread::sleep_for(kQuick.grace);
  EXPECT_FALSE(second.TryToLead().ok()) << "its connection broke";
  EXPECT_EQ(second.TryToLead().value_or(-1), 0);
}

// Its answer did not come in time, so it was repeated over another connection, and the first one is carried out last.
TEST_F(LeadershipTest, SaveThatWasGivenUpCannotUndoANewerOne) {
  Leadership leadership(url_, "a:1", kQuick);
  ASSERT_GT(Lead(leadership), 0);
  absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, &leadership, milliseconds(1'000));
  ASSERT_EQ(store.status(), absl::OkStatus());
  const auto saves = [&](const std::string& value) { return (*store)->Save({{}, {}, {{"test", value}}}).ok(); };
  ASSERT_TRUE(Eventually([&] { return saves("first"); }));
  Postgres other(url_, std::chrono::seconds(10));
  const int64_t process = SavingProcess(other);
  ASSERT_GT(process, 0);
  kill(static_cast<pid_t>(process), SIGSTOP);
  EXPECT_FALSE(saves("given up"));
  EXPECT_TRUE(Eventually([&] { return saves("newer"); }));
  EXPECT_FALSE(leadership.lost());
  kill(static_cast<pid_t>(process), SIGCONT);  // it finds the statement in its socket, and ends after it
  const auto ended = [&] {
    const absl::StatusOr<PostgresRows> rows =
        other.Execute("SELECT pid FROM pg_stat_activity WHERE pid = $1", PostgresParameters().Add(process));
    return rows.ok() && rows->size() == 0;
  };
  EXPECT_TRUE(Eventually(ended));
  EXPECT_EQ((*store)->LoadSettings()->at("test"), "newer");
}

TEST_F(LeadershipTest, SaveThatWasGivenUpHalfWayIsWaitedFor) {
  Leadership leadership(url_, "a:1", kQuick);
  ASSERT_GT(Lead(leadership), 0);
  // What is saved waits for a lock while the test holds it, and holds the epoch meanwhile.
  Postgres other(url_, std::chrono::seconds(10));
  ASSERT_EQ(other.Script("CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS "
                         "'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END';"
                         "CREATE TRIGGER hold BEFORE INSERT ON settings FOR EACH ROW EXECUTE FUNCTION hold();"
                         "SELECT pg_advisory_lock(1)"),
            absl::OkStatus());
  absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url_, &leadership, milliseconds(1'000));
  ASSERT_EQ(store.status(), absl::OkStatus());
  const auto save = [&](const std::string& value) { return (*store)->Save({{}, {}, {{"test", value}}}); };
  ASSERT_TRUE(Eventually([&] {
    save("given up").IgnoreError();
    return SavingProcess(other) > 0;
  }));
  EXPECT_THAT(std::string(save("newer").message()), HasSubstr("could not obtain lock"));
  EXPECT_THAT(std::string((*store)->Delete({1}).message()), HasSubstr("could not obtain lock"));
  EXPECT_FALSE(leadership.lost());
  ASSERT_EQ(other.Script("SELECT pg_advisory_unlock(1)"), absl::OkStatus());
  EXPECT_TRUE(Eventually([&] { return save("newer").ok(); }));
  EXPECT_EQ((*store)->LoadSettings()->at("test"), "newer");
  EXPECT_FALSE(leadership.lost());
}

TEST_F(LeadershipTest, LeaderThatWasPassedOverCannotRenewItsEpoch) {
  Leadership first(url_, "a:1", kQuick);
  const int64_t epoch = Lead(first);
  ASSERT_EQ(first.Renew(), absl::OkStatus());
  EXPECT_EQ(first.epoch(), epoch + 1);
  EXPECT_EQ(Save(first, "renewed"), absl::OkStatus());
  EXPECT_FALSE(first.lost());
  ASSERT_EQ(Postgres(url_, std::chrono::seconds(10)).Script("UPDATE leadership SET epoch = epoch + 1, address = 'b:1'"),
            absl::OkStatus());
  EXPECT_EQ(first.Renew().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(first.lost());
}

TEST_F(LeadershipTest, StoreWithoutTablesOrOfAnotherVersionIsRefused) {
  const std::string empty = cluster_->NewDatabase().value_or("");
  EXPECT_THAT(std::string(PostgresStore::Open(empty, nullptr).status().message()),
              HasSubstr("holds no attnfleet store"));
  Postgres postgres(url_, std::chrono::seconds(10));
  ASSERT_EQ(postgres.Script("UPDATE attnfleet_schema SET version = 99"), absl::OkStatus());
  const absl::Status status = PostgresStore::Open(url_, nullptr).status();
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

TEST_F(LeadershipTest, OptionsInTheUrlHoldBesideThoseOfTheServer) {
  Postgres postgres(url_ + "&options=-csearch_path%3Dapp", milliseconds(60'000));
  const auto setting = [&](const std::string& name) {
    const absl::StatusOr<PostgresRows> rows =
        postgres.Execute("SELECT current_setting($1)", PostgresParameters().Add(std::string_view(name)));
    return rows.ok() ? std::string(rows->Bytes(0, 0)) : rows.status().ToString();
  };
  EXPECT_EQ(setting("search_path"), "app");
  EXPECT_EQ(setting("lock_timeout"), "1min");
  EXPECT_EQ(setting("jit"), "off");
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
