#ifndef ATTNFLEET_WORKER_WORKER_H_
#define ATTNFLEET_WORKER_WORKER_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "attnfleet/v1/worker.pb.h"
#include "worker/event_loop.h"
#include "worker/link.h"
#include "worker/metrics.h"
#include "worker/oom_kills.h"
#include "worker/spool.h"
#include "worker/trainer_command.h"
#include "worker/trainer_process.h"

namespace attnfleet::worker {

struct WorkerOptions {
  v1::WorkerInfo info;
  TrainerProgram trainer;
  v1::TrainerCapabilities capabilities;
  LinkOptions link;
  std::chrono::milliseconds drain_timeout{0};         // how long a drain lets active runs go on
  std::chrono::milliseconds ack_limit{5'000};         // how long a drain waits for the coordinator in the end
  std::chrono::milliseconds kill_limit = kKillLimit;  // for a trainer's end after SIGKILL
  bool verbose = false;                               // log every run
  std::shared_ptr<Metrics> metrics;                   // kept up to date; may be null
};

// The daemon's state: one trainer for each slot at most, results until they are acknowledged. Lives on the loop's
// thread.
class Worker {
 public:
  struct Callbacks {
    std::function<void()> ready;  // first Welcome
    // Drained, or refused by the coordinator (see Link). No trainer runs any more, but one that could not be killed.
    // Comes once and last.
    std::function<void(const absl::Status&)> ended;
  };

  Worker(EventLoop& loop, WorkerOptions options, std::unique_ptr<Spool> spool, Callbacks callbacks);
  // Kills what still runs; leaves behind what does not end.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Start() { link_.Connect(); }

  // Takes nothing new, hands queued runs back, gives active ones `drain_timeout` to finish, hands back what is left,
  // delivers all of it and ends.
  void Drain();

 private:
  // What a slot does. `next` waits for the trainer before it to die: the coordinator stops a run and gives its slot to
  // another in one go.
  struct SlotState {
    v1::Slot slot;
    std::optional<v1::StartRun> active;
    std::unique_ptr<TrainerProcess> process;  // of `active`, or of a run before it that was given up
    bool forgotten = false;                   // `active` was stopped by the coordinator: nobody waits for a report
    std::optional<v1::StartRun> next;

    // Until a trainer that could not be killed has ended.
    bool out_of_service() const { return process != nullptr && !active; }
  };

  // How far the end of this worker has come.
  enum class Ending {
    kRunning,
    kDelivering,  // no trainer runs; waits for acknowledgements
    kClosing,     // waits for the coordinator to close the stream
    kOver,
  };

  v1::WorkerHello Hello();
  void Welcomed();
  void Disconnected();
  void Take(const v1::WorkerCommand& command);
  void Assign(const v1::StartRun& start);
  void Launch(SlotState& state, const v1::StartRun& start);
  void Stop(const v1::StopRun& stop);
  void Acknowledge(const v1::Acknowledge& acknowledge);
  void Ended(SlotState& state, v1::RunResult result);
  void GivenUp(SlotState& state, v1::RunResult result, const std::string& what);
  void Conclude(SlotState& state, v1::RunResult result);
  // A line about a run, if every run is logged.
  void LogRun(const v1::StartRun& start, std::string_view text) const;
  void Report(const v1::StartRun& start, v1::RunResult result);
  void SendReport(const v1::RunReport& report);
  void SendProgress(const SlotState& state, const v1::TrainerProgress& progress);
  // Reports it as cancelled, though nobody has: it goes back to the queue, and no failure is counted.
  void HandBack(const v1::StartRun& start, const std::string& reason);
  void Refused(const absl::Status& status);
  void StopActive();
  bool Idle() const;
  size_t OutOfService() const;  // slots
  // A worker without any slot is none to a coordinator: one whose slots are all out of service is said to drain.
  bool TakesNothing() const { return draining_ || OutOfService() == slots_.size(); }
  // Takes the next steps of the ending, if there is one.
  void AdvanceEnding();
  void CloseLink();
  void CountUndelivered() const;
  void CountOutOfService() const;
  void End();

  // Constant after construction.
  EventLoop& loop_;
  const WorkerOptions options_;
  const Callbacks callbacks_;

  const std::unique_ptr<Spool> spool_;
  OomKillCounter oom_kills_;
  std::map<std::string, SlotState> slots_;    // by id; none is added or removed
  std::optional<Spool::Key> first_left_out_;  // of the reports that the last hello had no room for
  bool welcomed_ = false;
  bool draining_ = false;
  Ending ending_ = Ending::kRunning;
  absl::Status refused_;
  EventLoop::Id drain_timer_ = 0;
  // Last: it calls back into all of the above until it is destroyed.
  Link link_;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_WORKER_H_
