#ifndef ATTNFLEET_SERVER_SCHEDULER_H_
#define ATTNFLEET_SERVER_SCHEDULER_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "attnfleet/v1/service.pb.h"
#include "server/benchmark_entry.h"
#include "server/fleet.h"
#include "server/retention.h"
#include "server/work_queue.h"

namespace attnfleet::server {

// What an event makes the coordinator do: save `runs` and `benchmarks` first, then send the rest.
struct Effects {
  struct Assignment {
    std::string worker;
    v1::StartRun start;
  };
  struct Stop {
    std::string worker;
    v1::StopRun stop;
  };
  struct Acknowledgement {
    std::string worker;
    v1::ActiveRun report;
  };

  std::set<uint64_t> benchmarks;  // whose state changed
  std::set<uint64_t> placed;      // PLACEMENT_EVERY: have their nodes now, and so other jobs
  // (benchmark, job, repetition) of runs that changed.
  std::set<std::tuple<uint64_t, uint32_t, uint32_t>> runs;
  std::set<std::tuple<uint64_t, uint32_t, uint32_t>> progressed;  // to be shown, not saved
  std::map<std::string, bool> drained;  // workers that an administrator drained (true) or took back
  uint64_t cancelled_unassigned = 0;    // runs that ended without ever having been assigned: they have no row
  std::vector<Assignment> assign;
  std::vector<Stop> stop;
  std::vector<Acknowledgement> acknowledge;
  std::vector<std::string> disconnect;  // workers whose stream is to be ended
};

// Why runs of a benchmark wait, as far as the fleet and the queue say so.
struct WaitReasons {
  struct Lane {
    std::string why;           // empty: nothing of it waits
    bool active = false;       // one of its runs is on a slot
    bool away = false;         // and the worker of that slot is not connected
    bool unfit = false;        // workers are connected, and too few of their slots fit
    BackendSet elsewhere = 0;  // backends that its slot has not
    std::string slot = {};     // "w1 cpu0", if it is bound to one
  };
  std::vector<Lane> lanes;             // of a benchmark that is over: none
  std::vector<std::string> unoffered;  // by backend: why no slot has it; empty: one does, or nothing can be told
};

// Of each job of a benchmark, with the reasons of the same moment. Pure.
std::vector<v1::Explanation> Explain(const v1::Benchmark& benchmark, const WaitReasons& reasons);

// Decides which run goes to which slot. Pure: events in, Effects out; the time is an argument (Unix milliseconds, never
// going back), and nothing here knows of threads, sockets or disks.
//
// What goes first, when a slot becomes idle: the highest priority; then what has begun on this slot; then the submitter
// whose runs hold the fewest slots (of those, whoever has waited longest for one); then the oldest benchmark. So it is
// also between nodes of PLACEMENT_EVERY, which wait for this slot alone, and what waits for any that fits. The jobs
// that differ in backend alone go to one slot, one run after another, repetition by repetition, so that ratios between
// backends are paired (a Lane, see benchmark_entry.h); backends that the slot has not go to another afterwards, and
// wait for one while there is none. What crashed before anything was measured there goes to another worker. A (run,
// attempt) is the fence: what carries an old attempt is acknowledged and dropped.
//
// An event costs the same however much is queued, up to logarithms; see WorkQueue.
class Scheduler {
 public:
  // A worker not heard of for `lease_ms` has lost its runs. `closed`: nobody but the first worker will ever come, so
  // what that has no slot for does not wait: it ends as unsupported.
  explicit Scheduler(int64_t lease_ms, bool closed = false) : lease_ms_(lease_ms), closed_(closed) {}

  // Take what the store held, before anything else: the workers that are drained, and each benchmark without its jobs
  // but with the runs that were ever assigned. Runs that still are wait for one lease for their worker to claim them.
  // The runs of an ended benchmark may be left out, as after ForgetRuns. DATA_LOSS names a run that the benchmark has
  // not.
  void RestoreDrained(const std::string& worker) { drained_.insert(worker); }
  absl::Status Restore(const v1::Benchmark& head, std::vector<v1::Run> runs, int64_t now);

  // `spec` is complete and valid (see proto/spec.h). Returns the new benchmark's id.
  uint64_t Submit(const v1::BenchmarkSpec& spec, int64_t now, Effects& effects);
  // These return false if there is no such benchmark. An ended one stays as it is.
  bool Cancel(uint64_t id, const std::string& reason, int64_t now, Effects& effects);
  // While it is paused nothing new of it starts; what runs goes on.
  bool SetPaused(uint64_t id, bool paused, int64_t now, Effects& effects);

  void WorkerJoined(const v1::WorkerHello& hello, int64_t now, Effects& effects);
  // Its stream is gone; its runs stay its own until the lease ends.
  void WorkerDisconnected(const std::string& worker, int64_t now);
  void WorkerHeard(const std::string& worker, bool draining, int64_t now, Effects& effects);
  // Nobody could be heard for so many milliseconds, which is not the workers' fault: their leases end later by as much.
  void ForgiveSilence(int64_t silence, int64_t now);
  // A drained worker gets nothing new, however often it reconnects. False if there is no such worker.
  bool SetDrained(const std::string& worker, bool drained, int64_t now, Effects& effects);
  void RunProgressed(const std::string& worker, const v1::RunProgress& progress, int64_t now, Effects& effects);
  void RunReported(const std::string& worker, const v1::RunReport& report, int64_t now, Effects& effects);
  void RunHandedBack(const std::string& worker, const v1::RunHandedBack& handed_back, int64_t now, Effects& effects);
  // Takes the runs of workers whose lease has ended, and cancels what is past its deadline. Call a few times in each
  // lease.
  void Tick(int64_t now, Effects& effects);

  bool Exists(uint64_t id) const { return FindEntry(id) != nullptr; }
  uint64_t newest() const { return benchmarks_.empty() ? 0 : benchmarks_.rbegin()->first; }
  // The benchmark without its jobs, and with them. Nothing if there is none, or (with them) if its runs are forgotten.
  std::optional<v1::Benchmark> Head(uint64_t id) const;
  std::optional<Picture> TakePicture(uint64_t id);
  // Drops the runs of a benchmark that has ended, for the store has them. Does nothing to another.
  void ForgetRuns(uint64_t id);
  // Ended benchmarks that `retention` does not keep, oldest first: as many as have `max_runs` runs together, at least
  // one if there is any. Never the newest of all benchmarks, whose number must not be given again.
  std::vector<uint64_t> Expired(const Retention& retention, int64_t now, uint64_t max_runs) const;
  // Forgets a benchmark that has ended.
  void Forget(uint64_t id) { benchmarks_.erase(id); }
  // Of a benchmark that exists.
  uint64_t RunsTotal(uint64_t id) const { return FindEntry(id)->runs_total(); }
  int64_t SubmittedUnixMs(uint64_t id) const { return FindEntry(id)->submitted_unix_ms(); }
  // Null if it was never assigned. Valid until the next event.
  const v1::Run* FindRun(const v1::RunKey& key) const;
  // As in a picture. Of a run that was assigned.
  std::shared_ptr<const v1::Run> ShareRun(const v1::RunKey& key);
  // Newest first, without jobs. Fewer than the limit if they have more than 100,000 shapes together.
  std::vector<v1::Benchmark> List(int limit, uint64_t before_id) const;
  std::vector<v1::WorkerStatus> Workers() const;
  std::optional<v1::WorkerStatus> FindWorker(const std::string& worker) const;
  // Union over the connected workers, in the order in which they list them.
  const std::vector<v1::Backend>& Backends();
  // Of a benchmark that exists; see Explain().
  WaitReasons WhyItWaits(uint64_t id) const;

  struct RunCounts {
    uint64_t queued = 0;
    uint64_t active = 0;

    friend bool operator==(const RunCounts&, const RunCounts&) = default;
  };
  // Runs of benchmarks that are not over.
  struct Counts {
    std::array<RunCounts, 3> by_priority;  // below 0, 0, above
    uint64_t workers_connected = 0;
    uint64_t slots = 0;

    uint64_t queued() const;
    uint64_t active() const;
    friend bool operator==(const Counts&, const Counts&) = default;
  };
  const Counts& counts() const { return counts_; }

  // What must hold between any two events; the error says what does not. For tests. The first looks at everything, the
  // others at what one event may have changed, and at whether any slot idles for nothing.
  absl::Status CheckInvariants() const;
  absl::Status CheckBenchmark(uint64_t id) const;
  absl::Status CheckWorker(const std::string& worker) const;
  absl::Status CheckNothingIdles() const { return queue_.CheckNothingIdles(); }

 private:
  // scheduler.cc: events, and what they do to runs.
  BenchmarkEntry* FindEntry(uint64_t id);
  const BenchmarkEntry* FindEntry(uint64_t id) const;
  static RunCounts& CountsOf(Counts& counts, const BenchmarkEntry& entry);
  // Null unless (run, attempt) is what runs on this worker now.
  v1::Run* FindCurrent(const std::string& worker, const v1::RunKey& key, uint32_t attempt);
  BenchmarkEntry& AddEntry(const v1::Benchmark& head);
  static void RestoreRuns(BenchmarkEntry& entry, std::vector<v1::Run> runs);
  void RestoreLanes(BenchmarkEntry& entry, const v1::Benchmark& stored, int64_t now);
  Slot& PlaceholderSlot(const std::string& worker, const std::string& slot, int64_t now);
  void TakeReport(const std::string& worker, const v1::RunReport& report, int64_t now, Effects& effects);
  void TakeHello(Worker& worker, const v1::WorkerHello& hello, int64_t now, Effects& effects);
  void DropMissingSlots(Worker& worker, int64_t now, Effects& effects);
  void FileSlots(Worker& worker, int64_t now, Effects& effects);
  void SettleBound(Slot& slot, int64_t now, Effects& effects);
  void EndRun(BenchmarkEntry& entry, v1::Run& run, v1::RunResult result, int64_t now, Effects& effects);
  // The attempt gave no result: a new one if the benchmark allows, else the run ends with `result`. The lane leaves a
  // worker that was lost, or crashed before it measured anything of it.
  void FailAttempt(BenchmarkEntry& entry, v1::Run& run, v1::RunResult result, bool worker_lost, int64_t now,
                   Effects& effects);
  // Back to the queue. No failure is counted.
  void Requeue(BenchmarkEntry& entry, v1::Run& run, int64_t now, Effects& effects);
  void LoseRun(const v1::RunKey& key, const std::string& reason, int64_t now, Effects& effects);
  void LoseWorker(Worker& worker, const std::string& reason, int64_t now, Effects& effects);
  void ForgetWorker(Worker& worker, int64_t now, Effects& effects);
  void CancelEntry(BenchmarkEntry& entry, const std::string& reason, int64_t now, Effects& effects);
  void Close(BenchmarkEntry& entry, v1::BenchmarkState state, const std::string& reason, int64_t now, Effects& effects);
  void TakeOverdue(int64_t now, Effects& effects);

  // scheduler_lanes.cc: which lane goes to which slot.
  void ReleaseSlot(BenchmarkEntry& entry, const v1::Run& run);
  // Of the benchmark's backends, those that may run there.
  static BackendSet RunnableOn(const BenchmarkEntry& entry, const Slot& slot);
  void Bind(BenchmarkEntry& entry, uint32_t index, Slot& slot);
  // PLACEMENT_EVERY: a node whose worker is away leaves its place among those that max_slots allows to another, unless
  // something runs there; when its worker is back, it waits for one.
  void SettlePlace(BenchmarkEntry& entry, uint32_t index);
  void SettlePlaces(Worker& worker);
  // It counts towards max_slots from now on.
  static void AdmitLane(BenchmarkEntry& entry, uint32_t index);
  void Unbind(BenchmarkEntry& entry, uint32_t index);
  // Among the unbound lanes, by what it wants.
  void FileLane(BenchmarkEntry& entry, uint32_t index);
  void UnbindAll(Worker& worker);
  // A run of the lane has left its slot.
  void SettleLane(BenchmarkEntry& entry, uint32_t index);
  // The lane's runs of these backends that wait.
  void EndWaiting(BenchmarkEntry& entry, uint32_t index, BackendSet of, const v1::RunResult& result, int64_t now,
                  Effects& effects);
  // The node is gone for good: what it has not run has failed.
  void FailLane(BenchmarkEntry& entry, uint32_t index, const std::string& reason, int64_t now, Effects& effects);
  // PLACEMENT_EVERY: what the node's slot has no backend for is unsupported, for it can go nowhere else.
  void EndWhatNodeLacks(BenchmarkEntry& entry, uint32_t index, int64_t now, Effects& effects);
  // Also those that have not begun, which begin for it. Of a benchmark that is to end there.
  std::vector<uint32_t> AllLanes(BenchmarkEntry& entry);
  // In a closed fleet, once its worker has come. The first: of all benchmarks.
  void EndWhatNoSlotOffers(int64_t now, Effects& effects);
  void EndWhatNoSlotOffers(BenchmarkEntry& entry, int64_t now, Effects& effects);
  void UpdateTurn(BenchmarkEntry& entry, uint32_t index);
  void UpdateQueue(BenchmarkEntry& entry);
  void Admit(BenchmarkEntry& entry);
  void UpdateSlots(Worker& worker);
  void SetConnected(Worker& worker, bool connected);
  void PlaceOnEverySlot(BenchmarkEntry& entry, int64_t now, Effects& effects);
  // Workers had the time to come back after a restart.
  void EndGathering();
  // Takes what is overdue, then fills the slots that became idle, then finds slots for what is new.
  void Schedule(int64_t now, Effects& effects);
  void FillSlot(Slot& slot, int64_t now, Effects& effects);
  Rank RankOf(const LaneTurn& turn) const;
  // Of the lanes that wait for this slot alone, the one that goes first.
  std::optional<LaneTurn> FirstTurn(const Slot& slot) const;
  // Begins a lane of the candidate on the slot, which is idle and fits, or on another like it if the lane should avoid
  // this worker.
  void StartLane(const WorkQueue::Candidate& candidate, Slot& offered, int64_t now, Effects& effects);
  static uint32_t PickLane(const BenchmarkEntry& entry, const Need& need, const std::string& worker);
  void Assign(BenchmarkEntry& entry, uint32_t index, Slot& slot, int64_t now, Effects& effects);

  // scheduler_explain.cc
  // "" if it waits for any slot that fits: ExplainClass says why there is none.
  std::string ExplainLane(const BenchmarkEntry& entry, uint32_t lane) const;
  WaitReasons::Lane ExplainClass(const BenchmarkEntry& entry, const BenchmarkEntry::Filing& filing) const;
  // Why no slot has the backend: "no slot offers flash2: w1 cpu0 has no backend flash2 on cpu".
  std::string ExplainMissing(const WorkClass& work_class, uint32_t backend) const;
  // For a slot that has less than others: "w1 cpu0 has more".
  std::string WhoHasMore(const WorkClass& work_class) const;
  v1::WorkerStatus StatusOf(const Worker& worker) const;

  const int64_t lease_ms_;
  const bool closed_;
  absl::btree_map<uint64_t, std::unique_ptr<BenchmarkEntry>> benchmarks_;
  Fleet fleet_;
  WorkQueue queue_;
  // After a restart workers come back one by one. Until they had the time to, nothing goes to a slot that has some of
  // the wanted backends because no other seems to have more.
  int64_t gathers_until_ = 0;
  // Nor is anything placed on every slot, if the store was in use before. A closed fleet has its one worker.
  bool fleet_returns_ = false;
  std::set<std::string> drained_;                     // by an administrator
  std::set<std::pair<int64_t, uint64_t>> deadlines_;  // Unix ms, benchmark
  std::set<std::pair<int64_t, std::string>> drains_;  // until when a worker that drains is awaited
  std::vector<Slot*> idle_;  // that may have become able to take a run since Schedule last looked
  Counts counts_;
  std::vector<v1::Backend> backends_;
  bool backends_known_ = false;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_SCHEDULER_H_
