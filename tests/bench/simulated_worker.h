#ifndef ATTNFLEET_TESTS_BENCH_SIMULATED_WORKER_H_
#define ATTNFLEET_TESTS_BENCH_SIMULATED_WORKER_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "attnfleet/v1/worker.grpc.pb.h"

namespace attnfleet::bench {

using Clock = std::chrono::steady_clock;

// A thread that calls functions when they are due.
class Timer {
 public:
  Timer() : thread_([this] { Loop(); }) {}
  // What is not due by then is dropped.
  ~Timer();

  void At(Clock::time_point when, std::function<void()> what);

 private:
  struct Entry {
    Clock::time_point when;
    std::function<void()> what;
    bool operator<(const Entry& other) const { return other.when < when; }
  };

  void Loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::priority_queue<Entry> entries_;  // guarded by mutex_
  bool stopping_ = false;               // guarded by mutex_
  std::thread thread_;
};

using RunId = std::tuple<uint64_t, uint32_t, uint32_t>;  // benchmark, job, repetition

// What the simulated workers of a fleet have seen and done. Guarded by `mutex`.
struct Observations {
  struct Span {
    Clock::time_point end;
    float seconds;
  };
  struct Acknowledged {
    uint32_t attempt;
    uint64_t token;  // see SimulatedWorker
  };

  std::mutex mutex;
  std::condition_variable changed;  // when a worker was welcomed, a report acknowledged, a stream ended

  uint64_t welcomed = 0;
  std::vector<Span> heartbeats;       // from when it was due to when gRPC had sent it
  std::vector<Span> first;            // from the worker's welcome to its first assignment
  std::vector<Span> next;             // from the report that freed the slot to the next assignment of that slot
  std::vector<Span> acknowledgement;  // from the report to its acknowledgement
  std::map<RunId, std::vector<Acknowledged>> runs;
  uint64_t acknowledged = 0;  // reports
  uint64_t next_token = 1;
  // What must not be: a run on a busy slot, an acknowledgement of nothing, a stream that ended by itself.
  std::vector<std::string> faults;
};

struct WorkerOptions {
  std::string name;
  std::string instance;
  std::map<std::string, std::string> labels;
  int slots = 1;
  std::chrono::microseconds run_time{0};  // each run takes this, give or take half of it
  bool keep_record = true;                // of runs and spans, which grow
};

// A worker as the coordinator sees it: speaks WorkerService.Connect and trains nothing. Its results are as large as a
// real trainer's, and `first_loss` is a number that no other report has. Keeps itself alive until its stream has ended.
class SimulatedWorker : public grpc::ClientBidiReactor<v1::WorkerEvent, v1::WorkerCommand>,
                        public std::enable_shared_from_this<SimulatedWorker> {
 public:
  // `ended` comes once and last, on the timer's thread. Timer and observations must outlive the stream.
  SimulatedWorker(std::shared_ptr<grpc::Channel> channel, WorkerOptions options, Timer& timer,
                  Observations& observations, std::function<void(const grpc::Status&)> ended);

  void Begin();
  // In good order: hands back what runs, and ends its half of the stream.
  void Leave();
  // As if it had been killed.
  void Vanish();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  struct Outgoing {
    v1::WorkerEvent event;
    Clock::time_point due;
  };
  struct Slot {
    v1::StartRun run;
    bool busy = false;
    bool was_busy = false;
    Clock::time_point free_since;
  };
  struct Unacknowledged {
    Clock::time_point reported;
    uint64_t token;
  };

  // The mutex is held.
  void Send(v1::WorkerEvent event, Clock::time_point due);
  void WriteNext();
  void Take(const v1::WorkerCommand& command);
  void TakeStart(const v1::StartRun& start);
  void TakeAcknowledgement(const v1::ActiveRun& report);
  void Report(size_t slot);
  void Fault(const std::string& text);
  void CallAt(Clock::time_point when, std::function<void(SimulatedWorker&)> what);

  v1::WorkerEvent Hello() const;
  void BeatAt(Clock::time_point due);

  // Constant after construction.
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  const WorkerOptions options_;
  Timer& timer_;
  Observations& observations_;
  const std::function<void(const grpc::Status&)> ended_;
  grpc::ClientContext context_;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::deque<Outgoing> outbox_;  // the first is being written if writing_
  v1::WorkerCommand incoming_;
  bool writing_ = false;
  bool leaving_ = false;
  bool writes_done_ = false;
  bool broken_ = false;  // no operation can succeed any more
  Clock::time_point welcomed_;
  std::chrono::milliseconds heartbeat_interval_{0};
  std::vector<Slot> slots_;
  std::map<std::pair<RunId, uint32_t>, Unacknowledged> unacknowledged_;  // by run and attempt
  std::minstd_rand random_;
  std::shared_ptr<SimulatedWorker> self_;
};

// A connection of its own to 127.0.0.1:PORT, from an address of its own (127.X.Y.Z), as of another host. Null if there
// is none. Without `keepalive` it sends no pings, and so outlives a machine that is too busy to answer them.
std::shared_ptr<grpc::Channel> ConnectFrom(uint32_t host, const std::string& server, bool keepalive = true);

}  // namespace attnfleet::bench

#endif  // ATTNFLEET_TESTS_BENCH_SIMULATED_WORKER_H_
