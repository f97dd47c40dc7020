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
  // As another program would.
  void ExecuteBeside(const char* sql) {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(database);
  }

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

  std::string Bytes(const std::string& suffix = "") const {
    std::ifstream file(path_ + suffix, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Write(const std::string& bytes, const std::string& suffix = "") const {
    std::ofstream(path_ + suffix, std::ios::binary) << bytes;
  }

  // Puts at path_ what kill -9 leaves of a server: 200 benchmarks in the file, ten more in the log beside it.
  void MakeKilled(const char* last = "") {
    const auto save = [](SqliteStore& store, uint64_t first, uint64_t end) {
      for (uint64_t id = first; id < end; ++id) {
        const v1::Benchmark benchmark = MakeBenchmark(id);
        ASSERT_EQ(store.Save({{{&benchmark, ""}}, {}, {}}), absl::OkStatus());
      }
    };
    save(*Open(), 1, 201);
    const std::unique_ptr<SqliteStore> store = Open();
    save(*store, 201, 211);
    ExecuteBeside(last);
    const std::string killed = folder_ + "/killed.db";
    for (const char* suffix : {"", "-wal"}) std::filesystem::copy_file(path_ + suffix, killed + suffix);
    path_ = killed;
    ASSERT_GT(Bytes("-wal").size(), 0u);
  }

  // Opens it and says whether the file and its log are then what they were, byte for byte.
  void ExpectLeftAsItIs(SqliteStore::Mode mode, absl::StatusCode code) {
    const std::string file = Bytes(), log = Bytes("-wal");
    EXPECT_EQ(SqliteStore::Open(path_, mode).status().code(), code);
    EXPECT_TRUE(Bytes() == file);
    EXPECT_TRUE(Bytes("-wal") == log);
  }

  std::string folder_;
  std::string path_;
};

TEST_F(SqliteStoreTest, StoreOfAnOlderVersionIsBroughtUpToDateButNotByReadingAlone) {
  std::ifstream script(ATTNFLEET_TEST_DATA "/store_v1.sql");
  const std::string sql{std::istreambuf_iterator<char>(script), {}};
  ExecuteBeside(sql.c_str());
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

TEST_F(SqliteStoreTest, LogBesideAFileThatIsRefusedIsLeftAsItIs) {
  MakeKilled();
  Write(Bytes().substr(0, Bytes().size() / 2));
  ExpectLeftAsItIs(SqliteStore::Mode::kServe, absl::StatusCode::kDataLoss);
  ExpectLeftAsItIs(SqliteStore::Mode::kRead, absl::StatusCode::kDataLoss);
}

TEST_F(SqliteStoreTest, NewerStoreOfAServerThatWasKilledIsLeftAsItIs) {
  MakeKilled("PRAGMA user_version=99");
  ExpectLeftAsItIs(SqliteStore::Mode::kServe, absl::StatusCode::kFailedPrecondition);
  ExpectLeftAsItIs(SqliteStore::Mode::kRead, absl::StatusCode::kFailedPrecondition);
}

TEST_F(SqliteStoreTest, ReadingChangesNothingOfAServerThatWasKilledAndServingGoesOnWithItsLog) {
  MakeKilled();
  ExpectLeftAsItIs(SqliteStore::Mode::kRead, absl::StatusCode::kOk);
  ExpectLeftAsItIs(SqliteStore::Mode::kBeside, absl::StatusCode::kOk);
  EXPECT_EQ(Open()->LoadBenchmark(210).status(), absl::OkStatus());
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal")) << "an orderly end leaves one file";
}

TEST_F(SqliteStoreTest, CopyWithoutALogIsReadAsItIs) {
  Open();
  ExecuteBeside("PRAGMA journal_mode=DELETE");
  ExpectLeftAsItIs(SqliteStore::Mode::kRead, absl::StatusCode::kOk);
}

TEST_F(SqliteStoreTest, FileThatIsNoDatabaseIsRefused) {
  Write(std::string(8192, 'x'));
  EXPECT_EQ(SqliteStore::Open(path_).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Bytes(), std::string(8192, 'x'));
}

TEST_F(SqliteStoreTest, StoreOfANewerVersionIsRefused) {
  Open();
  ExecuteBeside("PRAGMA user_version=99");
  const absl::Status status = SqliteStore::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("newer attnfleet"));
}

TEST_F(SqliteStoreTest, DamagedRowIsNamed) {
  const std::unique_ptr<SqliteStore> store = Open();
  v1::Benchmark benchmark = MakeBenchmark(1);
  ASSERT_EQ(store->Save({{{&benchmark, ""}}, {}, {}}), absl::OkStatus());
  ExecuteBeside("UPDATE benchmarks SET message = x'ffff'");
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
