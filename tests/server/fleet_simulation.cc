#include "fleet_simulation.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <ranges>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "fleet_fixture.h"
#include "proto/spec.h"

namespace attnfleet::server {
namespace {

constexpr int64_t kLease = 1'000;
constexpr int64_t kBigMemory = 80'000'000'000;
constexpr int kSubmitters = 8;
constexpr int kManyWorkers = 500;  // from here on one in a hundred is of a rare kind

std::tuple<uint64_t, uint32_t, uint32_t> IdOf(const v1::RunKey& key) {
  return {key.benchmark_id(), key.job_index(), key.repetition()};
}

v1::RunKey KeyOf(const std::tuple<uint64_t, uint32_t, uint32_t>& id) {
  v1::RunKey key;
  key.set_benchmark_id(std::get<0>(id));
  key.set_job_index(std::get<1>(id));
  key.set_repetition(std::get<2>(id));
  return key;
}

// Waits, and its last attempt crashed.
bool IsCrashed(const v1::Run& run) {
  const auto& failures = run.failed_attempts();
  return run.state() == v1::RUN_STATE_QUEUED && !failures.empty() && !failures.rbegin()->worker_lost() &&
         failures.rbegin()->attempt() == run.attempt();
}

// After such an event the scheduler has looked at the time and at every slot.
bool Schedules(const std::string& event) {
  return event == "tick" || event == "submit" || event == "join" || event == "report";
}

// "w12" is workers_[12].
size_t NumberOf(const std::string& worker) { return static_cast<size_t>(std::stoi(worker.substr(1))); }

}  // namespace

struct FleetSimulation::SimWorker {
  int index = 0;
  std::string name;
  int slots = 1;
  std::string device_name = "Test CPU";
  int64_t memory_bytes = 8'000'000'000;
  std::string rack;
  Backends backends = {"eager", "sdpa"};
  Backends offers;     // what the scheduler counts on
  Backends announced;  // that would be this, but for drains: from its last hello until its lease ends
  int64_t heard = 0;   // by the scheduler
  bool draining = false;
  bool drains = false;        // as the scheduler has heard
  int64_t awaited_until = 0;  // if it does
  bool connected = false;     // as it sees it
  bool noticed = true;        // the scheduler knows whether it is
  int stream = 0;
  std::map<std::string, v1::StartRun> active;  // by slot
  std::vector<v1::RunReport> spool;            // not acknowledged
};

FleetSimulation::FleetSimulation(const Options& options)
    : options_(options), random_(options.seed), scheduler_(std::make_unique<Scheduler>(kLease, options.closed)) {
  for (int i = 0; i < options_.workers; ++i) {
    SimWorker& worker = *workers_.emplace_back(std::make_unique<SimWorker>());
    worker.index = i;
    worker.name = absl::StrCat("w", i);
    worker.rack = i % 2 == 0 ? "a" : "b";
    if (i % 4 >= 2) worker.memory_bytes = kBigMemory;
    if (options_.workers >= kManyWorkers && i % 100 == 0) worker.device_name = "Rare CPU";
    if (options_.uniform || !options_.uneven) continue;
    if (i % 3 == 1) worker.backends = {"eager"};
    if (i % 3 == 2) worker.backends = {"eager", "sdpa", "flash2"};
    if (i % 5 == 4) worker.backends = {"eager", "cudnn"};
  }
}

FleetSimulation::~FleetSimulation() = default;

absl::Status FleetSimulation::Wrong(const std::string& what) const {
  return absl::InternalError(
      absl::StrCat("seed ", options_.seed, ", step ", step_, ", after \"", last_event_, "\": ", what));
}

// Each worker is heard of a few times in each lease, however many there are.
void FleetSimulation::Advance() { now_us_ += Pick(static_cast<int>(400 * kLease) / options_.workers + 1); }

absl::Status FleetSimulation::Run(int steps) {
  while (jobs_ < options_.jobs) {
    if (absl::Status status = Submit(); !status.ok()) return status;
  }
  costs_.clear();
  for (int i = 0; i < steps; ++i) {
    ++step_;
    if (absl::Status status = Step(); !status.ok()) return status;
  }
  return CheckAll();
}

absl::Status FleetSimulation::Step() {
  Advance();
  if (options_.keep_queued > 0 && scheduler_->counts().queued() < options_.keep_queued) {
    if (absl::Status status = Submit(); !status.ok()) return status;
  }
  SimWorker& worker = *workers_[static_cast<size_t>(Pick(options_.workers))];
  if (absl::Status status = RandomAction(worker); !status.ok()) return status;
  for (int i = Pick(3); i > 0; --i) {
    if (absl::Status status = Deliver(); !status.ok()) return status;
  }
  if (options_.checks && (jobs_ <= options_.check_all_up_to || step_ % options_.check_all_every == 0)) {
    return CheckAll();
  }
  return absl::OkStatus();
}

absl::Status FleetSimulation::RandomAction(SimWorker& worker) {
  if (OneIn(options_.submit_one_in)) return Submit();
  if (OneIn(options_.restart_one_in)) return Restart();
  const uint64_t id = RandomBenchmark();
  switch (Pick(100)) {
    case 0:
      return Apply("cancel", "", [&](Effects& effects) { scheduler_->Cancel(id, "simulated", now(), effects); });
    case 1:
    case 2: {
      const bool pause = Pick(2) == 0;
      return Apply(pause ? "pause" : "resume", "",
                   [&](Effects& effects) { scheduler_->SetPaused(id, pause, now(), effects); });
    }
    case 3:
      return SetDrained(worker, true);
    case 4:
    case 5:
      return SetDrained(worker, false);
    case 6:
      worker.draining = !worker.draining;
      break;
    case 7:  // the stream breaks; the worker goes on, and the scheduler learns of it later
      worker.noticed = worker.noticed && !worker.connected;
      worker.connected = false;
      ++events_["stream broke"];
      break;
    case 8:  // the worker dies: what it ran is gone, what it spooled is on disk
      worker.noticed = worker.noticed && !worker.connected;
      worker.connected = false;
      worker.active.clear();
      ++events_["worker died"];
      break;
    case 9:
    case 10:
      return NoticeGone(worker);
    case 11:
      return Apply("tick", "", [&](Effects& effects) { scheduler_->Tick(now(), effects); });
    case 12:
      HandBack(worker);
      break;
    case 13:  // reconnects though it was connected
      return Join(worker);
    default: {
      if (!worker.connected) return OneIn(3) ? Join(worker) : absl::OkStatus();
      const int dice = Pick(20);
      v1::WorkerEvent event;
      if (dice < 5 && !worker.active.empty()) {
        *event.mutable_progress()->mutable_run() = worker.active.begin()->second.run();
        event.mutable_progress()->set_attempt(worker.active.begin()->second.attempt());
      } else if (dice < 8) {
        event.mutable_heartbeat()->set_draining(worker.draining);
      } else {
        Finish(worker, dice == 8 ? v1::OUTCOME_FAILED : dice == 9 ? v1::OUTCOME_OUT_OF_MEMORY : v1::OUTCOME_MEASURED);
        break;
      }
      Post(worker, event);
    }
  }
  return absl::OkStatus();
}

// What users and workers do

v1::BenchmarkSpec FleetSimulation::RandomSpec() {
  std::vector<std::string> backends = {"eager"};
  if (!options_.uniform && Pick(2) != 0) backends.emplace_back("sdpa");
  if (!options_.uniform && options_.uneven) {
    if (OneIn(3)) backends.emplace_back("flash2");
    if (OneIn(6)) backends.emplace_back("cudnn");
    if (OneIn(6)) backends.erase(backends.begin());
    if (backends.empty()) backends.emplace_back("fused");  // which nobody has
  }
  const bool many = options_.jobs > options_.check_all_up_to || options_.keep_queued > 0;
  v1::BenchmarkSpec spec = MakeSpec(backends, 1 + Pick(many ? 50 : 3), 1 + Pick(3));
  spec.set_submitter(absl::StrCat("user", Pick(kSubmitters)));
  if (options_.uniform) return spec;
  spec.set_priority(Pick(3) - 1);
  if (OneIn(6)) spec.set_max_slots(1 + Pick(3));
  if (OneIn(12)) spec.set_deadline_seconds(1 + Pick(60));
  v1::SlotRequirements& needs = *spec.mutable_requirements();
  if (OneIn(4)) (*needs.mutable_labels())["rack"] = Pick(2) == 0 ? "a" : "b";
  if (OneIn(4)) needs.set_min_memory_bytes(kBigMemory);
  // `attnfleet run` refuses before it submits what its own fleet has too few slots for.
  if (OneIn(10) && !options_.closed) needs.set_count(2);
  if (OneIn(many ? 200 : 10)) {
    spec.set_placement(v1::PLACEMENT_EVERY);
    if (OneIn(3)) spec.set_max_slots(1);
    if (options_.workers >= kManyWorkers) needs.set_device_name_contains("rare");
  }
  return spec;
}

uint64_t FleetSimulation::RandomBenchmark() {
  return 1 + std::uniform_int_distribution<uint64_t>(0, scheduler_->newest())(random_);
}

absl::Status FleetSimulation::Submit() {
  const v1::BenchmarkSpec spec = RandomSpec();
  jobs_ += static_cast<uint64_t>(spec.shapes_size()) * static_cast<uint64_t>(spec.backends_size());
  return Apply("submit", "", [&](Effects& effects) { scheduler_->Submit(spec, now(), effects); });
}

absl::Status FleetSimulation::SetDrained(SimWorker& worker, bool drained) {
  return Apply(drained ? "drain" : "undrain", worker.name,
               [&](Effects& effects) { scheduler_->SetDrained(worker.name, drained, now(), effects); });
}

absl::Status FleetSimulation::Join(SimWorker& worker) {
  if (worker.active.empty() && OneIn(3)) worker.slots = 1 + Pick(3);
  if (options_.uneven && worker.index % 4 == 3 && OneIn(3) && worker.backends.erase("flash2") == 0) {
    worker.backends.insert("flash2");
  }
  v1::WorkerHello hello = MakeHello(worker.name, worker.slots, {worker.backends.begin(), worker.backends.end()});
  for (v1::Slot& slot : *hello.mutable_worker()->mutable_slots()) {
    slot.set_device_name(worker.device_name);
    slot.set_memory_bytes(worker.memory_bytes);
  }
  (*hello.mutable_worker()->mutable_labels())["rack"] = worker.rack;
  hello.set_draining(worker.draining);
  for (const auto& [slot, start] : worker.active) *hello.add_active() = MakeActive(start);
  for (const v1::RunReport& report : worker.spool) *hello.add_unacknowledged() = report;
  worker.connected = true;
  worker.noticed = true;
  worker.announced = worker.backends;
  worker.drains = worker.draining;
  worker.awaited_until = now();
  worker.offers = worker.drains ? Backends() : worker.announced;
  ++worker.stream;
  return Apply("join", worker.name, [&](Effects& effects) { scheduler_->WorkerJoined(hello, now(), effects); });
}

absl::Status FleetSimulation::NoticeGone(SimWorker& worker) {
  if (worker.connected || worker.noticed) return absl::OkStatus();
  worker.noticed = true;
  return Apply("gone", worker.name, [&](Effects&) { scheduler_->WorkerDisconnected(worker.name, now()); });
}

// A trainer ends: the result is spooled, and sent if there is a stream.
void FleetSimulation::Finish(SimWorker& worker, v1::Outcome outcome) {
  if (worker.active.empty()) return;
  const v1::StartRun start = worker.active.begin()->second;
  worker.active.erase(worker.active.begin());
  if (options_.checks) ended_trainers_.insert({IdOf(start.run()), start.attempt()});
  v1::WorkerEvent event;
  *event.mutable_report() = MakeReport(start, outcome);
  worker.spool.push_back(event.report());
  Post(worker, event);
}

void FleetSimulation::HandBack(SimWorker& worker) {
  if (OneIn(2)) return Finish(worker, v1::OUTCOME_CANCELLED);
  if (worker.active.empty() || !worker.connected) return;
  v1::WorkerEvent event;  // of an older version
  *event.mutable_handed_back()->mutable_run() = worker.active.begin()->second.run();
  event.mutable_handed_back()->set_attempt(worker.active.begin()->second.attempt());
  worker.active.erase(worker.active.begin());
  Post(worker, event);
}

void FleetSimulation::Post(SimWorker& worker, const v1::WorkerEvent& event) {
  if (worker.connected) in_flight_.push_back({worker.index, worker.stream, event});
}

// Any message that is on its way: so they come late and out of order. Some come twice; those of a stream that has
// broken come or are lost.
absl::Status FleetSimulation::Deliver() {
  if (in_flight_.empty()) return absl::OkStatus();
  const auto chosen = in_flight_.begin() + Pick(static_cast<int>(in_flight_.size()));
  const Message message = *chosen;
  const SimWorker& worker = *workers_[static_cast<size_t>(message.worker)];
  if (OneIn(10)) {
    ++events_["message twice"];
  } else {
    *chosen = std::move(in_flight_.back());
    in_flight_.pop_back();
  }
  if (message.stream != worker.stream || !worker.connected) {
    ++events_["message of a broken stream"];
    if (OneIn(2)) return absl::OkStatus();
  }
  return Give(message);
}

absl::Status FleetSimulation::Give(const Message& message) {
  const std::string& name = workers_[static_cast<size_t>(message.worker)]->name;
  const v1::WorkerEvent& event = message.event;
  switch (event.event_case()) {
    case v1::WorkerEvent::kHeartbeat: {
      SimWorker& worker = *workers_[static_cast<size_t>(message.worker)];
      const bool drains = event.heartbeat().draining();
      if (std::exchange(worker.drains, drains) != drains) worker.awaited_until = now() + kLease;
      if (!drains) worker.offers = worker.announced;
      return Apply("heartbeat", name, [&](Effects& effects) { scheduler_->WorkerHeard(name, drains, now(), effects); });
    }
    case v1::WorkerEvent::kProgress:
      return Apply("progress", name,
                   [&](Effects& effects) { scheduler_->RunProgressed(name, event.progress(), now(), effects); });
    case v1::WorkerEvent::kReport:
      return Apply("report", name,
                   [&](Effects& effects) { scheduler_->RunReported(name, event.report(), now(), effects); });
    default:
      return Apply("handed back", name,
                   [&](Effects& effects) { scheduler_->RunHandedBack(name, event.handed_back(), now(), effects); });
  }
}

// The coordinator is killed and comes back with what was saved. Every stream is broken.
absl::Status FleetSimulation::Restart() {
  scheduler_ = std::make_unique<Scheduler>(kLease, options_.closed);
  for (const std::string& worker : stored_drained_) scheduler_->RestoreDrained(worker);
  for (const auto& [id, stored] : store_) {
    std::vector<v1::Run> runs;
    for (const auto& [place, run] : stored.rows) runs.push_back(run);
    if (absl::Status status = scheduler_->Restore(stored.head, std::move(runs), now()); !status.ok()) return status;
  }
  for (const auto& worker : workers_) {
    worker->connected = false;
    worker->noticed = true;
    worker->announced.clear();
    worker->offers.clear();
  }
  gathering_ = !open_.empty();
  gathers_until_ = now() + kLease;
  fleet_returns_ = !store_.empty() && !options_.closed;
  last_event_ = "restart";
  ++events_[last_event_];
  return options_.checks ? CheckAll() : absl::OkStatus();
}

// What the scheduler makes of it

absl::Status FleetSimulation::Apply(const char* what, const std::string& worker,
                                    const std::function<void(Effects&)>& event) {
  last_event_ = what;
  ++events_[what];
  Effects effects;
  const auto start = std::chrono::steady_clock::now();
  event(effects);
  const std::chrono::nanoseconds cost = std::chrono::steady_clock::now() - start;
  costs_[what].push_back(static_cast<uint32_t>(std::min<int64_t>(cost.count(), UINT32_MAX)));
  if (absl::Status status = Save(effects); !status.ok()) return status;
  const bool certain = !options_.checks || CountOffers(what, worker);
  if (absl::Status status = Send(effects); !status.ok()) return status;
  if (!options_.checks) return absl::OkStatus();
  if (!certain) return Apply("tick", "", [this](Effects& ticked) { scheduler_->Tick(now(), ticked); });
  return CheckWhatChanged(effects, worker);
}

bool FleetSimulation::CountOffers(const std::string& event, const std::string& name) {
  if (!name.empty() && event != "drain" && event != "undrain") workers_[NumberOf(name)]->heard = now();
  const bool looks = Schedules(event);
  bool certain = true;
  for (const auto& worker : workers_) {
    const bool lost = now() - worker->heard > kLease;
    if (worker->offers.empty() || !(lost || (worker->drains && now() >= worker->awaited_until))) continue;
    certain = certain && looks;
    if (!looks) continue;
    worker->offers.clear();
    if (lost) worker->announced.clear();
  }
  if (!gathering_ || now() <= gathers_until_) return certain;
  gathering_ = !looks;
  return certain && looks;
}

absl::Status FleetSimulation::Save(const Effects& effects) {
  for (const uint64_t id : effects.benchmarks) {
    v1::Benchmark head = *scheduler_->Head(id);
    const bool over = IsOver(head.state());
    if (over) {
      open_.erase(id);
    } else {
      open_.insert(id);
    }
    store_[id].head = std::move(head);
  }
  for (const RunId& id : effects.runs) LeaveSlot(store_.at(std::get<0>(id)), id);
  for (const RunId& id : effects.runs) {
    if (absl::Status status = SaveRun(id, store_.at(std::get<0>(id))); !status.ok()) return status;
  }
  for (const auto& [worker, drained] : effects.drained) {
    if (drained) {
      stored_drained_.insert(worker);
    } else {
      stored_drained_.erase(worker);
    }
  }
  return absl::OkStatus();
}

// All that leave a slot do so before any comes to one.
void FleetSimulation::LeaveSlot(const Stored& stored, const RunId& id) {
  const auto row = stored.rows.find({std::get<1>(id), std::get<2>(id)});
  if (row == stored.rows.end() || !IsActive(row->second)) return;
  holds_.erase({row->second.worker(), row->second.slot()});
  --running_[stored.head.spec().submitter()];
}

absl::Status FleetSimulation::SaveRun(const RunId& id, Stored& stored) {
  const v1::Run& run = *scheduler_->FindRun(KeyOf(id));
  v1::Run& row = stored.rows[{std::get<1>(id), std::get<2>(id)}];
  const std::string name = absl::StrCat("run ", FormatRunKey(run.key()));
  if (row.state() == v1::RUN_STATE_ENDED) return Wrong(name + " has a result and was changed again");
  row = run;
  stored.begun.insert(std::get<1>(id) / static_cast<uint32_t>(stored.head.spec().backends_size()));
  if (IsActive(row)) {
    if (!holds_.insert({{row.worker(), row.slot()}, id}).second) {
      return Wrong(absl::StrCat(name, " came to ", row.worker(), " ", row.slot(), ", which holds another"));
    }
    ++running_[stored.head.spec().submitter()];
  }
  if (row.state() != v1::RUN_STATE_ENDED) return absl::OkStatus();
  ++counted_;
  const v1::Outcome outcome = row.result().outcome();
  if (row.quarantined()) ++events_["quarantine"];
  if (options_.checks && (outcome == v1::OUTCOME_MEASURED || outcome == v1::OUTCOME_OUT_OF_MEMORY) &&
      !ended_trainers_.contains({id, row.attempt()})) {
    return Wrong(name + " has the result of a trainer that never ended");
  }
  return absl::OkStatus();
}

absl::Status FleetSimulation::Send(const Effects& effects) {
  const auto named = [this](const std::string& name) -> SimWorker& { return *workers_[NumberOf(name)]; };
  for (const Effects::Acknowledgement& acknowledged : effects.acknowledge) {
    SimWorker& worker = named(acknowledged.worker);
    if (!worker.connected) continue;
    std::erase_if(worker.spool, [&](const v1::RunReport& report) {
      return report.attempt() == acknowledged.report.attempt() && IdOf(report.run()) == IdOf(acknowledged.report.run());
    });
  }
  for (const Effects::Stop& stop : effects.stop) {
    SimWorker& worker = named(stop.worker);
    if (!worker.connected) continue;
    std::erase_if(worker.active, [&](const auto& item) {
      return item.second.attempt() == stop.stop.attempt() && IdOf(item.second.run()) == IdOf(stop.stop.run());
    });
  }
  for (const std::string& name : effects.disconnect) {
    named(name).connected = false;
    named(name).noticed = true;
    ++events_["lease ended"];
  }
  for (const Effects::Assignment& assignment : effects.assign) {
    SimWorker& worker = named(assignment.worker);
    if (stored_drained_.contains(worker.name)) return Wrong("a run was given to " + worker.name + ", which is drained");
    if (!Meets(store_.at(assignment.start.run().benchmark_id()).head.spec(), worker)) {
      return Wrong("a run was given to " + worker.name + ", which does not fit");
    }
    if (options_.checks && !worker.offers.contains(assignment.start.backend())) {
      return Wrong(absl::StrCat("a run of ", assignment.start.backend(), " was given to ", worker.name));
    }
    if (!worker.connected && worker.noticed) return Wrong("a run was given to " + worker.name + ", which is gone");
    if (!worker.connected) continue;  // lost with the stream
    if (!worker.active.insert({assignment.start.slot(), assignment.start}).second) {
      return Wrong(absl::StrCat("two runs on ", worker.name, " ", assignment.start.slot()));
    }
  }
  return absl::OkStatus();
}

// Checks

absl::Status FleetSimulation::CheckWhatChanged(const Effects& effects, const std::string& worker) {
  std::set<uint64_t> benchmarks = effects.benchmarks;
  std::set<std::string> names = {worker};
  for (const RunId& id : effects.runs) {
    benchmarks.insert(std::get<0>(id));
    names.insert(scheduler_->FindRun(KeyOf(id))->worker());
  }
  if (!effects.placed.empty() && fleet_returns_ && now() <= gathers_until_) {
    return Wrong(absl::StrCat("benchmark ", *effects.placed.begin(), " got its nodes before workers could come back"));
  }
  for (const uint64_t id : benchmarks) {
    if (absl::Status status = scheduler_->CheckBenchmark(id); !status.ok()) return Wrong(std::string(status.message()));
  }
  for (const std::string& name : names) {
    if (absl::Status status = scheduler_->CheckWorker(name); !status.ok()) return Wrong(std::string(status.message()));
  }
  if (absl::Status status = scheduler_->CheckNothingIdles(); !status.ok()) return Wrong(std::string(status.message()));
  if (scheduler_->counts().active() != holds_.size())
    return Wrong("the rows and the scheduler count other active runs");
  if (jobs_ > options_.check_all_up_to) return absl::OkStatus();
  for (const Effects::Assignment& assignment : effects.assign) {
    if (absl::Status status = CheckPlace(assignment); !status.ok()) return status;
  }
  return CheckOrder(effects);
}

bool FleetSimulation::Meets(const v1::BenchmarkSpec& spec, const SimWorker& worker) {
  const v1::SlotRequirements& needs = spec.requirements();
  const auto rack = needs.labels().find("rack");
  return worker.memory_bytes >= needs.min_memory_bytes() &&
         (rack == needs.labels().end() || rack->second == worker.rack) &&
         (needs.device_name_contains().empty() || worker.device_name == "Rare CPU");
}

bool FleetSimulation::Fits(const v1::BenchmarkSpec& spec, const Backends& wanted, const SimWorker& worker) const {
  const auto some = [&](const SimWorker& one) {
    Backends both;
    const std::optional<v1::WorkerStatus> known = scheduler_->FindWorker(one.name);
    if (known.has_value() && known->drained()) return both;
    if (Meets(spec, one)) std::ranges::set_intersection(wanted, one.offers, std::inserter(both, both.end()));
    return both;
  };
  const Backends here = some(worker);
  if (here.empty() || (gathering_ && here != wanted)) return false;
  return std::ranges::none_of(workers_, [&](const auto& other) {
    const Backends there = some(*other);
    return there != here && std::ranges::includes(there, here);
  });
}

bool FleetSimulation::MayStart(const v1::BenchmarkSpec& spec, const Backends& wanted) const {
  const Backends all = AllOf(spec);
  int able = 0;
  bool some = false;
  for (const auto& worker : workers_) {
    if (!Meets(spec, *worker)) continue;
    const auto has_any_of = [&worker = *worker](const Backends& of) {
      return std::ranges::find_first_of(of, worker.offers) != of.end();
    };
    if (has_any_of(all)) able += worker->slots;
    some = some || has_any_of(wanted);
  }
  return some && able >= std::max(1, spec.requirements().count());
}

FleetSimulation::Backends FleetSimulation::AllOf(const v1::BenchmarkSpec& spec) {
  return {spec.backends().begin(), spec.backends().end()};
}

FleetSimulation::Backends FleetSimulation::Left(const Stored& stored, uint32_t group) {
  const v1::BenchmarkSpec& spec = stored.head.spec();
  Backends left;
  for (int backend = 0; backend < spec.backends_size(); ++backend) {
    const uint32_t job = group * static_cast<uint32_t>(spec.backends_size()) + static_cast<uint32_t>(backend);
    for (uint32_t repetition = 0; repetition < static_cast<uint32_t>(spec.repetitions()); ++repetition) {
      const auto row = stored.rows.find({job, repetition});
      const bool waits = row == stored.rows.end() || row->second.state() == v1::RUN_STATE_QUEUED;
      if (waits) left.insert(spec.backends(backend));
    }
  }
  return left;
}

std::set<std::string> FleetSimulation::Shuns(const Stored& stored, uint32_t group) {
  std::set<std::string> crashed;
  std::set<std::string> measured;
  for (const auto& [place, run] : stored.rows) {
    if (place.first / static_cast<uint32_t>(stored.head.spec().backends_size()) != group) continue;
    for (const v1::AttemptFailure& failure : run.failed_attempts()) {
      if (!failure.worker_lost()) crashed.insert(failure.worker());
    }
    // The last attempt is not among them. Perhaps its worker was lost: of that a row says too little.
    if (run.result().outcome() == v1::OUTCOME_FAILED && !run.quarantined()) crashed.insert(run.worker());
    if (run.result().outcome() == v1::OUTCOME_MEASURED) measured.insert(run.worker());
  }
  for (const std::string& worker : measured) crashed.erase(worker);
  return crashed;
}

bool FleetSimulation::HasOther(const Stored& stored, uint32_t group, const Backends& wanted) const {
  const std::set<std::string> shuns = Shuns(stored, group);
  return std::ranges::any_of(workers_, [&](const auto& worker) {
    const std::optional<v1::WorkerStatus> known = scheduler_->FindWorker(worker->name);
    return known.has_value() && known->connected() && !known->draining() && !known->drained() &&
           !shuns.contains(worker->name) && Fits(stored.head.spec(), wanted, *worker);
  });
}

bool FleetSimulation::PlainlyWaits(const Stored& stored, uint32_t group) const {
  const v1::BenchmarkSpec& spec = stored.head.spec();
  const Backends left = Left(stored, group);
  const std::set<std::string> shuns = Shuns(stored, group);
  std::set<std::string> given_up;  // by what crashed there just before
  for (const auto& [place, run] : stored.rows) {
    if (place.first / static_cast<uint32_t>(spec.backends_size()) != group || !IsCrashed(run)) continue;
    const std::string& backend = spec.backends(static_cast<int>(place.first) % spec.backends_size());
    const bool still_has = workers_[NumberOf(run.worker())]->offers.contains(backend);
    if (still_has && shuns.contains(run.worker())) given_up.insert(run.worker());
  }
  for (const auto& [place, run] : stored.rows) {
    if (place.first / static_cast<uint32_t>(spec.backends_size()) != group || run.worker().empty()) continue;
    if (!IsActive(run) && given_up.contains(run.worker())) continue;
    const Backends& there = workers_[NumberOf(run.worker())]->offers;
    if (IsActive(run) || there.empty() || std::ranges::find_first_of(left, there) != left.end()) return false;
  }
  return !left.empty();
}

bool FleetSimulation::MustEnd(const Stored& stored) const {
  const v1::BenchmarkSpec& spec = stored.head.spec();
  if (spec.placement() == v1::PLACEMENT_EVERY) return stored.head.nodes_size() > 0 || MayStart(spec, AllOf(spec));
  for (uint32_t group = 0; group < static_cast<uint32_t>(spec.shapes_size()); ++group) {
    const Backends left = Left(stored, group);
    if (!left.empty() && MayStart(spec, left)) return true;
  }
  return std::ranges::any_of(stored.rows, [](const auto& row) { return IsActive(row.second); });
}

absl::Status FleetSimulation::CheckPlace(const Effects::Assignment& assignment) const {
  const v1::RunKey& key = assignment.start.run();
  const Stored& stored = store_.at(key.benchmark_id());
  const v1::BenchmarkSpec& spec = stored.head.spec();
  const uint32_t group = key.job_index() / static_cast<uint32_t>(spec.backends_size());
  Backends wanted = Left(stored, group);
  wanted.insert(assignment.start.backend());
  const auto& failures = stored.rows.at({key.job_index(), key.repetition()}).failed_attempts();
  const bool retried = !failures.empty() && !failures.rbegin()->worker_lost() &&
                       failures.rbegin()->attempt() + 1 == assignment.start.attempt();
  if (retried && spec.placement() == v1::PLACEMENT_ANY && failures.rbegin()->worker() == assignment.worker &&
      Shuns(stored, group).contains(assignment.worker) && HasOther(stored, group, wanted)) {
    return Wrong(absl::StrCat("run ", FormatRunKey(key), " crashed on ", assignment.worker, " and came back to it"));
  }
  const bool goes_on = std::ranges::any_of(stored.rows, [&](const auto& row) {
    const auto& [place, run] = row;
    return place != std::pair(key.job_index(), key.repetition()) && run.worker() == assignment.worker &&
           run.slot() == assignment.start.slot() && place.first / static_cast<uint32_t>(spec.backends_size()) == group;
  });
  if (goes_on || assignment.start.attempt() > 1 || spec.placement() == v1::PLACEMENT_EVERY) return absl::OkStatus();
  const SimWorker& worker = *workers_[NumberOf(assignment.worker)];
  if (Fits(spec, wanted, worker)) return absl::OkStatus();
  return Wrong(absl::StrCat("the group of run ", FormatRunKey(key), " came to ", worker.name,
                            ", and another has more of its backends"));
}

bool FleetSimulation::MayBegin(const Stored& stored) {
  const v1::Benchmark& head = stored.head;
  return !IsOver(head.state()) && !head.paused() && head.spec().placement() == v1::PLACEMENT_ANY &&
         head.spec().max_slots() == 0 && head.spec().requirements().count() < 2;
}

bool FleetSimulation::PlainlyWaits(const Stored& stored) {
  return MayBegin(stored) && stored.begun.size() < static_cast<size_t>(stored.head.spec().shapes_size());
}

FleetSimulation::NodeState FleetSimulation::StateOf(const Stored& stored, int node) {
  const v1::BenchmarkSpec& spec = stored.head.spec();
  const auto jobs = static_cast<uint32_t>(spec.shapes_size() * spec.backends_size());
  const uint32_t first = static_cast<uint32_t>(node) * jobs;
  NodeState state;
  uint32_t ended = 0;
  for (auto row = stored.rows.lower_bound({first, 0}); row != stored.rows.end(); ++row) {
    if (row->first.first >= first + jobs) break;
    state.begun = state.begun || row->second.attempt() > 0;
    state.active = state.active || IsActive(row->second);
    ended += row->second.state() == v1::RUN_STATE_ENDED ? 1 : 0;
  }
  state.ended = ended == jobs * static_cast<uint32_t>(spec.repetitions());
  return state;
}

int FleetSimulation::NodeOn(const Stored& stored, const std::string& worker, const std::string& slot) {
  for (int node = 0; node < stored.head.nodes_size(); ++node) {
    if (stored.head.nodes(node).worker() == worker && stored.head.nodes(node).slot() == slot) return node;
  }
  return -1;
}

absl::Status FleetSimulation::CheckOrder(const Effects& effects) {
  // Slots of each submitter before the first of these runs was given out: all that left a slot had left it then.
  std::map<std::string, uint64_t> running = running_;
  for (const Effects::Assignment& assignment : effects.assign) {
    --running[store_.at(assignment.start.run().benchmark_id()).head.spec().submitter()];
  }
  for (const Effects::Assignment& assignment : effects.assign) {
    const v1::RunKey& key = assignment.start.run();
    const Stored& chosen = store_.at(key.benchmark_id());
    const v1::BenchmarkSpec& spec = chosen.head.spec();
    const SimWorker& worker = *workers_[NumberOf(assignment.worker)];
    const uint32_t group = key.job_index() / static_cast<uint32_t>(spec.backends_size());
    const auto of_group = [&](const auto& row) {
      return row.first.first / static_cast<uint32_t>(spec.backends_size()) == group;
    };
    const bool every = spec.placement() == v1::PLACEMENT_EVERY;
    const auto of_node = [&](const auto& row) {
      const v1::Run& run = row.second;
      return run.attempt() > 0 && run.worker() == assignment.worker && run.slot() == assignment.start.slot();
    };
    const auto same = std::count_if(chosen.rows.begin(), chosen.rows.end(),
                                    [&](const auto& row) { return every ? of_node(row) : of_group(row); });
    const bool begins = same == 1 && (every || key.repetition() == 0) && assignment.start.attempt() == 1;
    for (const uint64_t id : open_) {
      const Stored& other = store_.at(id);
      if (id == key.benchmark_id()) continue;
      const int node = NodeOn(other, assignment.worker, assignment.start.slot());
      const NodeState state = node < 0 ? NodeState{} : StateOf(other, node);
      const bool node_waits =
          node >= 0 && !state.active && !state.ended && !other.head.paused() && other.head.spec().max_slots() == 0;
      const bool waits = PlainlyWaits(other) && Fits(other.head.spec(), AllOf(other.head.spec()), worker);
      if (!waits && !node_waits) continue;
      const std::string& rival = other.head.spec().submitter();
      const std::string where =
          absl::StrCat("run ", FormatRunKey(key), " came to ", assignment.worker, " before benchmark ", id);
      if (other.head.spec().priority() > spec.priority()) return Wrong(where + " of a higher priority");
      if (!begins || other.head.spec().priority() != spec.priority()) continue;
      if (state.begun) return Wrong(where + ", which has begun there");
      if (running[rival] < running[spec.submitter()]) {
        return Wrong(absl::StrCat(where, " of ", rival, ", who holds ", running[rival], " slots, ", spec.submitter(),
                                  " holds ", running[spec.submitter()]));
      }
    }
    ++running[spec.submitter()];
  }
  return absl::OkStatus();
}

bool FleetSimulation::NodeMayBegin(const Stored& stored, int node) const {
  const auto max_slots = static_cast<int>(stored.head.spec().max_slots());
  const NodeState state = StateOf(stored, node);
  if (state.active || state.ended || IsOver(stored.head.state()) || stored.head.paused()) return false;
  if (max_slots == 0) return true;
  if (gathering_) return false;  // any node may hold a place until its worker had the time to come back
  int places = 0;
  for (int other = 0; other < stored.head.nodes_size(); ++other) {
    const NodeState theirs = StateOf(stored, other);
    const v1::Node& on = stored.head.nodes(other);
    const std::optional<v1::WorkerStatus> known = scheduler_->FindWorker(on.worker());
    const bool away = workers_[NumberOf(on.worker())]->offers.empty() || stored_drained_.contains(on.worker()) ||
                      (known.has_value() && known->draining());
    const bool idles = known.has_value() && known->connected() && !known->draining() && !known->drained() &&
                       !holds_.contains({on.worker(), on.slot()});
    if (other != node && !theirs.ended && (theirs.active || (!away && !idles))) ++places;
  }
  return places < max_slots;
}

absl::Status FleetSimulation::CheckAll() {
  if (absl::Status status = scheduler_->CheckInvariants(); !status.ok()) return Wrong(std::string(status.message()));
  if (jobs_ > options_.check_all_up_to) return absl::OkStatus();
  for (const v1::WorkerStatus& status : scheduler_->Workers()) {
    if (!status.connected() || status.draining() || status.drained()) continue;
    const SimWorker& worker = *workers_[NumberOf(status.info().name())];
    for (const v1::Slot& slot : status.info().slots()) {
      if (holds_.contains({worker.name, slot.id()})) continue;
      for (const uint64_t id : open_) {
        const Stored& stored = store_.at(id);
        const v1::BenchmarkSpec& spec = stored.head.spec();
        const int node = NodeOn(stored, worker.name, slot.id());
        if (node >= 0 && NodeMayBegin(stored, node)) {
          return Wrong(absl::StrCat("a node of benchmark ", id, " waits while its slot, ", worker.name, " ", slot.id(),
                                    ", is idle and max_slots allows it"));
        }
        if (!MayBegin(stored)) continue;
        for (uint32_t group = 0; group < static_cast<uint32_t>(spec.shapes_size()); ++group) {
          const Backends left = Left(stored, group);
          if (!PlainlyWaits(stored, group) || !Fits(spec, left, worker)) continue;
          const bool shunned = Shuns(stored, group).contains(worker.name);
          if (shunned && (!Schedules(last_event_) || HasOther(stored, group, left))) continue;
          return Wrong(absl::StrCat("group ", group, " of benchmark ", id, " waits while ", worker.name, " ", slot.id(),
                                    " is idle and fits"));
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status FleetSimulation::Drain(int max_rounds) {
  for (const auto& worker : workers_) {
    worker->draining = false;
    if (absl::Status status = SetDrained(*worker, false); !status.ok()) return status;
  }
  const std::set<uint64_t> open = open_;
  for (const uint64_t id : open) {
    absl::Status status =
        Apply("resume", "", [&](Effects& effects) { scheduler_->SetPaused(id, false, now(), effects); });
    if (!status.ok()) return status;
  }
  for (const auto& worker : workers_) {
    if (absl::Status status = Join(*worker); !status.ok()) return status;
  }
  const auto must_end = [this](uint64_t id) { return MustEnd(store_.at(id)); };
  for (int round = 0; round < max_rounds && std::ranges::any_of(open_, must_end); ++round) {
    now_us_ += kLease * 100;
    for (const auto& worker : workers_) {
      if (!worker->connected) {
        if (absl::Status status = Join(*worker); !status.ok()) return status;
      }
      while (!worker->active.empty()) Finish(*worker, v1::OUTCOME_MEASURED);
      v1::WorkerEvent event;
      event.mutable_heartbeat()->set_draining(false);
      Post(*worker, event);
    }
    std::vector<Message> messages;
    messages.swap(in_flight_);
    for (const Message& message : messages) {
      if (absl::Status status = Give(message); !status.ok()) return status;
    }
    absl::Status status = Apply("tick", "", [&](Effects& effects) { scheduler_->Tick(now(), effects); });
    if (!status.ok()) return status;
  }
  for (const uint64_t id : open_) {
    if (!options_.closed && !must_end(id)) continue;
    std::string why;
    for (const v1::Explanation& one : Explain(WithRuns(*scheduler_->TakePicture(id)), scheduler_->WhyItWaits(id))) {
      absl::StrAppend(&why, "\n", one.text());
    }
    return Wrong(absl::StrCat("benchmark ", id, " never ends: ", why));
  }
  for (const auto& [id, stored] : store_) {
    if (stored.head.state() == v1::BENCHMARK_STATE_FINISHED && stored.rows.size() != stored.head.runs_total()) {
      return Wrong(absl::StrCat("benchmark ", id, " has finished without all of its runs"));
    }
    for (const auto& [place, run] : stored.rows) {
      if (!IsOver(stored.head.state())) break;
      if (run.state() == v1::RUN_STATE_ENDED && run.result().outcome() != v1::OUTCOME_UNSPECIFIED) continue;
      return Wrong(absl::StrCat("run ", FormatRunKey(run.key()), " of an ended benchmark has no result"));
    }
  }
  return CheckAll();
}

}  // namespace attnfleet::server
