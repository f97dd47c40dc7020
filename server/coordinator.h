#ifndef ATTNFLEET_SERVER_COORDINATOR_H_
#define ATTNFLEET_SERVER_COORDINATOR_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnfleet/v1/service.pb.h"
#include "server/answer_size.h"
#include "server/job_store.h"
#include "server/open_runs.h"
#include "server/request_ids.h"
#include "server/scheduler.h"
#include "server/snapshots.h"
#include "server/store_readers.h"

namespace attnfleet::server {

// A connected worker, as the coordinator sees it. Both calls return at once, from any thread, also when the stream is
// gone.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Send(v1::WorkerCommand command) = 0;
  virtual void End(const absl::Status& status) = 0;
};

// Somebody who watches a benchmark. Calls return at once and may come after the stream is gone.
class Watcher {
 public:
  virtual ~Watcher() = default;
  // The whole benchmark, and again when its nodes are settled (PLACEMENT_EVERY).
  virtual void Started(const Wire& benchmark) = 0;
  // May come before the whole benchmark does, which then tells of it too.
  virtual void Changed(const std::shared_ptr<const v1::Run>& run) = 0;
  // Last: the benchmark has ended, or (with an error) never existed.
  virtual void Ended(const absl::StatusOr<Wire>& benchmark) = 0;
};

// What a batch of events came to. Called on the coordinator's thread.
struct BatchReport {
  size_t events = 0;
  std::optional<double> save_seconds;  // of the commit; none if there was nothing to save
  bool save_failed = false;            // then nothing of the following has happened yet
  std::map<v1::Outcome, int> ended;    // runs that ended, by outcome
  std::vector<double> queue_seconds;   // of each run that was assigned: how long it had waited
};

// The one place that owns state. A single thread takes whatever events have come, gives them to the scheduler, saves
// what changed in one transaction, and only then sends anything. When the store fails, workers and watchers
// are sent nothing and acknowledged nothing until it works again; workers keep their results meanwhile. Who gets, lists
// or explains sees what is known, saved or not.
class Coordinator {
 public:
  struct Options {
    int64_t lease_ms = 15'000;
    int64_t heartbeat_interval_ms = 5'000;
    size_t max_queued_events = 100'000;
    bool closed = false;  // see Scheduler
    Retention retention;
    OpenRuns::Limits open_runs;
    std::function<int64_t()> now_unix_ms;
    std::function<void(const BatchReport&)> observe;  // may be empty
    // Told of each benchmark that has finished, with its summaries, on threads of its own. `order` counts the
    // benchmarks that ended, from 1 on: they may be told of in another. May be empty.
    std::function<void(const v1::Benchmark&, uint64_t order)> finished;
    uint64_t most_small_runs = 1'000;                 // beyond it a benchmark is large; see Snapshots
    size_t max_answer_bytes = kMaxFramedAnswerBytes;  // about a benchmark
  };

  // Loads the store and starts the thread. The store must outlive the coordinator.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(JobStore& store, Options options);
  ~Coordinator();

  // Works off what has been posted, ends all streams and watches with UNAVAILABLE, and takes nothing more: a call
  // after it is answered with UNAVAILABLE. The destructor does it too.
  void Stop();

  template <typename T>
  using Reply = std::function<void(absl::StatusOr<T>)>;

  // Replies come on the coordinator's thread and must return at once. RESOURCE_EXHAUSTED: the queue or the disk is
  // full. UNAVAILABLE: it is stopping.

  // A request id that the submitter has used returns that benchmark; ALREADY_EXISTS if its spec is another one.
  // RESOURCE_EXHAUSTED also if too many runs have not ended.
  // Answers about a benchmark are a Benchmark with its jobs, runs and summaries, serialized. OUT_OF_RANGE: it would be
  // too large, whenever it is asked for.
  void Submit(v1::SubmitRequest request, const Reply<Wire>& reply);
  // `owner` not empty: PERMISSION_DENIED unless the benchmark is that submitter's.
  void Cancel(v1::CancelRequest request, const Reply<Wire>& reply, std::string owner = "");
  void SetPaused(uint64_t id, bool paused, const Reply<Wire>& reply, std::string owner = "");
  void Get(v1::GetRequest request, const Reply<Wire>& reply);
  void List(v1::ListRequest request, const Reply<v1::ListResponse>& reply);
  // An ExplainResponse, serialized.
  void Explain(uint64_t id, const Reply<Wire>& reply);
  void ListWorkers(const Reply<v1::ListWorkersResponse>& reply);
  void SetDrained(v1::SetDrainedRequest request, const Reply<v1::WorkerStatus>& reply);
  void ListBackends(const Reply<v1::ListBackendsResponse>& reply);
  void Watch(const v1::WatchRequest& request, const std::shared_ptr<Watcher>& watcher);
  void Unwatch(uint64_t id, const std::shared_ptr<Watcher>& watcher);

  // Calls `look` on the coordinator's thread; it must return at once. Errors as above, and then it is never called.
  absl::Status Look(std::function<void(const Scheduler&)> look);

  // The stream's messages in their order, then exactly one WorkerGone. A hello that cannot be accepted ends the link.
  void WorkerJoined(v1::WorkerHello hello, const std::shared_ptr<WorkerLink>& link);
  void WorkerSaid(const std::string& worker, v1::WorkerEvent event, const std::shared_ptr<WorkerLink>& link);
  void WorkerGone(const std::string& worker, const std::shared_ptr<WorkerLink>& link);

 private:
  using Event = std::function<void(int64_t now)>;
  using Continuation = std::function<void(const absl::Status&)>;
  struct LinkedWorker {
    std::string instance;
    std::shared_ptr<WorkerLink> link;
    bool takes_batches = false;
    // Another worker of its name that has come last, and when it first came. Heard a heartbeat later, this one is no
    // predecessor that died unnoticed.
    std::string rival = {};  // its instance
    int64_t rival_ms = 0;
    bool heard_since = false;
  };

  struct Ended {
    Picture picture;
    uint64_t order;  // see Options::finished
  };

  Coordinator(JobStore& store, Options options);

  absl::Status Load();
  // UNAVAILABLE if the coordinator is stopping, RESOURCE_EXHAUSTED if the queue is full.
  absl::Status Post(Event event);
  template <typename T>
  void PostOrRefuse(Event event, const Reply<T>& reply);
  // Answers once the batch is saved; `what` happened to the benchmark, for the error if it is not.
  void ReplyAfterSave(const char* what, uint64_t id, const Reply<Wire>& reply);
  // 0: the newest. NOT_FOUND if there is none.
  void Ask(uint64_t id, Snapshots::Kind kind, Snapshots::Reply reply);
  absl::StatusOr<Snapshots::Make> TakeParts(const Snapshots::Key& key);
  void Loop();
  void EndStreams();
  void RunBatch(const std::deque<Event>& events);
  // At the start of a batch. Workers lose no lease for the time in which this process stood still.
  void NoticePause(int64_t now);
  absl::Status Save();
  void LogRun(const v1::Run& run, std::string_view what) const;
  // What the saved effects come to, before they are sent.
  void ReportEffects(BatchReport& report) const;
  // Removes benchmarks that are not kept any longer, a bounded part of them at a time.
  void Retire(int64_t now);
  void SendEffects();
  // What one batch of events came to for one worker.
  static void Send(const LinkedWorker& worker, v1::CommandBatch commands);
  void Notify();
  // What has ended is gone from the scheduler, and its last snapshot made while its runs are still at hand.
  void ForgetEnded();
  const v1::Run& RunAt(const std::tuple<uint64_t, uint32_t, uint32_t>& key) const;
  // For a worker whose name `linked` has: whether it is to try again.
  static absl::Status NameTaken(LinkedWorker& linked, const v1::WorkerInfo& rival, int64_t now);
  bool IsCurrent(const std::string& worker, const std::shared_ptr<WorkerLink>& link) const;
  // While the store fails, what is to be sent waits. The worker has left: its next hello makes it all anew, and a
  // worker that comes and goes must not make it more and more.
  void ForgetUnsent(const std::string& worker, const std::shared_ptr<WorkerLink>& link);
  // As the store's, once in each batch.
  const absl::Status& ConfirmLead();
  // NOT_FOUND; but UNAVAILABLE from a coordinator that was passed over, which knows nothing of what came since.
  absl::Status NoSuchBenchmark(uint64_t id);
  // PERMISSION_DENIED if there is such a benchmark and it is not `owner`'s; an empty one is everybody.
  absl::Status CheckOwner(uint64_t id, const std::string& owner) const;
  absl::StatusOr<uint64_t> TakeSubmit(const v1::SubmitRequest& request, int64_t now);

  // Constant after construction.
  JobStore& store_;
  const Options options_;

  // Of the coordinator's thread.
  Scheduler scheduler_;
  Effects effects_;  // not yet saved and sent
  absl::Status store_status_;
  std::optional<absl::Status> lead_;  // whether it leads, once asked in this batch
  int64_t looked_ms_ = 0;             // when the last batch began
  int64_t next_retirement_ms_ = 0;
  bool has_retired_ = false;
  std::vector<Continuation> after_save_;
  std::vector<std::shared_ptr<WorkerLink>> to_welcome_;
  std::map<std::string, LinkedWorker> links_;
  std::map<uint64_t, std::map<std::shared_ptr<Watcher>, Snapshots::Kind>> watchers_;
  std::map<uint64_t, Ended> ended_;  // that have just ended, until their snapshot is begun
  uint64_t ended_so_far_ = 0;
  RequestIds request_ids_;
  OpenRuns open_runs_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Event> events_;  // guarded by mutex_
  bool stopping_ = false;     // guarded by mutex_
  StoreReaders readers_;      // of the threads of snapshots_
  Snapshots snapshots_;       // of the coordinator's thread; ends before the queue that it posts to
  std::thread thread_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_COORDINATOR_H_
