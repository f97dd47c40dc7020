#include "server/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <mutex>

#include "faulty_store.h"
#include "fleet_fixture.h"
#include "memory_store.h"

namespace attnfleet::server {
namespace {

// A worker that answers every StartRun with a result, and checks that what it is sent was saved before.
class FakeWorker : public WorkerLink, public std::enable_shared_from_this<FakeWorker> {
 public:
  FakeWorker(MemoryStore& store, bool answers) : store_(store), answers_(answers) {}

  void Join(Coordinator& coordinator, const v1::WorkerHello& hello) {
    coordinator_ = &coordinator;
    name_ = hello.worker().name();
    coordinator.WorkerJoined(hello, shared_from_this());
  }

  void Send(v1::WorkerCommand command) override {
    if (command.has_batch()) {
      ++batches;
      for (v1::WorkerCommand& one : *command.mutable_batch()->mutable_commands()) Send(std::move(one));
      return;
    }
    {  // first, so that who has seen the count finds the command
      const std::lock_guard<std::mutex> lock(mutex_);
      commands.push_back(command);
    }
    if (command.has_start()) {
      ++starts;
      if (store_.StateOf(command.start().run()) != v1::RUN_STATE_ASSIGNED) ++unsaved;
      if (answers_) Report(command.start());
    } else if (command.has_acknowledge()) {
      for (const v1::ActiveRun& report : command.acknowledge().reports()) {
        ++acknowledged;
        if (store_.StateOf(report.run()) != v1::RUN_STATE_ENDED) ++unsaved;
      }
    }
  }

  void Report(const v1::StartRun& start) {
    v1::WorkerEvent event;
    *event.mutable_report() = MakeReport(start, v1::OUTCOME_MEASURED);
    coordinator_->WorkerSaid(name_, std::move(event), shared_from_this());
  }

  void End(const absl::Status& status) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended = status;
    has_ended = true;
  }

  std::vector<v1::WorkerCommand> Commands() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return commands;
  }

  std::atomic<int> batches{0};
  std::atomic<int> starts{0};
  std::atomic<int> acknowledged{0};
  std::atomic<int> unsaved{0};  // told of what was not on disk
  std::atomic<bool> has_ended{false};
  absl::Status ended;

 private:
  MemoryStore& store_;
  const bool answers_;
  Coordinator* coordinator_ = nullptr;
  std::string name_;
  std::mutex mutex_;
  std::vector<v1::WorkerCommand> commands;
};

template <typename Message = v1::Benchmark>
absl::StatusOr<Message> Parse(const absl::StatusOr<Wire>& wire) {
  if (!wire.ok()) return wire.status();
  Message message;
  EXPECT_TRUE(message.ParseFromString(**wire));
  return message;
}

class FakeWatcher : public Watcher {
 public:
  void Started(const Wire&) override { ++started; }
  void Changed(const std::shared_ptr<const v1::Run>&) override { ++changed; }
  void Ended(const absl::StatusOr<Wire>& benchmark) override { result.set_value(Parse(benchmark)); }

  std::atomic<int> started{0};
  std::atomic<int> changed{0};
  std::promise<absl::StatusOr<v1::Benchmark>> result;
};

class CoordinatorTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }

  void Restart(const Retention& retention = {}, const OpenRuns::Limits& limits = {},
               size_t max_answer_bytes = kMaxFramedAnswerBytes) {
    coordinator_.reset();
    Coordinator::Options options;
    options.retention = retention;
    options.open_runs = limits;
    options.max_answer_bytes = max_answer_bytes;
    options.lease_ms = kLeaseMs;
    options.now_unix_ms = [this] { return now_.load(); };
    options.observe = [this](const BatchReport& report) { Observe(report); };
    options.finished = [this](const v1::Benchmark& benchmark, uint64_t order) {
      const std::lock_guard<std::mutex> lock(observed_mutex_);
      finished_[order] = benchmark.id();
    };
    auto coordinator = Coordinator::Start(faulty_, options);
    ASSERT_EQ(coordinator.status(), absl::OkStatus());
    coordinator_ = std::move(*coordinator);
  }

  // Calls, and waits for the reply with an end.
  template <typename Message = v1::Benchmark, typename Call>
  absl::StatusOr<Message> Ask(Call call) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<Message>>>();
    call([promise](const absl::StatusOr<Wire>& wire) { promise->set_value(Parse<Message>(wire)); });
    auto future = promise->get_future();
    if (future.wait_for(std::chrono::seconds(30)) != std::future_status::ready) {
      return absl::DeadlineExceededError("no reply");
    }
    return future.get();
  }

  absl::StatusOr<v1::Benchmark> Submit(const v1::BenchmarkSpec& spec, const std::string& request_id = "") {
    v1::SubmitRequest request;
    *request.mutable_spec() = spec;
    request.set_request_id(request_id);
    return Ask([&](auto reply) { coordinator_->Submit(request, reply); });
  }

  absl::StatusOr<v1::Benchmark> Cancel(uint64_t id, const std::string& reason) {
    v1::CancelRequest request;
    request.set_id(id);
    request.set_reason(reason);
    return Ask([&](auto reply) { coordinator_->Cancel(request, reply); });
  }

  absl::StatusOr<v1::Benchmark> Get(uint64_t id) {
    v1::GetRequest request;
    request.set_id(id);
    return Ask([&](auto reply) { coordinator_->Get(request, reply); });
  }

  void Watch(uint64_t id, const std::shared_ptr<Watcher>& watcher) {
    v1::WatchRequest request;
    request.set_id(id);
    coordinator_->Watch(request, watcher);
  }

  // On the coordinator's thread.
  void Observe(const BatchReport& report) {
    const std::lock_guard<std::mutex> lock(observed_mutex_);
    for (const double seconds : report.queue_seconds) queue_seconds_.push_back(seconds);
    if (report.save_failed) ++save_failures_;
    if (report.save_seconds) ++saves_;
  }

  template <typename Condition>
  static bool Eventually(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  static constexpr int64_t kLeaseMs = 60'000;

  std::atomic<int64_t> now_{1'000'000};
  MemoryStore store_;
  FaultyStore faulty_{store_};
  std::mutex observed_mutex_;
  std::vector<double> queue_seconds_;
  std::map<uint64_t, uint64_t> finished_;  // by their order
  int save_failures_ = 0;
  int saves_ = 0;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(CoordinatorTest, EverythingIsSavedBeforeAnybodyIsTold) {
  const auto first = std::make_shared<FakeWorker>(store_, true);
  const auto second = std::make_shared<FakeWorker>(store_, true);
  v1::WorkerHello takes_batches = MakeHello("w1", 4);
  takes_batches.set_takes_batches(true);
  first->Join(*coordinator_, takes_batches);
  second->Join(*coordinator_, MakeHello("w2", 4));  // of an older version
  const auto watcher = std::make_shared<FakeWatcher>();
  const absl::StatusOr<v1::Benchmark> benchmark = Submit(MakeSpec({"eager", "sdpa"}, 8, 20));
  ASSERT_EQ(benchmark.status(), absl::OkStatus());
  Watch(benchmark->id(), watcher);
  auto future = watcher->result.get_future();
  ASSERT_EQ(future.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  const absl::StatusOr<v1::Benchmark> ended = future.get();
  ASSERT_EQ(ended.status(), absl::OkStatus());
  EXPECT_EQ(ended->state(), v1::BENCHMARK_STATE_FINISHED);
  EXPECT_EQ(ended->runs_ended(), 320u);
  EXPECT_EQ(ended->jobs(0).summary().measured_runs(), 20u);
  EXPECT_TRUE(Eventually([&] { return first->acknowledged + second->acknowledged == 320; }));
  EXPECT_EQ(first->starts + second->starts, 320);
  EXPECT_EQ(first->unsaved + second->unsaved, 0);
  EXPECT_GT(first->batches, 0);  // the first runs of four slots at least
  EXPECT_EQ(second->batches, 0);
}

TEST_F(CoordinatorTest, WelcomeComesFirst) {
  ASSERT_EQ(Submit(MakeSpec({"eager"}, 1, 1)).status(), absl::OkStatus());
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  ASSERT_TRUE(Eventually([&] { return worker->Commands().size() == 2; }));
  EXPECT_TRUE(worker->Commands()[0].has_welcome());
  EXPECT_TRUE(worker->Commands()[1].has_start());
}

TEST_F(CoordinatorTest, NothingIsSentOrAcknowledgedWhileTheStoreFailsAndAllOfItAfterwards) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  ASSERT_EQ(Submit(MakeSpec({"eager"}, 1, 2)).status(), absl::OkStatus());
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  faulty_.fault = FaultyStore::Fault::kFull;
  worker->Report(worker->Commands().back().start());
  ASSERT_TRUE(Eventually(
      [&] { return Submit(MakeSpec({"eager"}, 1, 1)).status().code() == absl::StatusCode::kResourceExhausted; }));
  EXPECT_EQ(worker->acknowledged, 0);
  EXPECT_EQ(worker->starts, 1);
  faulty_.fault = FaultyStore::Fault::kNone;
  EXPECT_TRUE(Eventually([&] { return worker->acknowledged == 1 && worker->starts == 2; }));
  EXPECT_EQ(worker->unsaved, 0);
}

TEST_F(CoordinatorTest, ExplainSaysThatTheStoreDoesNotWork) {
  const auto explain = [this](uint64_t id) {
    const auto response = Ask<v1::ExplainResponse>([&](auto reply) { coordinator_->Explain(id, reply); });
    EXPECT_EQ(response.status(), absl::OkStatus());
    return response.value_or(v1::ExplainResponse());
  };
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  EXPECT_EQ(explain(id).stalled(), "");
  faulty_.fault = FaultyStore::Fault::kFull;
  ASSERT_FALSE(Submit(MakeSpec({"eager"}, 1, 1)).ok());
  EXPECT_THAT(explain(id).stalled(), testing::EndsWith("No space left on device"));
  faulty_.fault = FaultyStore::Fault::kNone;
  EXPECT_TRUE(Eventually([&] { return explain(id).stalled().empty(); }));
}

// Clients repeat what is UNAVAILABLE, and tell their user what they heard last.
TEST_F(CoordinatorTest, SubmitThatIsAcceptedButNotSavedHearsThatEachTimeItIsRepeated) {
  faulty_.fault = FaultyStore::Fault::kLostAnswer;
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = Submit(MakeSpec({"eager"}, 1, 1), "first").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("benchmark 1 is accepted but not saved"));
  }
  EXPECT_THAT(std::string(Submit(MakeSpec({"eager"}, 1, 1), "second").status().message()),
              testing::Not(testing::HasSubstr("accepted")));
  faulty_.fault = FaultyStore::Fault::kNone;
  EXPECT_TRUE(Eventually([&] { return Submit(MakeSpec({"eager"}, 1, 1), "first").ok(); }));
  EXPECT_EQ(Get(2).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoordinatorTest, StoreThatFailedIsAskedBeforeItWorksAgainThoughNothingIsToBeSaved) {
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1), "first")->id();
  ASSERT_TRUE(Ask([&](auto reply) { coordinator_->SetPaused(id, true, reply); }).ok());
  faulty_.fault = FaultyStore::Fault::kLostAnswer;
  const absl::Status status = Ask([&](auto reply) { coordinator_->SetPaused(id, true, reply); }).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::Not(testing::HasSubstr("not saved"))) << "it was, long ago";
  EXPECT_THAT(std::string(Submit(MakeSpec({"eager"}, 1, 1), "first").status().message()),
              testing::Not(testing::HasSubstr("not saved")));
  EXPECT_TRUE(Eventually([&] {
    const std::lock_guard<std::mutex> lock(observed_mutex_);
    return save_failures_ >= 4;
  })) << "it is asked again and again";
  faulty_.fault = FaultyStore::Fault::kNone;
  EXPECT_TRUE(Eventually([&] { return Submit(MakeSpec({"eager"}, 1, 1), "second").ok(); }));
}

TEST_F(CoordinatorTest, WorkersThatComeAndGoWhileTheStoreFailsLeaveNothingBehind) {
  faulty_.fault = FaultyStore::Fault::kFull;
  ASSERT_FALSE(Submit(MakeSpec({"eager"}, 1, 1)).ok());
  std::vector<std::weak_ptr<FakeWorker>> gone;
  for (int i = 0; i < 3; ++i) {
    const auto left = std::make_shared<FakeWorker>(store_, false);
    left->Join(*coordinator_, MakeHello("w", 1));
    coordinator_->WorkerGone("w", left);
    const auto replaced = std::make_shared<FakeWorker>(store_, false);
    replaced->Join(*coordinator_, MakeHello("v", 1));
    gone.insert(gone.end(), {left, replaced});
  }
  const auto last = std::make_shared<FakeWorker>(store_, false);
  last->Join(*coordinator_, MakeHello("v", 1));
  coordinator_->WorkerGone("v", last);
  last->Join(*coordinator_, MakeHello("w", 1));
  EXPECT_TRUE(Eventually([&] { return std::ranges::all_of(gone, [](const auto& link) { return link.expired(); }); }));
  faulty_.fault = FaultyStore::Fault::kNone;
  EXPECT_TRUE(Eventually([&] { return last->starts == 1; }));
  EXPECT_TRUE(last->Commands()[0].has_welcome());
}

TEST_F(CoordinatorTest, RunsThatPlacementAddsTakeRoomToo) {
  Restart({}, {.submitter = 10});
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 4);
  spec.set_placement(v1::PLACEMENT_EVERY);
  const uint64_t id = Submit(spec)->id();
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 3));
  ASSERT_TRUE(Eventually([&] { return Get(id)->runs_total() == 12; }));
  EXPECT_EQ(Submit(MakeSpec({"eager"}, 1, 1)).status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(Cancel(id, "test").ok());
  EXPECT_EQ(Submit(MakeSpec({"eager"}, 1, 10)).status(), absl::OkStatus());
}

TEST_F(CoordinatorTest, AnswerThatWasLostOnItsWayFromTheStoreMakesNothingCountTwice) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  faulty_.fault = FaultyStore::Fault::kLostAnswer;
  worker->Report(worker->Commands().back().start());
  ASSERT_TRUE(Eventually([&] { return faulty_.failed >= 2; })) << "it is saved again";
  EXPECT_EQ(worker->acknowledged, 0);
  faulty_.fault = FaultyStore::Fault::kNone;
  ASSERT_TRUE(Eventually([&] { return worker->acknowledged == 1; }));
  EXPECT_EQ(Get(id)->runs_ended(), 1u);
  EXPECT_EQ(worker->starts, 1);
}

TEST_F(CoordinatorTest, EndedBenchmarksAreRemovedWhenTheyAreNotKeptAnyLonger) {
  const auto worker = std::make_shared<FakeWorker>(store_, true);
  worker->Join(*coordinator_, MakeHello("w", 1));
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Submit(MakeSpec({"eager"}, 1, 1), absl::StrCat(i)).status(), absl::OkStatus());
  ASSERT_TRUE(Eventually([&] { return Get(3)->state() == v1::BENCHMARK_STATE_FINISHED; }));
  Restart({.max_benchmarks = 1});
  ASSERT_TRUE(Eventually([&] { return Get(2).status().code() == absl::StatusCode::kNotFound; }));
  EXPECT_EQ(Get(1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Get(3).status(), absl::OkStatus());
  EXPECT_EQ(store_.LoadBenchmark(1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Submit(MakeSpec({"eager"}, 1, 1), "1")->id(), 4u) << "its request is forgotten too";
}

TEST_F(CoordinatorTest, AnEndedBenchmarkIsReadFromTheStoreWhileTheCoordinatorGoesOn) {
  const auto worker = std::make_shared<FakeWorker>(store_, true);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 3))->id();
  ASSERT_TRUE(Eventually([&] { return Get(id)->state() == v1::BENCHMARK_STATE_FINISHED; }));
  std::promise<void> reads;
  std::promise<void> gate;
  faulty_.read_beside = [&reads, open = gate.get_future().share()] {
    reads.set_value();
    open.wait();
  };
  Restart();
  std::promise<absl::StatusOr<v1::Benchmark>> answer;
  v1::GetRequest request;
  request.set_id(id);
  coordinator_->Get(request, [&answer](const absl::StatusOr<Wire>& wire) { answer.set_value(Parse(wire)); });
  reads.get_future().wait();
  std::promise<absl::StatusOr<v1::ListResponse>> list;
  coordinator_->List({}, [&list](absl::StatusOr<v1::ListResponse> response) { list.set_value(std::move(response)); });
  EXPECT_EQ(list.get_future().get()->benchmarks_size(), 1) << "answered meanwhile";
  auto future = answer.get_future();
  EXPECT_EQ(future.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  gate.set_value();
  const absl::StatusOr<v1::Benchmark> benchmark = future.get();
  ASSERT_EQ(benchmark.status(), absl::OkStatus());
  EXPECT_EQ(benchmark->jobs(0).summary().measured_runs(), 3u);
}

TEST_F(CoordinatorTest, RequestIdMakesADoubledSubmitOneBenchmarkAlsoAfterARestart) {
  const v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  const uint64_t id = Submit(spec, "r")->id();
  EXPECT_EQ(Submit(spec, "r")->id(), id);
  Restart();
  EXPECT_EQ(Submit(spec, "r")->id(), id);
  EXPECT_NE(Submit(spec, "other")->id(), id);
}

v1::BenchmarkSpec SpecOf(const std::string& submitter, int repetitions = 1) {
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, repetitions);
  spec.set_submitter(submitter);
  return spec;
}

TEST_F(CoordinatorTest, RequestIdsAreEachSubmittersOwnAlsoAfterARestart) {
  const uint64_t alice = Submit(SpecOf("alice"), "r")->id();
  const uint64_t bob = Submit(SpecOf("bob"), "r")->id();
  EXPECT_NE(alice, bob);
  Restart();
  EXPECT_EQ(Submit(SpecOf("alice"), "r")->id(), alice);
  EXPECT_EQ(Submit(SpecOf("bob"), "r")->id(), bob);
}

TEST_F(CoordinatorTest, RequestIdOfAnotherSpecIsRefusedAlsoAfterARestart) {
  const uint64_t id = Submit(SpecOf("alice"), "r")->id();
  const auto refused = [&] {
    const absl::Status status = Submit(SpecOf("alice", 2), "r").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(absl::StrCat("r is that of benchmark ", id)));
  };
  refused();
  Restart();
  refused();
}

TEST_F(CoordinatorTest, RequestIdOfAnOlderVersionsStoreIsKnown) {
  v1::BenchmarkSpec spec = SpecOf("alice");
  const uint64_t id = Submit(spec, "r")->id();
  v1::Benchmark benchmark = *Get(id);
  benchmark.mutable_spec()->mutable_training()->clear_step();  // which came later
  ASSERT_EQ(store_.Save({{{&benchmark, "r"}}, {}, {}}), absl::OkStatus());
  Restart();
  const absl::StatusOr<v1::Benchmark> again = Submit(spec, "r");
  ASSERT_EQ(again.status(), absl::OkStatus());
  EXPECT_EQ(again->id(), id);
}

TEST_F(CoordinatorTest, RunsThatHaveNotEndedAreBoundedInAllAndForEachSubmitter) {
  Restart({}, {.all = 5, .submitter = 3});
  const auto submit = [&](const std::string& who, int runs) {
    return std::string(Submit(SpecOf(who, runs)).status().message());
  };
  ASSERT_EQ(submit("alice", 3), "");
  EXPECT_EQ(Submit(SpecOf("alice", 1)).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(submit("alice", 1), testing::HasSubstr("submitter alice has 3 runs"));
  ASSERT_EQ(submit("bob", 2), "");
  EXPECT_THAT(submit("bob", 1), testing::HasSubstr("the coordinator has 5 runs"));
  Restart({}, {.all = 5, .submitter = 3});
  EXPECT_THAT(submit("carol", 1), testing::HasSubstr("the coordinator has 5 runs")) << "counted after a restart";
  ASSERT_EQ(Cancel(1, "").status(), absl::OkStatus());
  EXPECT_EQ(submit("alice", 2), "");
}

TEST_F(CoordinatorTest, LongReasonOfACancellationIsRefused) {
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  const absl::Status status = Cancel(id, std::string(201, 'x')).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "reason: 201 bytes long; at most 200 are possible");
  EXPECT_EQ(Cancel(id, std::string(200, 'x')).status(), absl::OkStatus());
}

TEST_F(CoordinatorTest, RestartKeepsBenchmarksAndGoesOn) {
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 2))->id();
  const auto before = std::make_shared<FakeWorker>(store_, false);
  before->Join(*coordinator_, MakeHello("w", 1));
  ASSERT_TRUE(Eventually([&] { return before->starts == 1; }));
  const v1::StartRun start = before->Commands().back().start();
  Restart();
  const auto after = std::make_shared<FakeWorker>(store_, true);
  v1::WorkerHello hello = MakeHello("w", 1);
  *hello.add_unacknowledged() = MakeReport(start, v1::OUTCOME_MEASURED);
  after->Join(*coordinator_, hello);
  ASSERT_TRUE(Eventually([&] { return Get(id)->state() == v1::BENCHMARK_STATE_FINISHED; }));
  EXPECT_EQ(after->starts, 1) << "the reported run is not repeated";
}

TEST_F(CoordinatorTest, SecondWorkerOfANameIsRefusedAndAReconnectReplacesItsOldStream) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const auto impostor = std::make_shared<FakeWorker>(store_, false);
  v1::WorkerHello other = MakeHello("w", 1);
  other.mutable_worker()->set_instance("another");
  impostor->Join(*coordinator_, other);
  ASSERT_TRUE(Eventually([&] { return impostor->has_ended.load(); }));
  EXPECT_EQ(impostor->ended.code(), absl::StatusCode::kAlreadyExists);
  const auto again = std::make_shared<FakeWorker>(store_, false);
  again->Join(*coordinator_, MakeHello("w", 1));
  ASSERT_TRUE(Eventually([&] { return worker->has_ended.load(); }));
  EXPECT_EQ(worker->ended.code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(again->has_ended);
}

// Only what is heard from the first one after the second has come tells that it is no predecessor that died.
TEST_F(CoordinatorTest, SecondWorkerOfANameIsRefusedForGoodOnceTheFirstIsHeardAgain) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  v1::WorkerHello other = MakeHello("w", 1);
  other.mutable_worker()->set_instance("another");
  const auto try_to_join = [&] {
    const auto second = std::make_shared<FakeWorker>(store_, false);
    second->Join(*coordinator_, other);
    EXPECT_TRUE(Eventually([&] { return second->has_ended.load(); }));
    return second->ended;
  };
  v1::WorkerEvent heartbeat;
  heartbeat.mutable_heartbeat();
  EXPECT_EQ(try_to_join().code(), absl::StatusCode::kAlreadyExists);
  coordinator_->WorkerSaid("w", heartbeat, worker);
  EXPECT_EQ(try_to_join().code(), absl::StatusCode::kAlreadyExists) << "it may have been under way";
  now_ += 10'000;
  EXPECT_EQ(try_to_join().code(), absl::StatusCode::kAlreadyExists) << "silent since";
  heartbeat.mutable_heartbeat()->set_draining(true);
  coordinator_->WorkerSaid("w", heartbeat, worker);
  coordinator_->WorkerSaid("w", heartbeat, worker);
  EXPECT_EQ(try_to_join().code(), absl::StatusCode::kAlreadyExists) << "makes room soon";
  heartbeat.mutable_heartbeat()->set_draining(false);
  coordinator_->WorkerSaid("w", heartbeat, worker);
  coordinator_->WorkerSaid("w", heartbeat, worker);
  const absl::Status refused = try_to_join();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("a worker named w is running already"));
  other.mutable_worker()->set_instance("a third");
  EXPECT_EQ(try_to_join().code(), absl::StatusCode::kAlreadyExists) << "the first may have died meanwhile";
}

TEST_F(CoordinatorTest, AStoreThatCannotBeReadIsUnavailableAndTheReasonIsSaid) {
  const auto worker = std::make_shared<FakeWorker>(store_, true);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  ASSERT_TRUE(Eventually([&] { return Get(id)->state() == v1::BENCHMARK_STATE_FINISHED; }));
  for (const absl::Status& error : {absl::PermissionDeniedError("too many open files"),
                                    absl::NotFoundError("there is no store x"), absl::InternalError("I/O")}) {
    faulty_.open_error = error;
    Restart();
    const absl::Status status = Get(id).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(status.message(), absl::StrCat("benchmark 1 cannot be read at present: ", std::string(error.message())));
  }
  faulty_.open_error = absl::OkStatus();
  for (const auto& [error, code] : {std::pair{absl::PermissionDeniedError("I/O"), absl::StatusCode::kUnavailable},
                                    std::pair{absl::DataLossError("damaged"), absl::StatusCode::kDataLoss}}) {
    faulty_.read_error = error;
    Restart();
    EXPECT_EQ(Get(id).status().code(), code);
  }
  faulty_.read_error = absl::OkStatus();
  Restart();
  EXPECT_EQ(Get(id).status(), absl::OkStatus());
}

// The successor of a leader that was passed over had accepted a benchmark, whose watch asked the old one and gave up.
TEST_F(CoordinatorTest, OnlyACoordinatorThatLeadsSaysThatThereIsNoBenchmark) {
  const auto watcher = std::make_shared<FakeWatcher>();
  EXPECT_EQ(Get(5).status().code(), absl::StatusCode::kNotFound);
  faulty_.leads = false;
  EXPECT_EQ(Get(5).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Cancel(5, "").status().code(), absl::StatusCode::kUnavailable);
  Watch(5, watcher);
  EXPECT_EQ(watcher->result.get_future().get().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoordinatorTest, WatchThatComesWithTheLastReportEndsWithTheFinishedBenchmark) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  EXPECT_EQ(Get(id)->state(), v1::BENCHMARK_STATE_RUNNING);  // an answer that is kept
  std::promise<void> reached;
  std::promise<void> gate;
  ASSERT_TRUE(coordinator_
                  ->Look([&](const Scheduler&) {
                    reached.set_value();
                    gate.get_future().wait();
                  })
                  .ok());
  reached.get_future().wait();
  const auto watcher = std::make_shared<FakeWatcher>();
  worker->Report(worker->Commands().back().start());
  Watch(id, watcher);
  gate.set_value();
  const absl::StatusOr<v1::Benchmark> ended = watcher->result.get_future().get();
  ASSERT_TRUE(ended.ok());
  EXPECT_EQ(ended->state(), v1::BENCHMARK_STATE_FINISHED);
}

TEST_F(CoordinatorTest, OnlyACoordinatorThatLeadsAcknowledgesWhatItKnowsNothingOf) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  v1::StartRun of_the_other = worker->Commands().back().start();
  of_the_other.mutable_run()->set_benchmark_id(id + 1);
  faulty_.leads = false;
  worker->Report(of_the_other);
  EXPECT_TRUE(Eventually([&] {
    const std::lock_guard<std::mutex> lock(observed_mutex_);
    return save_failures_ > 0;
  }));
  EXPECT_EQ(worker->acknowledged, 0);
  faulty_.leads = true;
  EXPECT_TRUE(Eventually([&] { return worker->acknowledged == 1; }));
}

// A server that was stopped for longer than the lease once took all runs from workers that had been there all the time.
TEST_F(CoordinatorTest, NoWorkerLosesItsLeaseWhileTheCoordinatorStandsStill) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  now_ += 10 * kLeaseMs;
  EXPECT_EQ(Get(id)->jobs(0).runs(0).state(), v1::RUN_STATE_ASSIGNED);
  EXPECT_FALSE(worker->has_ended);
  // Now it looks all the time, and the worker really is silent.
  EXPECT_TRUE(Eventually([&] {
    now_ += kLeaseMs / 10;
    return Get(id).ok() && worker->has_ended;
  }));
  EXPECT_EQ(worker->ended.code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoordinatorTest, WrongSpecAndUnknownIdsAreErrorsThatSayWhich) {
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  spec.set_repetitions(0);
  EXPECT_THAT(std::string(Submit(spec).status().message()), testing::HasSubstr("repetitions"));
  EXPECT_EQ(Get(5).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Get(5).status().message()), testing::HasSubstr("5"));
}

TEST_F(CoordinatorTest, ReportsWaitingTimesFinishedBenchmarksAndFailedCommits) {
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 2))->id();
  now_ += 7'500;
  const auto worker = std::make_shared<FakeWorker>(store_, true);
  worker->Join(*coordinator_, MakeHello("w", 1));
  ASSERT_TRUE(Eventually([&] { return Get(id)->state() == v1::BENCHMARK_STATE_FINISHED; }));
  const uint64_t next = Submit(MakeSpec({"eager"}, 1, 1))->id();
  ASSERT_TRUE(Eventually([&] { return Get(next)->state() == v1::BENCHMARK_STATE_FINISHED; }));
  faulty_.fault = FaultyStore::Fault::kFull;
  EXPECT_FALSE(Submit(MakeSpec({"eager"}, 1, 1)).ok());
  coordinator_->Stop();
  const std::lock_guard<std::mutex> lock(observed_mutex_);
  EXPECT_THAT(queue_seconds_, testing::ElementsAre(7.5, 7.5, 0));
  EXPECT_THAT(finished_, testing::ElementsAre(testing::Pair(1, id), testing::Pair(2, next)));
  EXPECT_GE(saves_, 2);
  EXPECT_GE(save_failures_, 1);
}

TEST_F(CoordinatorTest, LogsAreLeftOutOfAnAnswerThatWouldBeTooLargeAndStayInTheStore) {
  constexpr size_t kMost = 2'000;
  Restart({}, {}, kMost);
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const auto watcher = std::make_shared<FakeWatcher>();
  const uint64_t id = Submit(MakeSpec({"eager"}, 1, 1))->id();
  Watch(id, watcher);
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  v1::WorkerEvent event;
  *event.mutable_report() = MakeReport(worker->Commands().back().start(), v1::OUTCOME_FAILED);
  const std::string log(kMost, 'x');
  event.mutable_report()->mutable_result()->mutable_failure()->set_log_tail(log);
  event.mutable_report()->mutable_result()->mutable_failure()->set_timed_out(true);  // for good
  coordinator_->WorkerSaid("w", event, worker);
  const absl::StatusOr<v1::Benchmark> ended = watcher->result.get_future().get();
  ASSERT_EQ(ended.status(), absl::OkStatus());
  const auto log_of = [](const v1::Benchmark& benchmark) {
    return benchmark.jobs(0).runs(0).result().failure().log_tail();
  };
  EXPECT_THAT(log_of(*ended), testing::StartsWith("(left out: "));
  Restart();
  EXPECT_EQ(log_of(*Get(id)), log);
}

TEST_F(CoordinatorTest, AnswerThatIsTooLargeIsAnErrorForGood) {
  const uint64_t id = Submit(MakeSpec({"eager"}, 10, 10))->id();
  Restart({}, {}, 100);
  EXPECT_EQ(Get(id).status().code(), absl::StatusCode::kOutOfRange);
  const auto watcher = std::make_shared<FakeWatcher>();
  Watch(id, watcher);
  const absl::Status ended = watcher->result.get_future().get().status();
  EXPECT_EQ(ended.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(ended.message()), testing::StartsWith("benchmark 1: the answer would be "));
}

TEST_F(CoordinatorTest, StopAnswersWhatCameBeforeAndTellsWorkersAndWatchers) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  const absl::StatusOr<v1::Benchmark> benchmark = Submit(MakeSpec({"eager"}, 1, 1));
  const auto watcher = std::make_shared<FakeWatcher>();
  Watch(benchmark->id(), watcher);
  auto watched = watcher->result.get_future();
  v1::SubmitRequest request;
  *request.mutable_spec() = MakeSpec({"eager"}, 1, 1);
  std::promise<absl::StatusOr<v1::Benchmark>> last;
  coordinator_->Submit(request, [&last](const absl::StatusOr<Wire>& reply) { last.set_value(Parse(reply)); });
  coordinator_->Stop();
  EXPECT_EQ(last.get_future().get().status(), absl::OkStatus());
  EXPECT_EQ(watched.get().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(worker->has_ended);
  EXPECT_EQ(worker->ended.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Submit(MakeSpec({"eager"}, 1, 1)).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoordinatorTest, RequestIdGoesWithTheRun) {
  const auto worker = std::make_shared<FakeWorker>(store_, false);
  worker->Join(*coordinator_, MakeHello("w", 1));
  ASSERT_EQ(Submit(MakeSpec({"eager"}, 1, 1), "ci:42").status(), absl::OkStatus());
  ASSERT_TRUE(Eventually([&] { return worker->starts == 1; }));
  EXPECT_EQ(worker->Commands().back().start().request_id(), "ci:42");
  EXPECT_THAT(std::string(Submit(MakeSpec({"eager"}, 1, 1), "two words").status().message()),
              testing::HasSubstr("request_id"));
}

}  // namespace
}  // namespace attnfleet::server
