#include "server/sqlite_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

class SqliteStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/store.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/attnfleet.db";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<SqliteStore> Open() {
    absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(path_);
    EXPECT_EQ(store.status(), absl::OkStatus());
    return store.ok() ? std::move(*store) : nullptr;
  }

  static v1::Benchmark MakeBenchmark(uint64_t id) {
    v1::Benchmark benchmark;
    benchmark.set_id(id);
    *benchmark.mutable_spec() = MakeSpec({"eager", "sdpa"}, 2, 3);
    benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
    benchmark.set_runs_total(12);
    for (v1::Job& job : ExpandJobs(id, benchmark.spec())) *benchmark.add_jobs() = job;
    return benchmark;
  }

  std::string Bytes() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

  std::string folder_;
  std::string path_;
};

TEST_F(SqliteStoreTest, StoreOfAnOlderVersionIsBroughtUpToDateButNotByReadingAlone) {
  std::ifstream script(ATTNFLEET_TEST_DATA "/store_v1.sql");
  const std::string sql{std::istreambuf_iterator<char>(script), {}};
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
  const absl::Status status = SqliteStore::Open(path_, SqliteStore::Mode::kRead).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("start the server once"));

  const std::unique_ptr<SqliteStore> store = Open();
  const absl::StatusOr<StoredBenchmark> finished = store->LoadBenchmark(1);
  ASSERT_EQ(finished.status(), absl::OkStatus());
  EXPECT_EQ(finished->benchmark.state(), v1::BENCHMARK_STATE_FINISHED);
  ASSERT_EQ(finished->runs.size(), 2u);
  EXPECT_EQ(finished->runs[0].result().outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(store->LoadBenchmark(2)->benchmark.spec().name(), "queued");
  EXPECT_EQ(store->Save({{}, {}, {{"a", "1"}}}), absl::OkStatus());
  EXPECT_EQ(SqliteStore::Open(path_, SqliteStore::Mode::kRead).status(), absl::OkStatus());
}

TEST_F(SqliteStoreTest, ItsFilesAreItsOwnersAlone) {
  const auto store = Open();
  ASSERT_NE(store, nullptr);
  const v1::Benchmark benchmark = MakeBenchmark(1);
  ASSERT_EQ(store->Save({{{&benchmark, ""}}, {}, {}}), absl::OkStatus());
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    EXPECT_EQ(file.status().permissions(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)
        << file.path();
    ++files;
  }
  EXPECT_GE(files, 2) << "the log of what is written too";
}

TEST_F(SqliteStoreTest, ReadingCreatesNoStore) {
  EXPECT_EQ(SqliteStore::Open(path_, SqliteStore::Mode::kRead).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(SqliteStoreTest, TruncatedFileIsDataLossNamedAndLeftAsItIs) {
  {
    const std::unique_ptr<SqliteStore> store = Open();
    for (uint64_t id = 1; id <= 200; ++id) {
      v1::Benchmark benchmark = MakeBenchmark(id);
      ASSERT_EQ(store->Save({{{&benchmark, ""}}, {}, {}}), absl::OkStatus());
    }
  }
  const std::string damaged = Bytes().substr(0, Bytes().size() / 2);
  Write(damaged);
  const absl::Status status = SqliteStore::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path_));
  EXPECT_EQ(Bytes(), damaged);
}

TEST_F(SqliteStoreTest, FileThatIsNoDatabaseIsRefused) {
  Write(std::string(8192, 'x'));
  EXPECT_EQ(SqliteStore::Open(path_).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Bytes(), std::string(8192, 'x'));
}

TEST_F(SqliteStoreTest, StoreOfANewerVersionIsRefused) {
  Open();
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database, "PRAGMA user_version=99", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
  const absl::Status status = SqliteStore::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("newer attnfleet"));
}

TEST_F(SqliteStoreTest, DamagedRowIsNamed) {
  const std::unique_ptr<SqliteStore> store = Open();
  v1::Benchmark benchmark = MakeBenchmark(1);
  ASSERT_EQ(store->Save({{{&benchmark, ""}}, {}, {}}), absl::OkStatus());
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database, "UPDATE benchmarks SET message = x'ffff'", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
  const absl::Status status = store->Load([](const StoredBenchmark&) { return absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("benchmark 1"));
}

TEST_F(SqliteStoreTest, FolderThatDoesNotExistIsNamed) {
  const absl::Status status = SqliteStore::Open(folder_ + "/none/attnfleet.db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("/none/attnfleet.db"));
}

}  // namespace
}  // namespace attnfleet::server
