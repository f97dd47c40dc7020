// What every store keeps to, whatever it writes to.

#include "server/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>

#include "faulty_store.h"
#include "fleet_fixture.h"
#include "memory_store.h"
#include "postgres_cluster.h"
#include "server/leadership.h"
#include "server/postgres.h"
#include "server/postgres_store.h"
#include "server/sqlite_store.h"
#include "server/store_readers.h"

namespace attnfleet::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

// One PostgreSQL for all tests. A new, empty database of it.
std::string NewDatabase() {
  static const absl::StatusOr<std::unique_ptr<PostgresCluster>> cluster = PostgresCluster::Start();
  EXPECT_EQ(cluster.status(), absl::OkStatus());
  if (!cluster.ok()) return "";
  const absl::StatusOr<std::string> url = (*cluster)->NewDatabase();
  EXPECT_EQ(url.status(), absl::OkStatus());
  return url.value_or("");
}

// One place to keep things, and stores that open it one after the other.
class Place {
 public:
  virtual ~Place() = default;
  virtual absl::StatusOr<std::unique_ptr<JobStore>> Open() = 0;
};

class MemoryPlace : public Place {
 public:
  absl::StatusOr<std::unique_ptr<JobStore>> Open() override { return std::make_unique<FaultyStore>(store_); }

 private:
  MemoryStore store_;
};

class SqlitePlace : public Place {
 public:
  SqlitePlace() {
    folder_ = testing::TempDir() + "/store.XXXXXX";
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
  }
  ~SqlitePlace() override { std::filesystem::remove_all(folder_); }
  absl::StatusOr<std::unique_ptr<JobStore>> Open() override { return SqliteStore::Open(folder_ + "/attnfleet.db"); }

 private:
  std::string folder_;
};

class PostgresPlace : public Place {
 public:
  PostgresPlace() { EXPECT_EQ(PostgresStore::Migrate(url_), absl::OkStatus()); }
  absl::StatusOr<std::unique_ptr<JobStore>> Open() override {
    leadership_.reset();
    leadership_ = std::make_unique<Leadership>(url_, "test:1", LeadershipTiming{.grace = {}});
    const absl::StatusOr<int64_t> epoch = leadership_->TryToLead();
    if (!epoch.ok()) return epoch.status();
    EXPECT_GT(*epoch, 0);
    return PostgresStore::Open(url_, leadership_.get());
  }

 private:
  const std::string url_ = NewDatabase();
  std::unique_ptr<Leadership> leadership_;
};

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Place>()> make;
};

class JobStoreTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    place_ = GetParam().make();
    Reopen();
  }

  void Reopen() {
    store_.reset();
    absl::StatusOr<std::unique_ptr<JobStore>> store = place_->Open();
    ASSERT_EQ(store.status(), absl::OkStatus());
    store_ = *std::move(store);
  }

  static v1::Benchmark MakeBenchmark(uint64_t id, v1::BenchmarkState state = v1::BENCHMARK_STATE_RUNNING) {
    v1::Benchmark benchmark;
    benchmark.set_id(id);
    *benchmark.mutable_spec() = MakeSpec({"eager", "sdpa"}, 2, 3);
    benchmark.set_state(state);
    benchmark.set_runs_total(12);
    for (v1::Job& job : ExpandJobs(id, benchmark.spec())) *benchmark.add_jobs() = job;
    return benchmark;
  }

  static v1::Run EndedRun(uint64_t benchmark, uint32_t job, uint32_t repetition) {
    v1::Run run;
    run.mutable_key()->set_benchmark_id(benchmark);
    run.mutable_key()->set_job_index(job);
    run.mutable_key()->set_repetition(repetition);
    run.set_state(v1::RUN_STATE_ENDED);
    run.set_attempt(1);
    run.mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
    run.mutable_result()->mutable_measurement()->set_iterations_per_second(12.5);
    // Bytes that need care on their way into a database.
    run.mutable_result()->set_reason(std::string("\0'\\\n\xc3\xa9", 6));
    return run;
  }

  std::vector<StoredBenchmark> LoadAll(bool runs_of_ended = true) {
    std::vector<StoredBenchmark> all;
    const absl::Status status = store_->Load(
        [&all](StoredBenchmark stored) {
          all.push_back(std::move(stored));
          return absl::OkStatus();
        },
        runs_of_ended);
    EXPECT_EQ(status, absl::OkStatus());
    return all;
  }

  std::unique_ptr<Place> place_;
  std::unique_ptr<JobStore> store_;
};

TEST_P(JobStoreTest, WhatWasSavedIsThereAfterReopening) {
  const v1::Benchmark benchmark = MakeBenchmark(7);
  const v1::Run run = EndedRun(7, 1, 2);
  ASSERT_EQ(store_->Save({{{&benchmark, "request"}}, {&run}, {{"state", std::string("\0\xff\x80", 3)}}}),
            absl::OkStatus());
  Reopen();
  const std::vector<StoredBenchmark> loaded = LoadAll();
  ASSERT_EQ(loaded.size(), 1u);
  EXPECT_EQ(loaded[0].request_id, "request");
  EXPECT_EQ(loaded[0].benchmark.jobs_size(), 0);
  const absl::StatusOr<v1::Benchmark> whole = WithJobs(loaded[0]);
  ASSERT_EQ(whole.status(), absl::OkStatus());
  EXPECT_EQ(whole->id(), 7u);
  EXPECT_EQ(whole->runs_ended(), 1u);
  EXPECT_EQ(whole->jobs_size(), 4);
  EXPECT_EQ(whole->jobs(1).runs(2).SerializeAsString(), run.SerializeAsString());
  EXPECT_EQ(whole->jobs(0).runs(0).state(), v1::RUN_STATE_QUEUED) << "a run without a row";
  EXPECT_THAT(*store_->LoadSettings(), ElementsAre(Pair("state", std::string("\0\xff\x80", 3))));
}

TEST_P(JobStoreTest, SavingAgainReplacesAndAnEmptySettingIsNone) {
  v1::Benchmark benchmark = MakeBenchmark(1);
  v1::Run run = EndedRun(1, 0, 0);
  ASSERT_EQ(store_->Save({{{&benchmark, "r"}}, {&run}, {{"a", "1"}, {"b", "1"}}}), absl::OkStatus());
  benchmark.set_state(v1::BENCHMARK_STATE_FINISHED);
  run.set_attempt(2);
  ASSERT_EQ(store_->Save({{{&benchmark, "r"}}, {&run}, {{"a", ""}, {"b", "2"}, {"c", ""}}}), absl::OkStatus());
  const std::vector<StoredBenchmark> loaded = LoadAll();
  ASSERT_EQ(loaded.size(), 1u);
  EXPECT_EQ(loaded[0].benchmark.state(), v1::BENCHMARK_STATE_FINISHED);
  ASSERT_EQ(loaded[0].runs.size(), 1u);
  EXPECT_EQ(loaded[0].runs[0].attempt(), 2u);
  EXPECT_THAT(*store_->LoadSettings(), ElementsAre(Pair("b", "2")));
}

TEST_P(JobStoreTest, BatchIsSavedWhollyOrNotAtAllAndTheStoreGoesOn) {
  const v1::Benchmark first = MakeBenchmark(1), second = MakeBenchmark(2), third = MakeBenchmark(3);
  ASSERT_EQ(store_->Save({{{&first, "same"}}, {}, {}}), absl::OkStatus());
  // The second request id breaks a unique index after benchmark 3 was taken.
  EXPECT_NE(store_->Save({{{&third, ""}, {&second, "same"}}, {}, {}}), absl::OkStatus());
  EXPECT_EQ(LoadAll().size(), 1u);
  EXPECT_EQ(store_->Save({{{&third, ""}}, {}, {}}), absl::OkStatus());
  EXPECT_EQ(LoadAll().size(), 2u);
}

TEST_P(JobStoreTest, EndedBenchmarksMayComeWithoutRunsAndAreLoadedOneByOne) {
  const v1::Benchmark ended = MakeBenchmark(1, v1::BENCHMARK_STATE_FINISHED), active = MakeBenchmark(2);
  const v1::Run of_ended = EndedRun(1, 3, 0), of_active = EndedRun(2, 0, 1);
  ASSERT_EQ(store_->Save({{{&ended, ""}, {&active, ""}}, {&of_ended, &of_active}, {}}), absl::OkStatus());
  const std::vector<StoredBenchmark> loaded = LoadAll(/*runs_of_ended=*/false);
  ASSERT_EQ(loaded.size(), 2u);
  EXPECT_TRUE(loaded[0].runs.empty());
  EXPECT_EQ(loaded[0].benchmark.runs_ended(), 12u);
  ASSERT_EQ(loaded[1].runs.size(), 1u);
  EXPECT_EQ(loaded[1].benchmark.runs_ended(), 1u);
  const absl::StatusOr<StoredBenchmark> one = store_->LoadBenchmark(1);
  ASSERT_EQ(one.status(), absl::OkStatus());
  ASSERT_EQ(one->runs.size(), 1u);
  EXPECT_EQ(one->runs[0].key().job_index(), 3u);
  EXPECT_EQ(store_->LoadBenchmark(3).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(JobStoreTest, AReaderOnAnotherThreadSeesWhatIsSavedWhileTheStoreGoesOn) {
  StoreReaders readers(*store_);
  const auto read = [&readers](uint64_t id) {
    return std::async(std::launch::async, [&readers, id] { return readers.Read(id); }).get();
  };
  EXPECT_EQ(read(1).status().code(), absl::StatusCode::kNotFound);
  v1::Benchmark benchmark = MakeBenchmark(1);
  const v1::Run run = EndedRun(1, 1, 2);
  ASSERT_EQ(store_->Save({{{&benchmark, ""}}, {&run}, {}}), absl::OkStatus());
  const absl::StatusOr<v1::Benchmark> whole = read(1);
  ASSERT_EQ(whole.status(), absl::OkStatus());
  EXPECT_EQ(whole->jobs(1).runs(2).SerializeAsString(), run.SerializeAsString());
  benchmark.set_state(v1::BENCHMARK_STATE_FINISHED);
  ASSERT_EQ(store_->Save({{{&benchmark, ""}}, {}, {}}), absl::OkStatus());
  EXPECT_EQ(read(1)->state(), v1::BENCHMARK_STATE_FINISHED);
  ASSERT_EQ(store_->Delete({1}), absl::OkStatus());
  EXPECT_EQ(read(1).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(JobStoreTest, ManyRunsComeInTheOrderOfTheirKeysWithTheirBenchmark) {
  constexpr uint32_t kRuns = 2'500;  // more than one fetch of any store
  std::vector<v1::Benchmark> benchmarks;
  std::vector<v1::Run> runs;
  StoreChanges changes;
  for (uint64_t id = 1; id <= 3; ++id) benchmarks.push_back(MakeBenchmark(id));
  for (uint32_t i = 0; i < kRuns; ++i) runs.push_back(EndedRun(3 - i % 2, i, 0));
  for (const v1::Benchmark& benchmark : benchmarks) changes.benchmarks.push_back({&benchmark, ""});
  for (const v1::Run& run : runs) changes.runs.push_back(&run);
  ASSERT_EQ(store_->Save(changes), absl::OkStatus());
  const std::vector<StoredBenchmark> loaded = LoadAll();
  ASSERT_EQ(loaded.size(), 3u);
  EXPECT_EQ(loaded[0].runs.size(), 0u);
  for (const size_t index : {1u, 2u}) {
    ASSERT_EQ(loaded[index].runs.size(), kRuns / 2);
    for (uint32_t i = 0; i < kRuns / 2; ++i) {
      ASSERT_EQ(loaded[index].runs[i].key().benchmark_id(), index + 1);
      ASSERT_EQ(loaded[index].runs[i].key().job_index(), 2 * i + (index == 1 ? 1 : 0));
    }
  }
}

TEST_P(JobStoreTest, ReaderThatFailsEndsTheReadingAndTheStoreGoesOn) {
  const v1::Benchmark first = MakeBenchmark(1), second = MakeBenchmark(2);
  ASSERT_EQ(store_->Save({{{&first, ""}, {&second, ""}}, {}, {}}), absl::OkStatus());
  int taken = 0;
  const absl::Status status = store_->Load([&taken](const StoredBenchmark&) {
    ++taken;
    return absl::AbortedError("enough");
  });
  EXPECT_EQ(status, absl::AbortedError(store_->name() + ": enough"));
  EXPECT_EQ(taken, 1);
  EXPECT_EQ(LoadAll().size(), 2u);
  EXPECT_EQ(store_->Save({{}, {}, {{"a", "1"}}}), absl::OkStatus());
}

TEST_P(JobStoreTest, DeletedBenchmarksAreGoneWithTheirRuns) {
  const v1::Benchmark first = MakeBenchmark(1), second = MakeBenchmark(2), third = MakeBenchmark(3);
  const v1::Run run = EndedRun(2, 0, 0);
  ASSERT_EQ(store_->Save({{{&first, ""}, {&second, ""}, {&third, ""}}, {&run}, {}}), absl::OkStatus());
  EXPECT_EQ(store_->Delete({1, 2, 99}), absl::OkStatus());
  ASSERT_EQ(LoadAll().size(), 1u);
  EXPECT_EQ(LoadAll()[0].benchmark.id(), 3u);
  EXPECT_EQ(store_->LoadBenchmark(2).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(JobStoreTest, FillTakesEveryBatchOrNone) {
  const v1::Benchmark first = MakeBenchmark(1), second = MakeBenchmark(2);
  const auto fill = [&](bool fail) {
    int batch = 0;
    return store_->Fill([&, fail](StoreChanges& changes) -> absl::StatusOr<bool> {
      if (++batch == 3) return fail ? absl::StatusOr<bool>(absl::DataLossError("truncated")) : false;
      changes.benchmarks.push_back({batch == 1 ? &first : &second, ""});
      return true;
    });
  };
  EXPECT_EQ(fill(true), absl::DataLossError("truncated"));
  EXPECT_EQ(LoadAll().size(), 0u);
  EXPECT_EQ(fill(false), absl::OkStatus());
  EXPECT_EQ(LoadAll().size(), 2u);
  EXPECT_EQ(fill(false).code(), absl::StatusCode::kFailedPrecondition) << "not empty any more";
  EXPECT_EQ(LoadAll().size(), 2u);
}

TEST_P(JobStoreTest, RunForWhichTheSpecHasNoPlaceIsDataLoss) {
  const v1::Benchmark benchmark = MakeBenchmark(1);
  const v1::Run run = EndedRun(1, 4, 0);  // jobs 0 to 3
  ASSERT_EQ(store_->Save({{{&benchmark, ""}}, {&run}, {}}), absl::OkStatus());
  const absl::Status status = WithJobs(LoadAll()[0]).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1"));
}

// A standby of a newer version has migrated the database, while the older one leads.
TEST(PostgresStoreTest, ReadersGoOnAfterANewerCoordinatorHasMigrated) {
  const std::string url = NewDatabase();
  ASSERT_EQ(PostgresStore::Migrate(url), absl::OkStatus());
  const absl::StatusOr<std::unique_ptr<PostgresStore>> store = PostgresStore::Open(url, nullptr);
  ASSERT_EQ(store.status(), absl::OkStatus());
  StoreReaders readers(**store);
  ASSERT_EQ(Postgres(url, std::chrono::seconds(10)).Script("UPDATE attnfleet_schema SET version = version + 1"),
            absl::OkStatus());
  EXPECT_EQ(readers.Read(1).status().code(), absl::StatusCode::kNotFound) << "and not that the schema is a newer one";
  EXPECT_EQ(PostgresStore::Open(url, nullptr).status().code(), absl::StatusCode::kFailedPrecondition);
}

INSTANTIATE_TEST_SUITE_P(Memory, JobStoreTest,
                         testing::Values(Kind{"", [] { return std::make_unique<MemoryPlace>(); }}));
INSTANTIATE_TEST_SUITE_P(Sqlite, JobStoreTest,
                         testing::Values(Kind{"", [] { return std::make_unique<SqlitePlace>(); }}));
INSTANTIATE_TEST_SUITE_P(Postgres, JobStoreTest,
                         testing::Values(Kind{"", [] { return std::make_unique<PostgresPlace>(); }}));

}  // namespace
}  // namespace attnfleet::server
