#ifndef ATTNFLEET_SERVER_WORK_QUEUE_H_
#define ATTNFLEET_SERVER_WORK_QUEUE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "proto/spec.h"
#include "server/fleet.h"

namespace attnfleet::server {

struct WorkClass;

// Backends of one spec: bit i stands for its i-th.
using BackendSet = uint64_t;
static_assert(kMaxBackends <= 64);

struct BySerial {
  bool operator()(const Slot* a, const Slot* b) const { return a->serial < b->serial; }
};

// Of idle slots: one where the last trainer crashed may be broken, and is taken last.
struct ByHealth {
  bool operator()(const Slot* a, const Slot* b) const {
    return std::tie(a->crashed, a->serial) < std::tie(b->crashed, b->serial);
  }
};

// What a lane looks for: backends, and, while there are others, other workers than those on which it crashed.
struct Need {
  BackendSet wanted = 0;
  std::set<std::string> shuns = {};
  auto operator<=>(const Need&) const = default;  // NOLINT(modernize-use-nullptr): for clang-tidy 14 it holds a 0
};

// Slots of the fleet that no requirement can tell apart.
struct SlotKind {
  std::string key;
  v1::Slot slot;  // one of them; its id means nothing
  std::map<std::string, std::string> labels;
  std::set<std::string> backends;   // on this kind of device
  std::set<int> steps;              // values of TrainingStep; the reference is known everywhere
  uint32_t members = 0;             // slots, whether or not they take new runs
  std::set<Slot*, BySerial> slots;  // that take new runs, busy or not
  std::set<Slot*, ByHealth> idle;
  // As in WorkClass::offers, and 0 where it only counts towards WorkClass::able.
  std::unordered_map<WorkClass*, BackendSet> offers;
  std::unordered_set<WorkClass*> classes;  // that fit

  BackendSet OfferTo(WorkClass& work_class) const;
};

// A user's share of the fleet.
struct Submitter {
  struct Wait {  // a class and a priority in which something of theirs waits, and the share that is filed there
    uint64_t running;
    uint64_t served;
    WorkClass* work_class;
    int priority;
    bool operator<(const Wait& other) const {
      return std::tie(running, served, work_class, priority) <
             std::tie(other.running, other.served, other.work_class, other.priority);
    }
  };

  std::string name;
  uint32_t serial = 0;
  uint64_t running = 0;     // slots that run something of theirs
  uint64_t served = 0;      // number of the last lane that was begun for them; breaks ties
  uint32_t benchmarks = 0;  // that have not ended
  std::set<Wait> waits;
};

// Benchmarks with the same requirements and backends: what fits one of them fits all. A slot fits that meets the
// requirements, has some of the wanted backends, and of these no fewer than another slot of the fleet: so backends that
// can run together do, and one that no slot has holds none of the others back. A slot whose worker is away for less
// than its lease counts there as well, for it may be back at any moment; one whose worker is drained, or
// has drained for as long by itself, does not.
struct WorkClass {
  struct Share {  // who goes next: the fewest slots, then the longest not served
    uint64_t running;
    uint64_t served;
    uint32_t serial;
    Submitter* submitter;
    bool operator<(const Share& other) const {
      return std::tie(running, served, serial) < std::tie(other.running, other.served, other.serial);
    }
  };
  // A submitter that waits in many levels is not filed anew in all of them whenever its share changes: what is filed
  // may be less than the share has become, never more, and is put right when it comes first.
  struct Level {
    struct Waiting {
      Share filed;
      absl::btree_set<uint64_t> benchmarks;  // the oldest first
    };
    std::set<Share> order;
    std::unordered_map<Submitter*, Waiting> waiting;
  };

  std::string key;
  v1::SlotRequirements requirements;
  std::vector<std::string> backends;  // of the spec, in its order
  Need need;                          // of these: all, or what some shapes have left
  v1::TrainingStep step = v1::TRAINING_STEP_UNSPECIFIED;
  uint32_t benchmarks = 0;  // that have not ended
  uint32_t slots = 0;       // that fit and take new runs, busy or not
  // Those and all others that meet the requirements and have any backend of the spec: what `count` asks for, so that a
  // slot that has more than others closes nothing.
  uint32_t able = 0;
  // Kinds that meet the requirements, by what they have of the wanted backends; not those that have none.
  std::map<BackendSet, std::vector<SlotKind*>> offers;
  std::vector<SlotKind*> kinds;                 // that fit
  std::map<int, Level, std::greater<>> levels;  // waiting benchmarks by priority
  std::set<uint64_t> unplaced;                  // benchmarks with PLACEMENT_EVERY that have no nodes yet
  bool changed = false;                         // is in WorkQueue's list of changed classes

  uint32_t least_slots() const { return static_cast<uint32_t>(std::max(1, requirements.count())); }
  bool open() const { return able >= least_slots(); }
  // Of the wanted backends, those that some slot of the fleet has which meets the requirements.
  BackendSet offered() const;
};

// The place of a waiting benchmark among all; the least goes first.
struct Rank {
  int priority;
  uint64_t running;  // see WorkClass::Share
  uint64_t served;
  uint64_t benchmark;
  BackendSet wanted;                 // one benchmark may wait in several classes
  std::set<std::string> shuns = {};  // what has crashed goes before what has not begun
  bool operator<(const Rank& other) const {
    return std::tie(other.priority, running, served, benchmark, other.shuns, wanted) <
           std::tie(priority, other.running, other.served, other.benchmark, shuns, other.wanted);
  }
};

// Which waiting benchmark goes to which idle slot. Benchmarks are filed by class and slots by kind, and each pair of
// these is matched once; so an event costs the logarithm of the queue's length, times the classes that fit a kind or
// the kinds that fit a class, however much waits. Knows nothing of runs.
class WorkQueue {
 public:
  // Null class: there is nothing.
  struct Candidate {
    WorkClass* work_class = nullptr;
    Rank rank{};
  };

  // Both are counted: each Use has its Release, when the benchmark has ended at the latest.
  WorkClass* UseClass(const v1::BenchmarkSpec& spec, const Need& need);
  void ReleaseClass(WorkClass* work_class);
  Submitter* UseSubmitter(const std::string& name);
  void ReleaseSubmitter(Submitter* submitter);

  // A slot belongs to the fleet from now on, as it is now. False: nothing has changed.
  bool AddSlot(Slot& slot);
  // Or no longer. Does nothing if it is so already.
  void RemoveSlot(Slot& slot);
  // For slots that were added: takes new runs, or no longer.
  void SetTakes(Slot& slot, bool takes);
  // Something runs there, or no longer.
  void SetBusy(Slot& slot, bool busy);
  // While the fleet gathers, as after a restart of the coordinator, only slots that have all wanted backends fit.
  void SetGathering(bool gathering);
  bool gathering() const { return gathering_; }

  // A benchmark that has a lane for any slot of its class.
  void Push(WorkClass& work_class, Submitter& submitter, int priority, uint64_t benchmark);
  void Remove(WorkClass& work_class, Submitter& submitter, int priority, uint64_t benchmark);
  void AddRunning(Submitter& submitter, int change);
  // A lane was begun for them: others with as many slots come first now.
  void Serve(Submitter& submitter);

  // For a slot of the fleet.
  Candidate Best(const Slot& slot) const;
  // Of what waits in a class; nothing if too few slots fit.
  static Candidate BestOf(WorkClass& work_class);
  // Whether what waits in a class that the slot fits may go there: not to a worker that it shuns, while a slot that
  // fits takes runs on another, busy or not.
  static bool MayTake(const WorkClass& work_class, const Slot& slot);
  // An idle slot that may take it, on another worker than `avoid` if there is one, and of those one that did not crash;
  // null if none is idle.
  static Slot* FindIdle(const WorkClass& work_class, const std::string& avoid);

  // Classes in which something new waits, or that other slots fit; in any order, emptied by the caller.
  std::vector<WorkClass*>& changed() { return changed_; }
  void MarkChanged(WorkClass& work_class);

  // What must hold between any two events. Looks at every class, kind and share; `busy` is not looked into.
  absl::Status Check() const;
  // Of it, that no slot is idle that fits something that waits. Cost: classes times kinds.
  absl::Status CheckNothingIdles() const;

 private:
  SlotKind* UseKind(SlotKind kind);
  void ReleaseKind(SlotKind* kind);
  // Adds the kind to the class's offers, or takes it out.
  void Match(WorkClass& work_class, SlotKind& kind);
  void Unmatch(WorkClass& work_class, SlotKind& kind, BackendSet set);
  bool IsBestOffer(const WorkClass& work_class, BackendSet set) const;
  static void Link(WorkClass& work_class, SlotKind& kind);
  // Finds all kinds that fit anew.
  void Relink(WorkClass& work_class);
  absl::Status CheckPair(WorkClass& work_class, const SlotKind& kind) const;
  // Files the submitter in a level in which it waits, with the share that it has now.
  static void File(WorkClass& work_class, int priority, WorkClass::Level& level, Submitter& submitter);
  // Takes out what File filed.
  static void Unfile(WorkClass& work_class, int priority, WorkClass::Level& level, const WorkClass::Share& filed);

  std::map<std::string, std::unique_ptr<WorkClass>> classes_;
  std::map<std::string, std::unique_ptr<SlotKind>> kinds_;
  std::map<std::string, std::unique_ptr<Submitter>> submitters_;
  std::vector<WorkClass*> changed_;
  uint32_t next_submitter_ = 0;
  uint64_t served_ = 0;
  bool gathering_ = false;
};

// Why no such slot takes any of these backends of the class: "is a cpu device, needs cuda"; "" if it takes some.
std::string Misfit(const WorkClass& work_class, BackendSet wanted, const SlotKind& kind);
// Of the class's backends, whatever its other requirements, those that such a slot has.
BackendSet BackendsOn(const WorkClass& work_class, const SlotKind& kind);
// "eager, sdpa"
std::string BackendNames(const WorkClass& work_class, BackendSet set);

// The kind of a slot, whether or not it belongs to the fleet.
SlotKind KindOf(const Slot& slot);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_WORK_QUEUE_H_
