#ifndef ATTNFLEET_SERVER_FLEET_H_
#define ATTNFLEET_SERVER_FLEET_H_

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "attnfleet/v1/worker.pb.h"

namespace attnfleet::server {

struct SlotKind;
struct Worker;

using LaneKey = std::pair<uint64_t, uint32_t>;  // benchmark, lane (see benchmark_entry.h)

// A lane that waits for one slot. They are filed by priority, those first that have started there, the others by
// submitter: of these, whose share is the smallest goes first; see Scheduler::FirstTurn.
struct LaneTurn {
  int priority;
  bool started;        // goes on before another of its priority begins
  uint32_t submitter;  // number of the submitter; 0 if it has started, for shares do not matter then
  LaneKey lane;
  bool operator<(const LaneTurn& other) const {
    return std::tie(other.priority, other.started, submitter, lane) <
           std::tie(priority, started, other.submitter, other.lane);
  }
};

struct Slot {
  uint64_t serial = 0;  // order in which slots were first seen
  Worker* worker = nullptr;
  v1::Slot info;
  bool offered = false;      // by the worker's last hello
  SlotKind* kind = nullptr;  // while its worker has not been lost; null: what it offers is not known, or does not count
  bool takes = false;        // new runs
  bool busy = false;
  bool crashed = false;        // did what ran here last: it is the last to be offered; changes only while it is busy
  v1::RunKey run;              // if busy
  std::set<LaneKey> bound;     // lanes whose runs come here
  std::set<LaneTurn> waiting;  // of these, those that could run now
};

struct Worker {
  v1::WorkerInfo info;
  bool connected = false;
  bool draining = false;      // says the worker
  int64_t awaited_until = 0;  // while it drains: it may be restarted and be back until then
  bool drained = false;       // says an administrator
  bool lost = false;          // its lease has ended and its runs are taken
  int64_t heard = 0;
  std::map<std::string, std::unique_ptr<Slot>> slots;
  std::list<Worker*>::iterator position;  // in Fleet's lists

  bool accepts() const { return !draining && !drained; }
  // Somebody may wait for what its slots have, if it has not been lost.
  bool awaited(int64_t now) const { return !drained && (!draining || now < awaited_until); }
  // It takes nothing, and nobody knows until when.
  bool away() const { return lost || !accepts(); }
  const std::string& name() const { return info.name(); }
};

// Every worker that is known, in the order in which they were last heard of. Keeps no opinion on runs.
class Fleet {
 public:
  // Null if there is none.
  Worker* Find(const std::string& name);
  const Worker* Find(const std::string& name) const;
  Worker& FindOrAdd(const std::string& name, int64_t now);
  // Null if it has no such slot.
  static Slot* FindSlot(Worker& worker, const std::string& id);
  Slot& FindOrAddSlot(Worker& worker, const std::string& id);
  void Erase(Worker& worker);

  void Heard(Worker& worker, int64_t now);
  // Of all that hold their lease, as if so many milliseconds of their silence had not been.
  void Forgive(int64_t silence, int64_t now);
  void MarkLost(Worker& worker);
  // The worker that has been silent longest, of those that hold their lease or of the lost ones; null: none.
  Worker* LongestSilent() { return held_.empty() ? nullptr : held_.front(); }
  Worker* LongestLost() { return lost_.empty() ? nullptr : lost_.front(); }

  const std::map<std::string, std::unique_ptr<Worker>>& workers() const { return workers_; }

 private:
  std::map<std::string, std::unique_ptr<Worker>> workers_;
  // Time never goes back, so moving a worker to the end when it is heard of keeps both sorted by `heard`.
  std::list<Worker*> held_;
  std::list<Worker*> lost_;
  uint64_t next_serial_ = 0;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_FLEET_H_
