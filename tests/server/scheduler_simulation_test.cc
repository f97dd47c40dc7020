// A fleet in virtual time: random joins, losses, late and doubled messages, cancels and restarts, driven by a seed that
// a failure prints. The scheduler's invariants are checked after every event.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fleet_fixture.h"
#include "server/scheduler.h"

namespace attnfleet::server {
namespace {

constexpr int64_t kLease = 1'000;
constexpr int kWorkers = 6;

class Simulation {
 public:
  explicit Simulation(uint32_t seed) : random_(seed) {}

  void Run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) Step();
    // Calm: everybody is there, nothing fails. Everything must end.
    for (int i = 0; i < kWorkers; ++i) Join(i);
    for (int i = 0; i < 20'000 && !AllEnded() && !testing::Test::HasFailure(); ++i) {
      now_ += 10;
      for (int w = 0; w < kWorkers; ++w) {
        if (!workers_[w].connected) Join(w);
        if (!workers_[w].active.empty()) Finish(w, v1::OUTCOME_MEASURED);
        Heartbeat(w);
      }
      Apply([this](Effects& effects) { scheduler_->Tick(now_, effects); });
    }
    EXPECT_TRUE(AllEnded());
    for (uint64_t id = 1; id <= scheduler_->newest(); ++id) {
      for (const v1::Job& job : scheduler_->Find(id)->jobs()) {
        for (const v1::Run& run : job.runs()) CheckCounted(run);
      }
    }
  }

 private:
  struct Worker {
    bool connected = false;
    int slots = 1;
    std::map<std::string, v1::StartRun> active;  // by slot
    std::vector<v1::RunReport> spool;            // not acknowledged
  };

  int Pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }
  static std::string Name(int worker) { return absl::StrCat("w", worker); }

  void Step() {
    now_ += Pick(60);
    const int worker = Pick(kWorkers);
    switch (Pick(12)) {
      case 0:
        Submit();
        break;
      case 1:
        if (scheduler_->newest() > 0 && Pick(4) == 0) {
          const uint64_t id = 1 + static_cast<uint64_t>(Pick(static_cast<int>(scheduler_->newest())));
          Apply([&](Effects& effects) { scheduler_->Cancel(id, "simulated", now_, effects); });
        }
        break;
      case 2:
        Join(worker);
        break;
      case 3:  // the stream breaks; the worker goes on
        workers_[worker].connected = false;
        Apply([&](Effects&) { scheduler_->WorkerDisconnected(Name(worker), now_); });
        break;
      case 4:  // the worker dies: what it ran is gone, what it spooled is on disk
        workers_[worker].connected = false;
        workers_[worker].active.clear();
        Apply([&](Effects&) { scheduler_->WorkerDisconnected(Name(worker), now_); });
        break;
      case 5:
        Restart();
        break;
      case 6:  // a report comes twice
        if (!workers_[worker].spool.empty() && workers_[worker].connected) Send(worker, workers_[worker].spool.front());
        break;
      case 7:
        Apply([this](Effects& effects) { scheduler_->Tick(now_, effects); });
        break;
      case 8:
        HandBack(worker);
        break;
      default: {
        const int dice = Pick(10);
        Finish(worker, dice == 0 ? v1::OUTCOME_FAILED : dice == 1 ? v1::OUTCOME_OUT_OF_MEMORY : v1::OUTCOME_MEASURED);
        Heartbeat(worker);
        break;
      }
    }
  }

  void Submit() {
    v1::BenchmarkSpec spec =
        MakeSpec(Pick(2) == 0 ? std::vector<std::string>{"eager"} : std::vector<std::string>{"eager", "sdpa"},
                 1 + Pick(3), 1 + Pick(3));
    Apply([&](Effects& effects) { scheduler_->Submit(spec, now_, effects); });
  }

  void Join(int index) {
    Worker& worker = workers_[index];
    if (worker.active.empty() && Pick(3) == 0) worker.slots = 1 + Pick(3);
    v1::WorkerHello hello = MakeHello(Name(index), worker.slots);
    for (const auto& [slot, start] : worker.active) *hello.add_active() = MakeActive(start);
    for (const v1::RunReport& report : worker.spool) *hello.add_unacknowledged() = report;
    worker.connected = true;
    Apply([&](Effects& effects) { scheduler_->WorkerJoined(hello, now_, effects); });
  }

  void Heartbeat(int index) {
    if (!workers_[index].connected) return;
    Apply([&](Effects& effects) { scheduler_->WorkerHeard(Name(index), false, now_, effects); });
  }

  // A trainer ends: the result is spooled, and sent if there is a stream.
  void Finish(int index, v1::Outcome outcome) {
    Worker& worker = workers_[index];
    if (worker.active.empty()) return;
    const v1::StartRun start = worker.active.begin()->second;
    worker.active.erase(worker.active.begin());
    worker.spool.push_back(MakeReport(start, outcome));
    if (worker.connected) Send(index, worker.spool.back());
  }

  void Send(int index, v1::RunReport report) {
    Apply([&](Effects& effects) { scheduler_->RunReported(Name(index), report, now_, effects); });
  }

  void HandBack(int index) {
    Worker& worker = workers_[index];
    if (worker.active.empty() || !worker.connected) return;
    v1::RunHandedBack handed_back;
    *handed_back.mutable_run() = worker.active.begin()->second.run();
    handed_back.set_attempt(worker.active.begin()->second.attempt());
    worker.active.erase(worker.active.begin());
    Apply([&](Effects& effects) { scheduler_->RunHandedBack(Name(index), handed_back, now_, effects); });
  }

  // The coordinator dies and comes back with what was saved: all that Apply has seen.
  void Restart() {
    std::vector<v1::Benchmark> stored;
    for (uint64_t id = 1; id <= scheduler_->newest(); ++id) stored.push_back(*scheduler_->Find(id));
    scheduler_ = std::make_unique<Scheduler>(kLease);
    scheduler_->Restore(stored, now_);
    for (auto& [index, worker] : workers_) worker.connected = false;
    ASSERT_EQ(scheduler_->CheckInvariants(), absl::OkStatus());
  }

  template <typename Event>
  void Apply(Event event) {
    Effects effects;
    event(effects);
    ASSERT_EQ(scheduler_->CheckInvariants(), absl::OkStatus());
    for (const Effects::Acknowledgement& acknowledged : effects.acknowledge) {
      std::erase_if(workers_[Index(acknowledged.worker)].spool, [&](const v1::RunReport& report) {
        return report.attempt() == acknowledged.report.attempt() &&
               FormatRunKey(report.run()) == FormatRunKey(acknowledged.report.run());
      });
    }
    for (const Effects::Stop& stop : effects.stop) {
      Worker& worker = workers_[Index(stop.worker)];
      if (!worker.connected) continue;
      std::erase_if(worker.active, [&](const auto& item) {
        return item.second.attempt() == stop.stop.attempt() &&
               FormatRunKey(item.second.run()) == FormatRunKey(stop.stop.run());
      });
    }
    for (const std::string& name : effects.disconnect) workers_[Index(name)].connected = false;
    for (const Effects::Assignment& assignment : effects.assign) {
      Worker& worker = workers_[Index(assignment.worker)];
      ASSERT_TRUE(worker.connected) << "assigned to a worker without a stream";
      ASSERT_FALSE(worker.active.contains(assignment.start.slot())) << "two runs on one slot";
      worker.active[assignment.start.slot()] = assignment.start;
    }
  }

  static int Index(const std::string& name) { return std::stoi(name.substr(1)); }

  bool AllEnded() const {
    const Scheduler::Counts counts = scheduler_->counts();
    return counts.queued == 0 && counts.active == 0;
  }

  void CheckCounted(const v1::Run& run) const {
    EXPECT_EQ(run.state(), v1::RUN_STATE_ENDED);
    EXPECT_NE(run.result().outcome(), v1::OUTCOME_UNSPECIFIED);
    if (run.result().outcome() == v1::OUTCOME_FAILED) {
      EXPECT_EQ(run.failed_attempts_size(), 2);
    }
  }

  std::mt19937 random_;
  int64_t now_ = 1'000'000;
  std::unique_ptr<Scheduler> scheduler_ = std::make_unique<Scheduler>(kLease);
  std::map<int, Worker> workers_;
};

class SchedulerSimulation : public testing::TestWithParam<uint32_t> {};

TEST_P(SchedulerSimulation, NothingIsLostCountedTwiceOrStuck) {
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  Simulation(GetParam()).Run(400);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerSimulation, testing::Range(1u, 41u));

}  // namespace
}  // namespace attnfleet::server
