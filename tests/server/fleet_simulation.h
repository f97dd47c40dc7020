#ifndef ATTNFLEET_TESTS_SERVER_FLEET_SIMULATION_H_
#define ATTNFLEET_TESTS_SERVER_FLEET_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/scheduler.h"

namespace attnfleet::server {

// A fleet in virtual time around the real scheduler, driven by a seed: workers that join, die, fall silent and come
// back, messages that come late, twice, out of order or never, users that submit, cancel, pause, resume and drain, and
// a coordinator that is killed and restored from a model of its store. The simulation keeps books of its own on what
// each slot runs and what was counted, decides by itself what fits where, and compares. Not every worker has every
// backend, and some never run where the rest of their shape does.
//
// After every step: the scheduler's invariants of what changed; every run is counted once, and only for a trainer that
// did end so; no slot holds two runs; none goes to a worker that is gone, drained or does not fit, or has not its
// backend; no slot idles that fits what waits, if not for another backend of its shape that the fleet has elsewhere, or
// because what waits crashed there and another worker takes runs; as long as one does, no run comes back to where it
// crashed; no benchmark gets its nodes before workers had the time to come back after a restart. Up to
// `check_all_up_to` jobs also everything else at every step: all invariants, by the simulation's own eyes that no
// slot idles for nothing, and for each run that was assigned that nothing of a higher priority, nor of the same that
// had begun there or is by a submitter with fewer slots, waited for that slot (the fairness bound). Above, all
// invariants every `check_all_every` steps.
class FleetSimulation {
 public:
  struct Options {
    uint32_t seed = 1;
    int workers = 6;
    uint64_t jobs = 0;         // submitted before the first step
    uint64_t keep_queued = 0;  // new benchmarks come whenever fewer runs wait
    int submit_one_in = 12;    // steps; 0: never
    int restart_one_in = 100;  // steps; 0: never
    uint64_t check_all_up_to = 1'000;
    int check_all_every = 10'000;
    bool checks = true;    // false: for measuring
    bool uniform = false;  // benchmarks that differ in their submitters alone
    bool uneven = true;    // not every worker has every backend
    bool closed = false;   // see Scheduler
  };

  explicit FleetSimulation(const Options& options);
  ~FleetSimulation();

  // So many random steps. The first thing that is wrong ends it: the error says what, the seed and the step.
  absl::Status Run(int steps);
  // From here on nobody fails and nothing new comes: everything must end that some worker fits.
  absl::Status Drain(int max_rounds);

  uint64_t jobs() const { return jobs_; }
  uint64_t runs_counted() const { return counted_; }
  const Scheduler& scheduler() const { return *scheduler_; }
  // How often each kind of event struck.
  const std::map<std::string, int>& events() const { return events_; }
  // Nanoseconds that the scheduler took for each event, by kind; Restore apart.
  std::map<std::string, std::vector<uint32_t>> TakeCosts() { return std::exchange(costs_, {}); }

 private:
  struct SimWorker;
  struct Message {
    int worker;
    int stream;
    v1::WorkerEvent event;
  };
  using RunId = std::tuple<uint64_t, uint32_t, uint32_t>;
  using SlotName = std::pair<std::string, std::string>;
  // What the store holds, and what is worth remembering of it.
  struct Stored {
    v1::Benchmark head;
    std::map<std::pair<uint32_t, uint32_t>, v1::Run> rows;
    std::set<uint32_t> begun;  // groups that have a row
  };
  using Backends = std::set<std::string>;

  int Pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }
  bool OneIn(int n) { return n > 0 && Pick(n) == 0; }
  absl::Status Wrong(const std::string& what) const;
  v1::BenchmarkSpec RandomSpec();
  uint64_t RandomBenchmark();
  void Advance();

  absl::Status Step();
  absl::Status RandomAction(SimWorker& worker);
  absl::Status Submit();
  absl::Status Join(SimWorker& worker);
  absl::Status NoticeGone(SimWorker& worker);
  absl::Status Restart();
  absl::Status SetDrained(SimWorker& worker, bool drained);
  absl::Status Deliver();
  void Finish(SimWorker& worker, v1::Outcome outcome);
  void HandBack(SimWorker& worker);
  void Post(SimWorker& worker, const v1::WorkerEvent& event);
  absl::Status Give(const Message& message);

  // Gives the scheduler one event and takes what it makes of it to the store and the workers.
  absl::Status Apply(const char* what, const std::string& worker, const std::function<void(Effects&)>& event);
  absl::Status Save(const Effects& effects);
  void LeaveSlot(const Stored& stored, const RunId& id);
  absl::Status SaveRun(const RunId& id, Stored& stored);
  absl::Status Send(const Effects& effects);
  absl::Status CheckWhatChanged(const Effects& effects, const std::string& worker);
  absl::Status CheckOrder(const Effects& effects);
  absl::Status CheckAll();
  // Whether a group of it waits for any slot like this, by the simulation's own lights. False where that is not plain
  // to see: a limit or a count, or a placement on every node.
  static bool PlainlyWaits(const Stored& stored);
  // What one node of a benchmark with placement every has come to.
  struct NodeState {
    bool begun = false;
    bool active = false;
    bool ended = false;
  };
  static NodeState StateOf(const Stored& stored, int node);
  // Whether it waits for nothing but its slot, where that is plain to see: so few others may hold a place of max_slots,
  // for their runs are on a slot, or their workers are neither lost nor drained and yet cannot run them now.
  bool NodeMayBegin(const Stored& stored, int node) const;
  // Of such a benchmark that has one on this slot; -1: it has none.
  static int NodeOn(const Stored& stored, const std::string& worker, const std::string& slot);
  static bool MayBegin(const Stored& stored);
  // The requirements alone.
  static bool Meets(const v1::BenchmarkSpec& spec, const SimWorker& worker);
  // Whether the requirements are met and the worker has some of the backends, of which no other has the same and more.
  bool Fits(const v1::BenchmarkSpec& spec, const Backends& wanted, const SimWorker& worker) const;
  // Whether some slot has some of these backends, and enough have any of the spec's.
  bool MayStart(const v1::BenchmarkSpec& spec, const Backends& wanted) const;
  static Backends AllOf(const v1::BenchmarkSpec& spec);
  // Of a group, the backends with runs that are neither on a slot nor ended.
  static Backends Left(const Stored& stored, uint32_t group);
  // Whether a group waits for any slot that fits: none of its runs is on a slot, and the workers that had some are
  // there and have none of what is left.
  bool PlainlyWaits(const Stored& stored, uint32_t group) const;
  // Workers on which a run of the group crashed and none was measured.
  static std::set<std::string> Shuns(const Stored& stored, uint32_t group);
  // Whether a slot that fits takes runs on another worker than those that the group shuns.
  bool HasOther(const Stored& stored, uint32_t group, const Backends& wanted) const;
  // Whether something of an open benchmark waits though enough workers fit.
  bool MustEnd(const Stored& stored) const;
  absl::Status CheckPlace(const Effects::Assignment& assignment) const;
  // Brings `offers` and `gathering_` up to date after an event. False: whether the scheduler has looked at the time in
  // it cannot be told, and it matters.
  bool CountOffers(const std::string& event, const std::string& worker);

  const Options options_;
  std::mt19937 random_;
  int64_t now_us_ = 1'000'000'000;
  int64_t now() const { return now_us_ / 1000; }
  bool gathering_ = false;  // the scheduler has been restarted and hopes for other workers
  int64_t gathers_until_ = 0;
  bool fleet_returns_ = false;  // until then, for the store was in use before
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::unique_ptr<SimWorker>> workers_;
  std::vector<Message> in_flight_;
  std::map<uint64_t, Stored> store_;
  std::set<std::string> stored_drained_;
  std::set<uint64_t> open_;                              // benchmarks that have not ended, by the store
  std::map<SlotName, RunId> holds_;                      // by the rows
  std::map<std::string, uint64_t> running_;              // slots of each submitter, by the rows
  std::set<std::pair<RunId, uint32_t>> ended_trainers_;  // run and attempt
  uint64_t jobs_ = 0;
  uint64_t counted_ = 0;
  int step_ = 0;
  const char* last_event_ = "none";
  std::map<std::string, int> events_;
  std::map<std::string, std::vector<uint32_t>> costs_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_TESTS_SERVER_FLEET_SIMULATION_H_
