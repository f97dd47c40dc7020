#ifndef ATTNFLEET_SERVER_BENCHMARK_ENTRY_H_
#define ATTNFLEET_SERVER_BENCHMARK_ENTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "attnfleet/v1/benchmark.pb.h"
#include "proto/spec.h"
#include "server/fleet.h"
#include "server/work_queue.h"

namespace attnfleet::server {

bool IsActive(const v1::Run& run);
v1::RunResult MakeResult(v1::Outcome outcome, const std::string& reason);
// Of a benchmark with its jobs: if it was cancelled, the runs that nothing else is known of ended with it.
void EndUnassignedRuns(v1::Benchmark& benchmark);
// Unix ms; 0: it has none.
int64_t DeadlineOf(const v1::Benchmark& head);

// A benchmark at one moment. Cheap to take, for the runs are shared: from then on nobody changes them.
struct Picture {
  v1::Benchmark head;                                // without jobs
  std::vector<std::shared_ptr<const v1::Run>> runs;  // that were ever assigned, in no order
};
// With all jobs and runs.
v1::Benchmark WithRuns(const Picture& picture);

// What goes to one slot, run after run: with PLACEMENT_ANY the jobs of one shape, so that ratios between backends are
// paired; with PLACEMENT_EVERY all that one node has to do. Its runs go out round by round: in each, one repetition of
// one shape by every backend that the slot has. What it has not comes to another slot afterwards.
struct Lane {
  struct Runs {
    uint32_t next = 0;            // rounds from here on have never been assigned
    std::set<uint32_t> returned;  // rounds below `next` that wait again
  };
  std::vector<Runs> runs;        // by backend
  bool active = false;           // one of its runs is on a slot
  bool started = false;          // one of its runs has been
  bool admitted = false;         // counts towards the benchmark's max_slots
  Slot* slot = nullptr;          // bound to; null: to none
  Need filed;                    // what it is filed by in BenchmarkEntry::unbound
  std::optional<LaneTurn> turn;  // its place in slot->waiting
  std::string avoid;             // the worker that was lost with a run of it
  std::set<std::string> shuns;   // workers on which a run of it crashed and none was measured (PLACEMENT_ANY)
};

// A benchmark as the scheduler keeps it: small while nothing has happened to it. Runs that were never assigned exist
// in WithRuns() alone, and the message is packed unless something runs.
class BenchmarkEntry {
 public:
  // A new one, or one that the store held, without jobs.
  explicit BenchmarkEntry(const v1::Benchmark& head);

  uint64_t id() const { return id_; }
  v1::BenchmarkState state() const { return state_; }
  bool over() const { return IsOver(state_); }
  bool paused() const { return paused_; }
  bool every() const { return every_; }
  bool placed() const { return nodes_ > 0; }  // PLACEMENT_EVERY: it has its nodes
  int priority() const { return priority_; }
  uint32_t max_slots() const { return max_slots_; }
  int64_t deadline_unix_ms() const { return deadline_unix_ms_; }  // 0: none
  uint32_t shapes() const { return shapes_; }
  uint32_t runs_total() const;
  uint32_t runs_ended() const { return runs_ended_; }
  uint32_t runs_active() const { return runs_active_; }
  uint32_t runs_waiting() const { return runs_total() - runs_ended_ - runs_active_; }

  // The message without its jobs.
  v1::Benchmark Head() const;
  Picture TakePicture();
  // As in Head(), for as long as it is unpacked.
  const v1::BenchmarkSpec& Spec();

  void SetState(v1::BenchmarkState state) { state_ = state; }
  void SetPaused(bool paused) { paused_ = paused; }
  void SetNodes(const std::vector<v1::Node>& nodes);
  // Ends it; what has not ended then is cancelled. Packs the message and forgets the lanes.
  void End(v1::BenchmarkState state, const std::string& cancel_reason, int64_t now);

  int64_t submitted_unix_ms() const { return submitted_unix_ms_; }
  int64_t ended_unix_ms() const { return ended_unix_ms_; }  // 0: it has not
  // Of one that is over: what it did, and what its runs gave.
  void ForgetLanes();
  void ForgetRuns();
  bool forgot_runs() const { return forgot_runs_; }

  // Runs.
  bool Has(const v1::RunKey& key) const;
  // Null if it was never assigned.
  v1::Run* FindRun(const v1::RunKey& key);
  const v1::Run* FindRun(const v1::RunKey& key) const;
  v1::Run& FindOrAddRun(const v1::RunKey& key);
  // As in a picture. Of a run that was assigned.
  std::shared_ptr<const v1::Run> ShareRun(const v1::RunKey& key);
  // Calls `look` for each that was ever assigned, in no order.
  template <typename Look>
  void ForEachRun(Look look) const {
    for (const auto& [index, row] : runs_) look(*row.run);
  }
  void RunBecameActive() { ++runs_active_; }
  void RunReturned() { --runs_active_; }
  void RunEnded(bool was_active);

  // Lanes. One that exists has begun (or, with PLACEMENT_EVERY, has its node) and has not ended.
  uint32_t lane_count() const { return (every_ ? nodes_ : shapes_); }
  uint32_t lane_rounds() const { return lane_shapes() * repetitions_; }  // of each
  uint32_t backends() const { return backends_; }
  BackendSet all_backends() const { return ~BackendSet{0} >> (64 - backends_); }
  uint32_t LaneOf(const v1::RunKey& key) const { return ShapeOf(key) / lane_shapes(); }
  uint32_t RoundOf(const v1::RunKey& key) const {
    return ShapeOf(key) % lane_shapes() * repetitions_ + key.repetition();
  }
  uint32_t BackendOf(const v1::RunKey& key) const { return key.job_index() % backends_; }
  v1::RunKey KeyOf(uint32_t lane, uint32_t round, uint32_t backend) const;
  Lane* FindLane(uint32_t index);
  const Lane* FindLane(uint32_t index) const;
  Lane& FindOrAddLane(uint32_t index);
  void EraseLane(uint32_t index) { lanes_.erase(index); }
  std::map<uint32_t, Lane>& lanes() { return lanes_; }
  const std::map<uint32_t, Lane>& lanes() const { return lanes_; }
  // Backends with runs that wait.
  BackendSet Wants(const Lane& lane) const;
  // Whether a run of the lane was measured on that worker.
  bool HasMeasured(uint32_t lane, const std::string& worker) const;
  // Of the lane's measured runs, the one that was given out last; null if there is none.
  const v1::Run* LastMeasured(uint32_t lane) const;
  // The next run of these backends, of which one waits: it waits no longer.
  v1::RunKey TakeRun(uint32_t lane, BackendSet of);
  void ReturnRun(const v1::RunKey& key);

  // Where lanes wait that are bound to no slot, by what they want.
  struct Filing {
    Need need;
    WorkClass* work_class;
    bool queued = false;  // is in the WorkQueue
  };

  // Lanes from here on have never begun (PLACEMENT_ANY).
  uint32_t next_lane = 0;
  // Lanes that have begun and are bound to no slot, by what they want (PLACEMENT_ANY), or that max_slots keeps waiting
  // (PLACEMENT_EVERY): not those whose worker was away and has not come back.
  std::set<std::pair<Need, uint32_t>> unbound;
  uint32_t admitted = 0;           // lanes that count towards max_slots
  std::vector<Filing> filings;     // the first for first_need(); until it is over
  Submitter* submitter = nullptr;  // until it is over

  // Of a lane that has not begun.
  Need first_need() const { return {.wanted = all_backends()}; }
  // Until it is over: of that need.
  WorkClass& work_class() const { return *filings.front().work_class; }
  // max_slots allows another lane.
  bool MayAdmit() const { return max_slots_ == 0 || admitted < max_slots_; }
  // PLACEMENT_ANY: a lane that needs just this waits for a slot.
  bool HasLane(const Need& need) const;

 private:
  // Whoever is about to change a run that is shared gets a copy of their own.
  struct Row {
    std::shared_ptr<v1::Run> run;
    bool shared = false;
  };
  static v1::Run& Own(Row& row);
  static const std::shared_ptr<v1::Run>& Share(Row& row);

  template <typename Look>
  void ForEachMeasured(uint32_t lane, Look look) const;

  uint32_t lane_shapes() const { return every_ ? shapes_ : 1; }
  uint32_t ShapeOf(const v1::RunKey& key) const { return key.job_index() / backends_; }
  uint32_t IndexOf(const v1::RunKey& key) const { return key.job_index() * repetitions_ + key.repetition(); }

  uint64_t id_ = 0;
  // The parts of the message that never change, in its wire form, and unpacked while something runs.
  std::string packed_;
  std::unique_ptr<v1::Benchmark> unpacked_;
  v1::BenchmarkState state_ = v1::BENCHMARK_STATE_UNSPECIFIED;
  bool paused_ = false;
  bool every_ = false;
  int priority_ = 0;
  uint32_t max_slots_ = 0;
  uint32_t shapes_ = 0;
  uint32_t backends_ = 0;
  uint32_t repetitions_ = 0;
  uint32_t nodes_ = 0;
  uint32_t runs_ended_ = 0;
  uint32_t runs_active_ = 0;
  bool forgot_runs_ = false;
  int64_t deadline_unix_ms_ = 0;
  int64_t submitted_unix_ms_ = 0;
  int64_t ended_unix_ms_ = 0;
  std::unordered_map<uint32_t, Row> runs_;  // that were ever assigned, by IndexOf
  std::map<uint32_t, Lane> lanes_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_BENCHMARK_ENTRY_H_
