#ifndef ATTNFLEET_SERVER_SNAPSHOTS_H_
#define ATTNFLEET_SERVER_SNAPSHOTS_H_

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet::server {

// A serialized message, made once and shared by all whom it is sent to.
using Wire = std::shared_ptr<const std::string>;

// Answers that tell of a whole benchmark. One of 100,000 runs takes seconds to make, so they are made on threads of
// their own, once for all who ask for the same, and kept until the benchmark changes or nobody has asked for a while.
// An answer is never older than its question. What it is made of is taken on the coordinator's thread, and only when a
// thread is free to go on with it: however many ask, that thread spends less on it than they do. Small benchmarks do
// not wait for large ones.
//
// All but the making is of one thread, the coordinator's.
class Snapshots {
 public:
  enum class Kind { kBenchmark, kWithContaminated, kExplanations };
  using Key = std::pair<uint64_t, Kind>;  // of which benchmark
  using Answer = absl::StatusOr<Wire>;
  using Reply = std::function<void(const Answer&)>;
  using Make = std::function<Answer()>;
  using Clock = std::chrono::steady_clock;

  struct Options {
    // Of answers that are kept, unless there is but one. Beyond it those go that were not asked for the longest time.
    size_t kept_bytes = 64 << 20;
    // After the last question. Long enough for all who ask at a benchmark's end. Were answers kept for longer, blocks
    // of every size that live for minutes would lie between those that live for milliseconds, and the heap grow with
    // holes.
    Clock::duration kept_for = std::chrono::seconds(5);
    std::function<Clock::time_point()> now = Clock::now;
    // Takes what the answer is made of; the result is called on another thread.
    std::function<absl::StatusOr<Make>(const Key&)> take;
    std::function<bool(uint64_t id)> is_large;
    // Calls on the coordinator's thread, soon; from any thread.
    std::function<void(std::function<void()>)> post;
  };

  explicit Snapshots(Options options);
  ~Snapshots() = default;  // waits for what is being made

  void Ask(const Key& key, Reply reply);
  // The benchmark is another one now, or is gone.
  void Changed(uint64_t id);
  // Lets idle threads go on with what was asked for, and forgets what was kept for long enough. Call after a batch of
  // questions and changes, and every second or so without one.
  void Begin();

  // Refuses what waits for large benchmarks, or for any, and what is asked for those from now on. The rest goes on:
  // until nothing is busy, Begin() must still be called.
  enum class Which { kLarge, kAll };
  void Refuse(const absl::Status& status, Which which);
  bool busy() const;

 private:
  // Does one thing at a time.
  class Thread {
   public:
    Thread() : thread_([this] { Loop(); }) {}
    ~Thread();
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    void Do(std::function<void()> task);  // after the one before has ended

   private:
    void Loop();

    std::mutex mutex_;
    std::condition_variable wake_;
    std::function<void()> task_;  // guarded by mutex_
    bool stopping_ = false;       // guarded by mutex_
    std::thread thread_;
  };

  struct Making {
    Key key;
    std::vector<Reply> replies;
    bool current = true;  // nothing has changed since its parts were taken
  };

  // Of small benchmarks, and of large ones.
  struct Lane {
    std::deque<Key> queue;
    std::map<Key, std::vector<Reply>> waiting;  // of each key in the queue
    std::optional<Making> making;
    std::optional<absl::Status> refusal;
    Thread thread;  // the last: it ends before what it works for
  };

  struct Kept {
    Key key;
    Wire wire;
    Clock::time_point asked;  // the last time
  };

  void BeginNext(Lane& lane);
  void Done(Lane& lane, const Answer& answer);
  void Keep(const Key& key, Wire wire);
  void Drop(const Key& key);

  const Options options_;
  std::list<Kept> kept_;  // asked for longest ago first
  std::map<Key, std::list<Kept>::iterator> kept_by_key_;
  size_t kept_bytes_ = 0;
  std::array<Lane, 2> lanes_;  // the last: their threads end first
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_SNAPSHOTS_H_
