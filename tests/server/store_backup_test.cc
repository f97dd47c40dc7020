#include "server/store_backup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fleet_fixture.h"
#include "memory_store.h"
#include "server/sqlite_store.h"

namespace attnfleet::server {
namespace {

using testing::HasSubstr;

// Everything a store holds, as text that can be compared.
class Dump : public RowReader {
 public:
  static std::string Of(JobStore& store) {
    Dump dump;
    EXPECT_EQ(store.Read({}, dump), absl::OkStatus());
    return dump.text_;
  }

  absl::Status TakeSetting(std::string_view name, std::string_view value) override {
    absl::StrAppend(&text_, "setting ", std::string(name), " ", std::string(value), "\n");
    return absl::OkStatus();
  }
  absl::Status TakeBenchmark(const BenchmarkRow& row) override {
    absl::StrAppend(&text_, "benchmark ", row.id, " ", row.state, " ", std::string(row.request_id), " ",
                    std::string(row.message), "\n");
    return absl::OkStatus();
  }
  absl::Status TakeRun(const RunRow& row) override {
    absl::StrAppend(&text_, "run ", row.benchmark_id, " ", row.job_index, " ", row.repetition, " ", row.state, " ",
                    std::string(row.message), "\n");
    return absl::OkStatus();
  }

 private:
  std::string text_;
};

class StoreBackupTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/backup.XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    file_ = folder_ + "/backup";
    for (uint64_t id = 1; id <= 2; ++id) {
      v1::Benchmark benchmark;
      benchmark.set_id(id);
      *benchmark.mutable_spec() = MakeSpec({"eager"}, 1, kRuns);
      benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
      ASSERT_EQ(store_.Save({{{&benchmark, absl::StrCat("request", id)}}, {}, {}}), absl::OkStatus());
    }
    for (uint32_t repetition = 0; repetition < kRuns; ++repetition) {
      v1::Run run;
      run.mutable_key()->set_benchmark_id(1 + repetition % 2);
      run.mutable_key()->set_repetition(repetition);
      run.set_state(v1::RUN_STATE_ENDED);
      run.mutable_result()->set_reason(absl::StrCat("reason ", repetition * 7919));
      ASSERT_EQ(store_.Save({{}, {&run}, {{"name", "value"}}}), absl::OkStatus());
    }
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Bytes() const {
    std::ifstream file(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Write(const std::string& bytes) const { std::ofstream(file_, std::ios::binary) << bytes; }

  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const auto& file : std::filesystem::directory_iterator(folder_)) files.push_back(file.path());
    return files;
  }

  static constexpr int kRuns = 1'100;  // more than one batch
  std::string folder_;
  std::string file_;
  MemoryStore store_;
};

TEST_F(StoreBackupTest, RestoredIntoAnotherKindOfStoreItIsTheSame) {
  const absl::StatusOr<v1::BackupEnd> written = WriteBackup(store_, file_);
  ASSERT_EQ(written.status(), absl::OkStatus());
  EXPECT_EQ(written->benchmarks(), 2u);
  EXPECT_EQ(written->runs(), static_cast<uint64_t>(kRuns));
  EXPECT_EQ(written->settings(), 1u);
  const auto sqlite = SqliteStore::Open(folder_ + "/attnfleet.db");
  ASSERT_EQ(sqlite.status(), absl::OkStatus());
  const absl::StatusOr<v1::BackupEnd> restored = RestoreBackup(**sqlite, file_);
  ASSERT_EQ(restored.status(), absl::OkStatus());
  EXPECT_EQ(restored->SerializeAsString(), written->SerializeAsString());
  EXPECT_EQ(Dump::Of(**sqlite), Dump::Of(store_));
  EXPECT_EQ(RestoreBackup(**sqlite, file_).status().code(), absl::StatusCode::kFailedPrecondition) << "not empty";
}

// Takes note of how many runs come at once.
class CountingStore : public MemoryStore {
 public:
  absl::Status Fill(const Source& next) override {
    return MemoryStore::Fill([&](StoreChanges& changes) {
      absl::StatusOr<bool> more = next(changes);
      if (more.value_or(false)) batches.push_back(changes.runs.size());
      return more;
    });
  }

  std::vector<size_t> batches;
};

TEST_F(StoreBackupTest, ABatchEndsWithSoManyRecordsOrBytes) {
  CountingStore small, large;
  ASSERT_EQ(WriteBackup(store_, file_).status(), absl::OkStatus());
  ASSERT_EQ(RestoreBackup(small, file_).status(), absl::OkStatus());
  EXPECT_THAT(small.batches, testing::ElementsAre(997, 103)) << "the first with a setting and two benchmarks";
  const std::string long_text(3 << 20, 'x');
  for (uint32_t repetition = 0; repetition < 5; ++repetition) {
    v1::Run run;
    run.mutable_key()->set_benchmark_id(3);
    run.mutable_key()->set_repetition(repetition);
    run.mutable_result()->set_reason(long_text);
    ASSERT_EQ(store_.Save({{}, {&run}, {}}), absl::OkStatus());
  }
  std::filesystem::remove(file_);
  ASSERT_EQ(WriteBackup(store_, file_).status(), absl::OkStatus());
  ASSERT_EQ(RestoreBackup(large, file_).status(), absl::OkStatus());
  EXPECT_THAT(large.batches, testing::ElementsAre(997, 103 + 3, 2));
  EXPECT_EQ(Dump::Of(large), Dump::Of(store_));
}

TEST_F(StoreBackupTest, EmptyStoreIsBackedUpToo) {
  MemoryStore empty, other;
  ASSERT_EQ(WriteBackup(empty, file_).status(), absl::OkStatus());
  EXPECT_EQ(RestoreBackup(other, file_).status(), absl::OkStatus());
  EXPECT_EQ(Dump::Of(other), "");
}

TEST_F(StoreBackupTest, AnErrorNamesTheFileThatWasAskedFor) {
  const std::string file = folder_ + "/nowhere/backup";
  EXPECT_EQ(WriteBackup(store_, file).status().message(), file + ": cannot be written: No such file or directory");
}

TEST_F(StoreBackupTest, FileThatIsThereIsLeftAsItIs) {
  Write("mine");
  const absl::Status status = WriteBackup(store_, file_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr(file_));
  EXPECT_EQ(Bytes(), "mine");
  EXPECT_EQ(WriteBackup(store_, folder_ + "/none/backup").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(RestoreBackup(store_, folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(StoreBackupTest, OfTwoBackupsToOneFileAtOnceOneIsRefusedAndTheOtherComplete) {
  MemoryStore other;
  ASSERT_EQ(other.Save({{}, {}, {{"other", "value"}}}), absl::OkStatus());
  FaultyStore slow(store_);
  absl::Status meanwhile = absl::UnknownError("not done");
  slow.read_beside = [&] { meanwhile = WriteBackup(other, file_).status(); };
  EXPECT_EQ(WriteBackup(**slow.OpenReader(), file_).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(meanwhile, absl::OkStatus());
  MemoryStore restored;
  EXPECT_EQ(RestoreBackup(restored, file_).status(), absl::OkStatus());
  EXPECT_EQ(Dump::Of(restored), Dump::Of(other));
  EXPECT_THAT(Files(), testing::ElementsAre(file_));
}

TEST_F(StoreBackupTest, ItIsItsOwnersAloneAndFollowsNoLink) {
  const std::string mine = folder_ + "/mine";
  std::ofstream(mine) << "mine";
  std::filesystem::create_symlink(mine, file_ + ".partial");
  ASSERT_EQ(WriteBackup(store_, file_).status(), absl::OkStatus());
  EXPECT_EQ(std::filesystem::file_size(mine), 4u);
  EXPECT_TRUE(std::filesystem::is_regular_file(std::filesystem::symlink_status(file_)));
  EXPECT_EQ(std::filesystem::status(file_).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(StoreBackupTest, NothingIsLeftOfOneThatFailed) {
  FaultyStore damaged(store_);
  damaged.read_error = absl::DataLossError("damaged");
  EXPECT_EQ(WriteBackup(**damaged.OpenReader(), file_).status(), absl::DataLossError("damaged"));
  EXPECT_THAT(Files(), testing::IsEmpty());
}

TEST_F(StoreBackupTest, DamagedOrTruncatedFileIsNeverRestoredAsSomethingElse) {
  ASSERT_EQ(WriteBackup(store_, file_).status(), absl::OkStatus());
  const std::string whole = Bytes();
  const std::string before = Dump::Of(store_);
  for (size_t at = 0; at < whole.size(); at += 499) {
    MemoryStore target;
    Write(whole.substr(0, at));
    EXPECT_EQ(RestoreBackup(target, file_).status().code(), absl::StatusCode::kDataLoss) << "truncated to " << at;
    EXPECT_EQ(Dump::Of(target), "");
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    Write(flipped);
    const absl::Status status = RestoreBackup(target, file_).status();
    // Some bytes of gzip's header mean nothing.
    EXPECT_EQ(Dump::Of(target), status.ok() ? before : "") << "flipped at " << at;
  }
  Write("PGDMP is no backup of attnfleet");
  EXPECT_EQ(RestoreBackup(store_, file_).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace attnfleet::server
