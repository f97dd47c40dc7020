#include "server/coordinator.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/counted.h"
#include "proto/request_id.h"
#include "proto/spec.h"
#include "proto/support/log.h"
#include "proto/version.h"
#include "server/fleet_statistics.h"
#include "server/statistics.h"
#include "server/stored_check.h"

namespace attnfleet::server {
namespace {

constexpr int kDefaultListLimit = 100;
constexpr int kMaxListLimit = 1000;
// Settings of the store: this and the name of a worker that an administrator has drained.
constexpr absl::string_view kDrained = "drained/";
// How soon a store that failed is tried again: at first, and in the long run.
constexpr std::chrono::milliseconds kFirstStoreRetry{200};
constexpr std::chrono::milliseconds kLongestStoreRetry{1'000};

// How often it is looked for benchmarks that are not kept any longer, and how many runs are removed at once.
constexpr int64_t kRetirementIntervalMs = 10'000;
constexpr uint64_t kMostRunsRetired = 10'000;

// How long answers about small benchmarks are still begun while it stops: a store that hangs takes seconds for each.
constexpr std::chrono::seconds kStopPatience{2};
constexpr char kStopping[] = "the coordinator is stopping; connect again";

using google::protobuf::util::MessageDifferencer;

uint64_t RunsOf(const v1::BenchmarkSpec& spec) {
  return static_cast<uint64_t>(spec.backends_size()) * static_cast<uint64_t>(spec.shapes_size()) *
         static_cast<uint64_t>(spec.repetitions());
}

v1::RunKey MakeKey(const std::tuple<uint64_t, uint32_t, uint32_t>& key) {
  v1::RunKey run;
  run.set_benchmark_id(std::get<0>(key));
  run.set_job_index(std::get<1>(key));
  run.set_repetition(std::get<2>(key));
  return run;
}

// It has happened and cannot be taken back, so whoever asked must not ask again.
absl::Status NotYetSaved(const char* what, uint64_t id, const absl::Status& saved) {
  return {saved.code(), absl::StrCat(std::string(saved.message()), "; ", what, " ", id,
                                     " is accepted but not saved: it takes effect when the store works again, and is "
                                     "lost if the server stops before")};
}

Snapshots::Kind KindFor(bool include_contaminated) {
  return include_contaminated ? Snapshots::Kind::kWithContaminated : Snapshots::Kind::kBenchmark;
}

}  // namespace

Coordinator::Coordinator(JobStore& store, Options options)
    : store_(store),
      options_(std::move(options)),
      scheduler_(options_.lease_ms, options_.closed),
      open_runs_(options_.open_runs),
      readers_(store),
      snapshots_({.take = [this](const Snapshots::Key& key) { return TakeParts(key); },
                  .is_large = [this](uint64_t id) { return scheduler_.RunsTotal(id) > options_.most_small_runs; },
                  .post =
                      [this](std::function<void()> call) {
                        {  // whether it is stopping or overloaded: somebody waits for the answer
                          const std::lock_guard<std::mutex> lock(mutex_);
                          events_.push_back([call = std::move(call)](int64_t) { call(); });
                        }
                        wake_.notify_one();
                      }}) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(JobStore& store, Options options) {
  std::unique_ptr<Coordinator> coordinator(new Coordinator(store, std::move(options)));
  if (absl::Status status = coordinator->Load(); !status.ok()) return status;
  coordinator->thread_ = std::thread([raw = coordinator.get()] { raw->Loop(); });
  return coordinator;
}

Coordinator::~Coordinator() { Stop(); }

void Coordinator::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

absl::Status Coordinator::Load() {
  const int64_t now = options_.now_unix_ms();
  looked_ms_ = now;
  absl::StatusOr<std::map<std::string, std::string>> settings = store_.LoadSettings();
  if (!settings.ok()) return settings.status();
  for (const auto& [name, value] : *settings) {
    if (absl::StartsWith(name, kDrained)) scheduler_.RestoreDrained(name.substr(kDrained.size()));
  }
  BusySlots busy;
  const auto take = [&](StoredBenchmark stored) -> absl::Status {
    request_ids_.AddStored(stored.benchmark.id(), stored.benchmark.spec().submitter(), stored.request_id);
    open_runs_.Update(stored.benchmark);
    if (HasEnded(stored.benchmark)) return scheduler_.Restore(stored.benchmark, std::move(stored.runs), now);
    const v1::Benchmark head = stored.benchmark;
    std::vector<std::pair<int, int>> places;  // of the runs, to take them back: a copy of a million takes seconds
    for (const v1::Run& run : stored.runs) {
      places.emplace_back(static_cast<int>(run.key().job_index()), static_cast<int>(run.key().repetition()));
    }
    absl::StatusOr<v1::Benchmark> whole = WithJobs(std::move(stored));
    if (!whole.ok()) return whole.status();
    if (absl::Status status = CheckStored(*whole, busy); !status.ok()) return status;
    std::vector<v1::Run> runs;
    runs.reserve(places.size());
    for (const auto& [job, repetition] : places) {
      runs.push_back(std::move(*whole->mutable_jobs(job)->mutable_runs(repetition)));
    }
    return scheduler_.Restore(head, std::move(runs), now);
  };
  constexpr bool kRunsOfEnded = false;  // they are read when somebody asks
  if (absl::Status status = store_.Load(take, kRunsOfEnded); !status.ok()) return status;
  return absl::OkStatus();
}

// Events

absl::Status Coordinator::Post(Event event) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return absl::UnavailableError("the coordinator is stopping; try again");
    if (events_.size() >= options_.max_queued_events) {
      return absl::ResourceExhaustedError("the coordinator is overloaded; try again");
    }
    events_.push_back(std::move(event));
  }
  wake_.notify_one();
  return absl::OkStatus();
}

template <typename T>
void Coordinator::PostOrRefuse(Event event, const Reply<T>& reply) {
  if (absl::Status status = Post(std::move(event)); !status.ok()) reply(std::move(status));
}

void Coordinator::ReplyAfterSave(const char* what, uint64_t id, const Reply<Wire>& reply) {
  after_save_.push_back([this, what, id, reply](const absl::Status& saved) {
    if (saved.ok()) {
      Ask(id, Snapshots::Kind::kBenchmark, reply);
    } else {
      reply(effects_.benchmarks.contains(id) ? NotYetSaved(what, id, saved) : saved);
    }
  });
}

void Coordinator::Submit(v1::SubmitRequest request, const Reply<Wire>& reply) {
  PostOrRefuse<Wire>(
      [this, request = std::move(request), reply](int64_t now) {
        // One that was accepted just before the store failed hears that again.
        const bool known = request_ids_.Find(request.spec().submitter(), request.request_id()).has_value();
        if (!store_status_.ok() && !known) return reply(store_status_);
        const absl::StatusOr<uint64_t> id = TakeSubmit(request, now);
        if (!id.ok()) return reply(id.status());
        ReplyAfterSave("benchmark", *id, reply);
      },
      reply);
}

absl::StatusOr<uint64_t> Coordinator::TakeSubmit(const v1::SubmitRequest& request, int64_t now) {
  const std::string& request_id = request.request_id();
  if (!IsRequestId(request_id)) {
    return absl::InvalidArgumentError("request_id: give at most 64 letters, digits and -._:");
  }
  v1::BenchmarkSpec spec = request.spec();
  if (absl::Status status = ApplyPreset(spec); !status.ok()) return status;
  if (const std::optional<uint64_t> known = request_ids_.Find(spec.submitter(), request_id)) {
    v1::BenchmarkSpec first = scheduler_.Head(*known)->spec();
    // Specs of before there was a choice have none.
    if (first.training().step() == 0) first.mutable_training()->set_step(v1::TRAINING_STEP_REFERENCE);
    if (MessageDifferencer::Equals(first, spec)) return *known;
    return absl::AlreadyExistsError(absl::StrCat("request_id: ", request_id, " is that of benchmark ", *known,
                                                 ", which has another spec; give another request id"));
  }
  std::vector<std::string> backends;
  for (const v1::Backend& backend : scheduler_.Backends()) backends.push_back(backend.name());
  if (absl::Status status = ValidateSpec(spec, backends); !status.ok()) return status;
  if (absl::Status status = open_runs_.CheckRoom(spec.submitter(), RunsOf(spec)); !status.ok()) return status;
  const uint64_t id = scheduler_.Submit(spec, now, effects_);
  const v1::Benchmark head = *scheduler_.Head(id);
  request_ids_.Add(id, spec.submitter(), request_id);
  open_runs_.Update(head);
  LogInfo(absl::StrCat("benchmark ", id, " of ", Counted(head.runs_total(), "run"), " is submitted"),
          {{"request_id", request_id}});
  return id;
}

absl::Status Coordinator::CheckOwner(uint64_t id, const std::string& owner) const {
  if (owner.empty()) return absl::OkStatus();
  const std::optional<v1::Benchmark> benchmark = scheduler_.Head(id);
  if (!benchmark || benchmark->spec().submitter() == owner) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("benchmark ", id, " is ", benchmark->spec().submitter(),
                                                  "'s: only they and an admin may change it"));
}

void Coordinator::Cancel(v1::CancelRequest request, const Reply<Wire>& reply, std::string owner) {
  // It is copied into every run that it ends.
  if (request.reason().size() > kMaxText) {
    return reply(absl::InvalidArgumentError(
        absl::StrCat("reason: ", request.reason().size(), " bytes long; at most ", kMaxText, " are possible")));
  }
  PostOrRefuse<Wire>(
      [this, request = std::move(request), reply, owner = std::move(owner)](int64_t now) {
        if (!store_status_.ok()) return reply(store_status_);
        if (absl::Status status = CheckOwner(request.id(), owner); !status.ok()) return reply(status);
        const std::string reason = request.reason().empty() ? "cancelled by its user" : request.reason();
        if (!scheduler_.Cancel(request.id(), reason, now, effects_)) return reply(NoSuchBenchmark(request.id()));
        ReplyAfterSave("the cancellation of benchmark", request.id(), reply);
      },
      reply);
}

void Coordinator::SetPaused(uint64_t id, bool paused, const Reply<Wire>& reply, std::string owner) {
  PostOrRefuse<Wire>(
      [this, id, paused, reply, owner = std::move(owner)](int64_t now) {
        if (!store_status_.ok()) return reply(store_status_);
        if (absl::Status status = CheckOwner(id, owner); !status.ok()) return reply(status);
        const std::optional<v1::Benchmark> benchmark = scheduler_.Head(id);
        if (!benchmark) return reply(NoSuchBenchmark(id));
        if (IsOver(benchmark->state())) {
          return reply(absl::FailedPreconditionError(
              absl::StrCat("benchmark ", id, " has ended; what has not ended can be ", paused ? "paused" : "resumed")));
        }
        scheduler_.SetPaused(id, paused, now, effects_);
        ReplyAfterSave(paused ? "the pause of benchmark" : "the resumption of benchmark", id, reply);
      },
      reply);
}

void Coordinator::Get(v1::GetRequest request, const Reply<Wire>& reply) {
  PostOrRefuse<Wire>([this, request = std::move(request),
                      reply](int64_t) { Ask(request.id(), KindFor(request.include_contaminated()), reply); },
                     reply);
}

void Coordinator::List(v1::ListRequest request, const Reply<v1::ListResponse>& reply) {
  PostOrRefuse<v1::ListResponse>(
      [this, request = std::move(request), reply](int64_t) {
        const int limit = request.limit() == 0 ? kDefaultListLimit : request.limit();
        if (limit < 1 || limit > kMaxListLimit)
          return reply(absl::InvalidArgumentError("limit: 1 to 1000 is possible"));
        v1::ListResponse response;
        for (v1::Benchmark& benchmark : scheduler_.List(limit, request.before_id())) {
          *response.add_benchmarks() = std::move(benchmark);
        }
        reply(std::move(response));
      },
      reply);
}

void Coordinator::Explain(uint64_t id, const Reply<Wire>& reply) {
  PostOrRefuse<Wire>([this, id, reply](int64_t) { Ask(id, Snapshots::Kind::kExplanations, reply); }, reply);
}

void Coordinator::ListWorkers(const Reply<v1::ListWorkersResponse>& reply) {
  PostOrRefuse<v1::ListWorkersResponse>(
      [this, reply](int64_t) {
        v1::ListWorkersResponse response;
        for (v1::WorkerStatus& worker : scheduler_.Workers()) *response.add_workers() = std::move(worker);
        reply(std::move(response));
      },
      reply);
}

void Coordinator::SetDrained(v1::SetDrainedRequest request, const Reply<v1::WorkerStatus>& reply) {
  PostOrRefuse<v1::WorkerStatus>(
      [this, request = std::move(request), reply](int64_t now) {
        if (!store_status_.ok()) return reply(store_status_);
        if (!scheduler_.SetDrained(request.worker(), request.drained(), now, effects_)) {
          return reply(absl::NotFoundError(
              absl::StrCat("worker: there is none named ", request.worker(), "; attnfleet workers lists them")));
        }
        after_save_.push_back([this, request, reply](const absl::Status& saved) {
          if (!saved.ok()) return reply(saved);
          v1::WorkerStatus unknown;  // taken back, and not seen since the server started
          unknown.mutable_info()->set_name(request.worker());
          reply(scheduler_.FindWorker(request.worker()).value_or(unknown));
        });
      },
      reply);
}

void Coordinator::ListBackends(const Reply<v1::ListBackendsResponse>& reply) {
  PostOrRefuse<v1::ListBackendsResponse>(
      [this, reply](int64_t) {
        v1::ListBackendsResponse response;
        for (const v1::Backend& backend : scheduler_.Backends()) *response.add_backends() = backend;
        reply(std::move(response));
      },
      reply);
}

void Coordinator::Watch(const v1::WatchRequest& request, const std::shared_ptr<Watcher>& watcher) {
  const absl::Status posted = Post([this, request, watcher](int64_t) {
    const uint64_t id = request.id() == 0 ? scheduler_.newest() : request.id();
    const Snapshots::Kind kind = KindFor(request.include_contaminated());
    const std::optional<v1::Benchmark> head = scheduler_.Head(id);
    const bool goes_on = head && !IsOver(head->state());
    if (goes_on) watchers_[id][watcher] = kind;
    Ask(id, kind, [this, id, watcher, goes_on](const absl::StatusOr<Wire>& benchmark) {
      if (goes_on && benchmark.ok()) return watcher->Started(*benchmark);
      if (const auto found = watchers_.find(id); found != watchers_.end()) found->second.erase(watcher);
      watcher->Ended(benchmark);
    });
  });
  if (!posted.ok()) watcher->Ended(posted);
}

void Coordinator::Unwatch(uint64_t id, const std::shared_ptr<Watcher>& watcher) {
  const absl::Status posted = Post([this, id, watcher](int64_t) {
    // Id 0 was the newest benchmark of that time.
    for (auto it = watchers_.begin(); it != watchers_.end();) {
      if (id == 0 || it->first == id) it->second.erase(watcher);
      it = it->second.empty() ? watchers_.erase(it) : std::next(it);
    }
  });
  posted.IgnoreError();  // then everybody is told of the end
}

absl::Status Coordinator::Look(std::function<void(const Scheduler&)> look) {
  return Post([this, look = std::move(look)](int64_t) { look(scheduler_); });
}

void Coordinator::WorkerJoined(v1::WorkerHello hello, const std::shared_ptr<WorkerLink>& link) {
  const absl::Status posted = Post([this, hello = std::move(hello), link](int64_t now) {
    const std::string& name = hello.worker().name();
    const auto found = links_.find(name);
    if (found != links_.end() && found->second.instance != hello.worker().instance()) {
      const absl::Status taken = NameTaken(found->second, hello.worker(), now);
      LogInfo(absl::StrCat("refused on host ", hello.worker().host(), ": ", std::string(taken.message())));
      link->End(taken);
      return;
    }
    if (found != links_.end()) {
      found->second.link->End(absl::AbortedError("the worker has connected anew"));
      ForgetUnsent(name, found->second.link);
    }
    LogInfo(absl::StrCat("worker ", name, " is connected: ", hello.worker().slots_size(), " slot(s)"));
    links_[name] = {hello.worker().instance(), link, hello.takes_batches()};
    to_welcome_.push_back(link);
    scheduler_.WorkerJoined(hello, now, effects_);
  });
  if (!posted.ok()) link->End(posted);
}

absl::Status Coordinator::NameTaken(LinkedWorker& linked, const v1::WorkerInfo& rival, int64_t now) {
  if (linked.rival != rival.instance()) {
    linked.rival = rival.instance();
    linked.rival_ms = now;
    linked.heard_since = false;
  }
  const char* const advice = "; give this one another --name";
  if (linked.heard_since) {
    return absl::FailedPreconditionError(absl::StrCat("a worker named ", rival.name(), " is running already", advice));
  }
  return absl::AlreadyExistsError(absl::StrCat("a worker named ", rival.name(), " is connected already", advice));
}

bool Coordinator::IsCurrent(const std::string& worker, const std::shared_ptr<WorkerLink>& link) const {
  const auto found = links_.find(worker);
  return found != links_.end() && found->second.link == link;
}

void Coordinator::WorkerSaid(const std::string& worker, v1::WorkerEvent event,
                             const std::shared_ptr<WorkerLink>& link) {
  const absl::Status posted = Post([this, worker, event = std::move(event), link](int64_t now) {
    if (!IsCurrent(worker, link)) return;
    LinkedWorker& linked = links_.at(worker);
    // What was under way when the other came tells nothing, and one that drains makes room soon.
    if (!linked.rival.empty() && now - linked.rival_ms >= options_.heartbeat_interval_ms) {
      const std::optional<v1::WorkerStatus> holder = scheduler_.FindWorker(worker);
      linked.heard_since = holder.has_value() && !holder->draining();
    }
    switch (event.event_case()) {
      case v1::WorkerEvent::kHeartbeat:
        scheduler_.WorkerHeard(worker, event.heartbeat().draining(), now, effects_);
        break;
      case v1::WorkerEvent::kProgress:
        scheduler_.RunProgressed(worker, event.progress(), now, effects_);
        break;
      case v1::WorkerEvent::kReport:
        scheduler_.RunReported(worker, event.report(), now, effects_);
        break;
      case v1::WorkerEvent::kHandedBack:
        scheduler_.RunHandedBack(worker, event.handed_back(), now, effects_);
        break;
      case v1::WorkerEvent::kHello:
      case v1::WorkerEvent::EVENT_NOT_SET:  // of a newer worker
        break;
    }
  });
  // Ended rather than held up: the worker comes back with all that was not acknowledged.
  if (!posted.ok()) link->End(posted);
}

void Coordinator::ForgetUnsent(const std::string& worker, const std::shared_ptr<WorkerLink>& link) {
  if (store_status_.ok()) return;  // then it is sent at the end of this batch, to who is there
  std::erase(to_welcome_, link);
  const auto is_its = [&worker](const auto& one) { return one.worker == worker; };
  std::erase_if(effects_.assign, is_its);
  std::erase_if(effects_.stop, is_its);
  std::erase_if(effects_.acknowledge, is_its);
  std::erase(effects_.disconnect, worker);
}

void Coordinator::WorkerGone(const std::string& worker, const std::shared_ptr<WorkerLink>& link) {
  const absl::Status posted = Post([this, worker, link](int64_t now) {
    if (!IsCurrent(worker, link)) return;
    LogInfo(absl::StrCat("worker ", worker, " is disconnected"));
    ForgetUnsent(worker, link);
    links_.erase(worker);
    scheduler_.WorkerDisconnected(worker, now);
  });
  posted.IgnoreError();  // its lease ends
}

// The thread

void Coordinator::Loop() {
  const std::chrono::milliseconds tick(std::clamp<int64_t>(options_.lease_ms / 4, 10, 1'000));
  std::chrono::milliseconds retry = kFirstStoreRetry;
  std::optional<std::chrono::steady_clock::time_point> stop_by;
  for (;;) {
    std::deque<Event> events;
    bool stopping = false;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto stop = [this] { return stopping_ && (!events_.empty() || !snapshots_.busy()); };
      const auto something = [this, stop] { return !events_.empty() || stop(); };
      // A store that fails is given a pause, whatever comes.
      if (store_status_.ok()) {
        wake_.wait_for(lock, tick, something);
        retry = kFirstStoreRetry;
      } else {
        wake_.wait_for(lock, retry, stop);
        retry = std::min(retry * 2, kLongestStoreRetry);
      }
      events.swap(events_);
      stopping = stopping_;
    }
    if (stopping) {  // before one of them is begun
      if (!stop_by) stop_by = std::chrono::steady_clock::now() + kStopPatience;
      const bool late = std::chrono::steady_clock::now() >= *stop_by;
      snapshots_.Refuse(absl::UnavailableError(kStopping), late ? Snapshots::Which::kAll : Snapshots::Which::kLarge);
    }
    RunBatch(events);
    events.clear();  // they hold streams, which may be about to end
    if (!stopping) continue;
    if (!snapshots_.busy()) return EndStreams();
  }
}

void Coordinator::EndStreams() {
  const absl::Status stopping = absl::UnavailableError(kStopping);
  for (const auto& [worker, linked] : links_) linked.link->End(stopping);
  links_.clear();
  for (const auto& [id, watchers] : watchers_) {
    for (const auto& [watcher, kind] : watchers) watcher->Ended(stopping);
  }
  watchers_.clear();
}

void Coordinator::NoticePause(int64_t now) {
  const int64_t away = now - std::exchange(looked_ms_, now);
  if (away <= options_.lease_ms / 2) return;
  LogWarning(absl::StrCat("stood still for ", away, " ms and heard no worker meanwhile: their leases end later"));
  scheduler_.ForgiveSilence(away, now);
}

void Coordinator::RunBatch(const std::deque<Event>& events) {
  const int64_t now = options_.now_unix_ms();
  lead_.reset();
  NoticePause(now);
  BatchReport report;
  report.events = events.size();
  for (const Event& event : events) event(now);
  scheduler_.Tick(now, effects_);
  for (const uint64_t id : effects_.benchmarks) snapshots_.Changed(id);
  for (const auto* keys : {&effects_.runs, &effects_.progressed}) {
    for (const auto& key : *keys) snapshots_.Changed(std::get<0>(key));
  }

  const bool something = !effects_.benchmarks.empty() || !effects_.runs.empty() || !effects_.drained.empty();
  const auto start = std::chrono::steady_clock::now();
  const absl::Status saved = Save();
  if (something) report.save_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.save_failed = !saved.ok();
  if (!saved.ok() && store_status_.ok()) {
    LogError(absl::StrCat(std::string(saved.message()), "; nothing is assigned or acknowledged until this is mended"));
  }
  if (saved.ok() && !store_status_.ok()) LogWarning("the store works again");
  store_status_ = saved;
  if (saved.ok()) {
    ReportEffects(report);
    SendEffects();
    Notify();
    ForgetEnded();
    effects_ = {};
    Retire(now);
  }
  std::vector<Continuation> continuations;
  continuations.swap(after_save_);
  for (const Continuation& continuation : continuations) continuation(saved);
  snapshots_.Begin();
  if (options_.observe) options_.observe(report);
}

absl::Status Coordinator::Save() {
  if (effects_.benchmarks.empty() && effects_.runs.empty() && effects_.drained.empty()) {
    // What is told rests on what is known here, and that is old if another leads by now.
    const bool tells = !effects_.acknowledge.empty() || !effects_.stop.empty() || !after_save_.empty();
    return tells || !store_status_.ok() ? ConfirmLead() : absl::OkStatus();
  }
  StoreChanges changes;
  std::deque<v1::Benchmark> heads;  // what `changes` points to
  for (const uint64_t id : effects_.benchmarks) {
    heads.push_back(*scheduler_.Head(id));
    changes.benchmarks.push_back({&heads.back(), request_ids_.StoredOf(id)});
  }
  for (const auto& [worker, drained] : effects_.drained) {
    changes.settings.push_back({absl::StrCat(kDrained, worker), drained ? "true" : ""});
  }
  changes.runs.reserve(effects_.runs.size());
  for (const auto& key : effects_.runs) changes.runs.push_back(&RunAt(key));
  return store_.Save(changes);
}

const v1::Run& Coordinator::RunAt(const std::tuple<uint64_t, uint32_t, uint32_t>& key) const {
  return *scheduler_.FindRun(MakeKey(key));
}

void Coordinator::LogRun(const v1::Run& run, std::string_view what) const {
  if (!LogsAt(Severity::kInfo)) return;
  const std::string key = FormatRunKey(run.key());
  LogInfo(absl::StrCat("run ", key, " ", std::string(what)), {{"request_id", request_ids_.Of(run.key().benchmark_id())},
                                                              {"run", key},
                                                              {"attempt", std::to_string(run.attempt())},
                                                              {"worker", run.worker()},
                                                              {"slot", run.slot()}});
}

void Coordinator::ReportEffects(BatchReport& report) const {
  for (const auto& key : effects_.runs) {
    const v1::Run& run = RunAt(key);
    if (run.state() == v1::RUN_STATE_ASSIGNED) {
      const int failures = run.failed_attempts_size();
      // An attempt that was handed back leaves no time behind: when the run began to wait again is not known.
      if (run.attempt() != static_cast<uint32_t>(failures) + 1) continue;
      const int64_t since =
          failures > 0 ? run.failed_attempts(failures - 1).unix_ms() : scheduler_.SubmittedUnixMs(std::get<0>(key));
      report.queue_seconds.push_back(static_cast<double>(run.started_unix_ms() - since) / 1000);
    }
    if (run.state() != v1::RUN_STATE_ENDED) continue;
    ++report.ended[run.result().outcome()];
    LogRun(run, OutcomeName(run.result().outcome()));
  }
  if (effects_.cancelled_unassigned > 0) {
    report.ended[v1::OUTCOME_CANCELLED] += static_cast<int>(effects_.cancelled_unassigned);
  }
}

void Coordinator::Send(const LinkedWorker& worker, v1::CommandBatch commands) {
  if (worker.takes_batches && commands.commands_size() > 1) {
    v1::WorkerCommand command;
    *command.mutable_batch() = std::move(commands);
    worker.link->Send(std::move(command));
    return;
  }
  for (v1::WorkerCommand& command : *commands.mutable_commands()) worker.link->Send(std::move(command));
}

void Coordinator::SendEffects() {
  for (const std::shared_ptr<WorkerLink>& link : to_welcome_) {
    v1::WorkerCommand command;
    v1::Welcome& welcome = *command.mutable_welcome();
    welcome.set_coordinator_version(kVersion);
    welcome.set_heartbeat_interval_ms(static_cast<int32_t>(options_.heartbeat_interval_ms));
    welcome.set_lease_ms(static_cast<int32_t>(options_.lease_ms));
    link->Send(std::move(command));
  }
  to_welcome_.clear();
  std::map<std::string, v1::CommandBatch> commands;  // by worker
  for (Effects::Acknowledgement& one : effects_.acknowledge) {
    if (!scheduler_.Exists(one.report.run().benchmark_id())) {
      LogWarning(absl::StrCat("worker ", one.worker, " reports run ", FormatRunKey(one.report.run()),
                              ", of a benchmark that this store does not have: that result is dropped. Was the "
                              "benchmark removed, or did the worker serve another coordinator?"));
    }
    v1::CommandBatch& batch = commands[one.worker];
    v1::WorkerCommand& command = batch.commands().empty() ? *batch.add_commands() : *batch.mutable_commands(0);
    *command.mutable_acknowledge()->add_reports() = std::move(one.report);
  }
  for (Effects::Stop& stop : effects_.stop) {
    *commands[stop.worker].add_commands()->mutable_stop() = std::move(stop.stop);
  }
  for (Effects::Assignment& assignment : effects_.assign) {
    // Superseded while the store failed.
    const v1::RunKey& key = assignment.start.run();
    const v1::Run& run = RunAt({key.benchmark_id(), key.job_index(), key.repetition()});
    if (run.state() != v1::RUN_STATE_ASSIGNED || run.attempt() != assignment.start.attempt()) continue;
    LogRun(run, "is assigned");
    assignment.start.set_request_id(request_ids_.Of(key.benchmark_id()));
    *commands[assignment.worker].add_commands()->mutable_start() = std::move(assignment.start);
  }
  for (auto& [worker, batch] : commands) {
    const auto found = links_.find(worker);
    if (found != links_.end()) Send(found->second, std::move(batch));
  }
  for (const std::string& worker : effects_.disconnect) {
    const auto found = links_.find(worker);
    if (found == links_.end()) continue;
    LogWarning(absl::StrCat("worker ", worker, " was silent for longer than its lease: its runs go elsewhere"));
    found->second.link->End(absl::UnavailableError("silent for longer than the lease; connect again"));
    links_.erase(found);
  }
}

void Coordinator::Retire(int64_t now) {
  if (now < next_retirement_ms_) return;
  std::vector<uint64_t> expired = scheduler_.Expired(options_.retention, now, kMostRunsRetired);
  std::erase_if(expired, [this](uint64_t id) { return ended_.contains(id); });  // whose end is still to be told
  const absl::Status deleted = expired.empty() ? absl::OkStatus() : store_.Delete(expired);
  if (!deleted.ok()) LogWarning(absl::StrCat("old benchmarks cannot be removed: ", std::string(deleted.message())));
  if (expired.empty() || !deleted.ok()) {
    next_retirement_ms_ = now + kRetirementIntervalMs;
    return;
  }
  for (const uint64_t id : expired) {
    snapshots_.Changed(id);
    scheduler_.Forget(id);
    request_ids_.Forget(id);
  }
  const std::string removed = absl::StrCat("removed ", Counted(expired.size(), "old benchmark"), ", ", expired.front(),
                                           " to ", expired.back(), " (--retain, --retain-benchmarks)");
  if (std::exchange(has_retired_, true)) return LogInfo(removed);
  LogWarning(removed + "; with --verbose the log has what follows too");
}

void Coordinator::Notify() {
  if (watchers_.empty()) return;
  for (const uint64_t id : effects_.placed) {
    const auto found = watchers_.find(id);
    if (found == watchers_.end()) continue;
    for (const auto& [watcher, kind] : found->second) {
      Ask(id, kind, [one = watcher](const absl::StatusOr<Wire>& benchmark) {
        if (benchmark.ok()) one->Started(*benchmark);
      });
    }
  }
  for (const auto* keys : {&effects_.runs, &effects_.progressed}) {
    for (const auto& key : *keys) {
      const auto found = watchers_.find(std::get<0>(key));
      if (found == watchers_.end()) continue;
      const std::shared_ptr<const v1::Run> run = scheduler_.ShareRun(MakeKey(key));
      for (const auto& [watcher, kind] : found->second) watcher->Changed(run);
    }
  }
  for (const uint64_t id : effects_.benchmarks) {
    const auto found = watchers_.find(id);
    if (found == watchers_.end() || !IsOver(scheduler_.Head(id)->state())) continue;
    for (const auto& [watcher, kind] : found->second) {
      Ask(id, kind, [one = watcher](const absl::StatusOr<Wire>& benchmark) { one->Ended(benchmark); });
    }
    watchers_.erase(found);
  }
}

void Coordinator::ForgetEnded() {
  for (const uint64_t id : effects_.benchmarks) {
    const v1::Benchmark head = *scheduler_.Head(id);
    open_runs_.Update(head);
    if (!IsOver(head.state())) continue;
    if (std::optional<Picture> picture = scheduler_.TakePicture(id)) {
      ended_.insert({id, {*std::move(picture), ++ended_so_far_}});
      Ask(id, Snapshots::Kind::kBenchmark, [](const absl::StatusOr<Wire>&) {});
    }
    scheduler_.ForgetRuns(id);
  }
}

const absl::Status& Coordinator::ConfirmLead() {
  if (!lead_) lead_ = store_.ConfirmLead();
  return *lead_;
}

absl::Status Coordinator::NoSuchBenchmark(uint64_t id) {
  if (!store_status_.ok()) return store_status_;
  if (const absl::Status& lead = ConfirmLead(); !lead.ok()) return absl::UnavailableError(lead.message());
  return absl::NotFoundError(id == 0 ? "there is no benchmark yet" : absl::StrCat("there is no benchmark ", id));
}

void Coordinator::Ask(uint64_t id, Snapshots::Kind kind, Snapshots::Reply reply) {
  if (id == 0) id = scheduler_.newest();
  if (!scheduler_.Exists(id)) return reply(NoSuchBenchmark(id));
  // What has happened to it in this batch, before the question: an answer that is kept or under way is older.
  const auto touches = [id](const auto& keys) {
    const auto first = keys.lower_bound({id, 0, 0});
    return first != keys.end() && std::get<0>(*first) == id;
  };
  if (effects_.benchmarks.contains(id) || touches(effects_.runs) || touches(effects_.progressed)) {
    snapshots_.Changed(id);
  }
  snapshots_.Ask({id, kind}, std::move(reply));
}

absl::StatusOr<Snapshots::Make> Coordinator::TakeParts(const Snapshots::Key& key) {
  const auto [id, kind] = key;
  if (!scheduler_.Exists(id)) return NoSuchBenchmark(id);
  // The runs, from memory or, once it has ended, from the store.
  std::optional<Picture> picture = scheduler_.TakePicture(id);
  std::function<void(const v1::Benchmark&)> finished;
  if (const auto ended = ended_.find(id); ended != ended_.end()) {
    picture = ended->second.picture;
    if (kind == Snapshots::Kind::kBenchmark) {
      if (picture->head.state() == v1::BENCHMARK_STATE_FINISHED && options_.finished) {
        finished = [this, order = ended->second.order](const v1::Benchmark& benchmark) {
          options_.finished(benchmark, order);
        };
      }
      ended_.erase(ended);
    }
  }
  WaitReasons reasons;
  if (kind == Snapshots::Kind::kExplanations) reasons = scheduler_.WhyItWaits(id);
  return [picture = std::move(picture), reasons = std::move(reasons), finished = std::move(finished),
          stalled = std::string(store_status_.message()), id = id, kind = kind, limit = options_.max_answer_bytes,
          &readers = readers_]() -> Snapshots::Answer {
    absl::StatusOr<v1::Benchmark> benchmark = picture ? WithRuns(*picture) : readers.Read(id);
    if (!benchmark.ok()) return benchmark.status();
    if (kind == Snapshots::Kind::kExplanations) {
      v1::ExplainResponse response;
      response.set_stalled(stalled);
      for (v1::Explanation& explanation : server::Explain(*benchmark, reasons)) {
        *response.add_explanations() = std::move(explanation);
      }
      return SerializeWithin(limit, id, response);
    }
    Summarize(*benchmark, kind == Snapshots::Kind::kWithContaminated);
    SummarizeFleet(*benchmark);
    if (finished) finished(*benchmark);
    FitInto(limit, *benchmark);
    return SerializeWithin(limit, id, *benchmark);
  };
}

}  // namespace attnfleet::server
