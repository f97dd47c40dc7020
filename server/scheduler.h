#ifndef ATTNFLEET_SERVER_SCHEDULER_H_
#define ATTNFLEET_SERVER_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/service.pb.h"

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
  // (benchmark, job, repetition) of runs that changed.
  std::set<std::tuple<uint64_t, uint32_t, uint32_t>> runs;
  std::set<std::tuple<uint64_t, uint32_t, uint32_t>> progressed;  // to be shown, not saved
  std::vector<Assignment> assign;
  std::vector<Stop> stop;
  std::vector<Acknowledgement> acknowledge;
  std::vector<std::string> disconnect;  // workers whose stream is to be ended
};

// Decides which run goes to which slot. Pure: events in, Effects out; the time is an argument (Unix milliseconds, never
// going back), and nothing here knows of threads, sockets or disks.
//
// A group (the jobs of a benchmark that differ in backend alone) is bound to one slot and its runs go there one after
// another, repetition by repetition, so that ratios between backends are paired. Benchmarks are served in the order in
// which they came. A (run, attempt) is the fence: what carries an old attempt is acknowledged and dropped.
class Scheduler {
 public:
  // A worker not heard of for `lease_ms` has lost its runs.
  explicit Scheduler(int64_t lease_ms) : lease_ms_(lease_ms) {}

  // Takes what the store held. Runs that were assigned wait for one lease for their worker to claim them.
  void Restore(std::vector<v1::Benchmark> benchmarks, int64_t now);

  // `spec` is complete and valid (see proto/spec.h). Returns the new benchmark's id.
  uint64_t Submit(const v1::BenchmarkSpec& spec, int64_t now, Effects& effects);
  // False if there is no such benchmark; an ended one stays as it is.
  bool Cancel(uint64_t id, const std::string& reason, int64_t now, Effects& effects);

  void WorkerJoined(const v1::WorkerHello& hello, int64_t now, Effects& effects);
  // Its stream is gone; its runs stay its own until the lease ends.
  void WorkerDisconnected(const std::string& worker, int64_t now);
  void WorkerHeard(const std::string& worker, bool draining, int64_t now, Effects& effects);
  void RunProgressed(const std::string& worker, const v1::RunProgress& progress, int64_t now, Effects& effects);
  void RunReported(const std::string& worker, const v1::RunReport& report, int64_t now, Effects& effects);
  void RunHandedBack(const std::string& worker, const v1::RunHandedBack& handed_back, int64_t now, Effects& effects);
  // Takes the runs of workers whose lease has ended. Call a few times in each lease.
  void Tick(int64_t now, Effects& effects);

  // Null if there is none. Valid until the next event.
  const v1::Benchmark* Find(uint64_t id) const;
  uint64_t newest() const { return benchmarks_.empty() ? 0 : benchmarks_.rbegin()->first; }
  // Newest first, without jobs.
  std::vector<v1::Benchmark> List(int limit, uint64_t before_id) const;
  std::vector<v1::WorkerStatus> Workers() const;
  // Union over the connected workers, in the order in which they list them.
  std::vector<v1::Backend> Backends() const;
  std::vector<v1::Explanation> Explain(uint64_t id) const;

  struct Counts {
    uint64_t queued = 0;
    uint64_t active = 0;
    uint64_t workers_connected = 0;
    uint64_t slots = 0;
  };
  Counts counts() const;

  // What must hold between any two events; the error says what does not. For tests: looks at everything.
  absl::Status CheckInvariants() const;

 private:
  using SlotKey = std::pair<std::string, std::string>;  // worker, slot
  using GroupKey = std::pair<uint64_t, uint32_t>;       // benchmark, group

  // Runs of a group are numbered by position = repetition * jobs + job: the order in which they go out.
  struct Group {
    uint32_t first_job = 0;
    uint32_t jobs = 0;
    uint32_t positions = 0;
    uint32_t next = 0;            // positions from here on have never been assigned
    std::set<uint32_t> returned;  // positions below `next` that wait again
    bool active = false;          // one of its runs is on a slot
    SlotKey bound;                // empty worker: to none
    bool waiting() const { return next < positions || !returned.empty(); }
  };
  struct Entry {
    v1::Benchmark benchmark;
    std::vector<Group> groups;
  };
  struct SlotState {
    v1::Slot slot;
    bool busy = false;
    v1::RunKey run;            // if busy
    std::set<GroupKey> bound;  // groups that wait here for their turn, and the one that runs
  };
  struct WorkerState {
    v1::WorkerInfo info;
    bool connected = false;
    bool draining = false;
    int64_t heard = 0;
    std::map<std::string, SlotState> slots;
  };

  Entry* FindEntry(const v1::RunKey& key);
  // Null unless (run, attempt) is what runs on this worker now.
  v1::Run* FindCurrent(const std::string& worker, const v1::RunKey& key, uint32_t attempt);
  v1::Run& RunAt(Entry& entry, const v1::RunKey& key);
  Group& GroupOf(Entry& entry, const v1::RunKey& key);
  uint32_t Position(const Group& group, const v1::RunKey& key) const;

  void Changed(const v1::Run& run, Effects& effects) const;
  void EndRun(Entry& entry, v1::Run& run, v1::RunResult result, int64_t now, Effects& effects);
  // The attempt gave no result: a new one if the benchmark allows, else the run ends with `result`.
  void FailAttempt(Entry& entry, v1::Run& run, v1::RunResult result, int64_t now, Effects& effects);
  // Back to the queue. No failure is counted.
  void Requeue(Entry& entry, v1::Run& run, Effects& effects);
  void LoseRun(const v1::RunKey& key, const std::string& reason, int64_t now, Effects& effects);
  void LoseWorker(const std::string& name, const std::string& reason, int64_t now, Effects& effects);
  void TakeReport(const std::string& worker, const v1::RunReport& report, int64_t now, Effects& effects);
  void ReleaseSlot(const v1::Run& run);
  void Bind(const GroupKey& key, Group& group, const SlotKey& slot);
  void Unbind(const GroupKey& key, Group& group);
  void UnbindAll(const std::string& worker);
  void UpdateState(Entry& entry, int64_t now, Effects& effects);

  // Fills idle slots: all of them if a group became free to go anywhere, else those that just became idle.
  void Schedule(int64_t now, Effects& effects);
  bool FillSlot(const std::string& worker, SlotState& slot, int64_t now, Effects& effects);
  void Assign(Entry& entry, Group& group, const SlotKey& key, SlotState& slot, int64_t now, Effects& effects);
  // "" if every backend of the group may run there; else why not.
  std::string Misfit(const Entry& entry, const Group& group, const WorkerState& worker, const SlotState& slot) const;
  // Why none of its waiting runs is on a slot.
  std::string ExplainGroup(const Entry& entry, const Group& group) const;

  const int64_t lease_ms_;
  std::map<uint64_t, Entry> benchmarks_;
  std::map<std::string, WorkerState> workers_;
  std::set<GroupKey> unbound_;  // groups with waiting runs and no slot, oldest benchmark first
  std::set<SlotKey> idle_;      // slots that may have become able to take a run since Schedule last looked
  bool try_all_slots_ = false;  // a group became unbound, or a benchmark came
  uint64_t queued_ = 0;
  uint64_t active_ = 0;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_SCHEDULER_H_
