// Messages of worker streams, some any bytes and some that fit what the scheduler has assigned, through the service's
// validation to the scheduler: its invariants hold after each, and a run is never assigned or counted twice.

#include <array>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fleet_fixture.h"
#include "server/scheduler.h"
#include "server/worker_service.h"
#include "support.h"

namespace attnfleet::server {
namespace {

using fuzz::Check;

constexpr int64_t kLease = 1'000;
constexpr int kStreams = 3;
constexpr int kMaxBenchmarks = 4;
constexpr int kMaxSteps = 200;

class FuzzedFleet {
 public:
  explicit FuzzedFleet(fuzz::Input input) : input_(input) {}

  void Run() {
    Submit();
    for (int i = 0; i < kMaxSteps && !input_.empty(); ++i) Step();
  }

 private:
  struct Stream {
    std::string worker;  // empty: no hello yet
    std::string instance;
  };
  using Attempt = std::tuple<uint64_t, uint32_t, uint32_t, uint32_t>;  // run, attempt

  void Step() {
    now_ += input_.Byte();
    Stream& stream = streams_[input_.Byte() % kStreams];
    switch (input_.Byte() % 9) {
      case 0: {
        v1::WorkerEvent event;
        const std::string_view bytes = input_.Bytes();
        // gRPC ends a stream whose message cannot be parsed.
        if (!event.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return End(stream);
        return Take(stream, event);
      }
      case 1: {
        v1::WorkerEvent event;
        const int index = input_.Byte() % kStreams;
        *event.mutable_hello() = MakeHello(absl::StrCat("w", index), 1 + input_.Byte() % 3);
        for (const auto& [attempt, start] : assigned_) {
          if (input_.Byte() % 2 == 0) *event.mutable_hello()->add_active() = MakeActive(start);
        }
        return Take(stream, event);
      }
      case 2:
      case 3: {
        v1::WorkerEvent event;
        const v1::StartRun* start = Assigned();
        if (start == nullptr) return;
        *event.mutable_report() = MakeReport(*start, static_cast<v1::Outcome>(input_.Byte() % 7));
        return Take(stream, event);
      }
      case 4: {
        v1::WorkerEvent event;
        const v1::StartRun* start = Assigned();
        if (start == nullptr) return;
        *event.mutable_progress()->mutable_run() = start->run();
        event.mutable_progress()->set_attempt(start->attempt());
        return Take(stream, event);
      }
      case 5: {
        v1::WorkerEvent event;
        const v1::StartRun* start = Assigned();
        if (start == nullptr) return;
        *event.mutable_handed_back()->mutable_run() = start->run();
        event.mutable_handed_back()->set_attempt(start->attempt());
        return Take(stream, event);
      }
      case 6:
        return End(stream);
      case 7:
        now_ += 8 * int64_t{input_.Byte()};
        return Apply([this](Effects& effects) { scheduler_.Tick(now_, effects); });
      default: {
        if (input_.Byte() % 2 == 0) return Submit();
        const uint64_t id = input_.Byte() % (kMaxBenchmarks + 2);
        return Apply([&](Effects& effects) { scheduler_.Cancel(id, "fuzz", now_, effects); });
      }
    }
  }

  void Submit() {
    if (scheduler_.newest() >= kMaxBenchmarks) return;
    const v1::BenchmarkSpec spec = MakeSpec({"eager", "sdpa"}, 1 + input_.Byte() % 3, 1 + input_.Byte() % 2);
    Apply([&](Effects& effects) { scheduler_.Submit(spec, now_, effects); });
  }

  // Any run that was ever assigned, of old attempts too.
  const v1::StartRun* Assigned() {
    if (assigned_.empty()) return nullptr;
    auto found = assigned_.begin();
    std::advance(found, input_.Byte() % assigned_.size());
    return &found->second;
  }

  // As the service and the coordinator treat a message.
  void Take(Stream& stream, v1::WorkerEvent event) {
    NormalizeResults(event);
    if (stream.worker.empty()) {
      if (!event.has_hello() || !ValidateHello(event.hello()).ok()) return;
      for (Stream& other : streams_) {
        if (other.worker != event.hello().worker().name()) continue;
        if (other.instance != event.hello().worker().instance()) return;
        other = {};  // it has connected anew
      }
      stream = {event.hello().worker().name(), event.hello().worker().instance()};
      return Apply([&](Effects& effects) { scheduler_.WorkerJoined(event.hello(), now_, effects); });
    }
    Apply([&](Effects& effects) {
      switch (event.event_case()) {
        case v1::WorkerEvent::kHeartbeat:
          return scheduler_.WorkerHeard(stream.worker, event.heartbeat().draining(), now_, effects);
        case v1::WorkerEvent::kProgress:
          return scheduler_.RunProgressed(stream.worker, event.progress(), now_, effects);
        case v1::WorkerEvent::kReport:
          return scheduler_.RunReported(stream.worker, event.report(), now_, effects);
        case v1::WorkerEvent::kHandedBack:
          return scheduler_.RunHandedBack(stream.worker, event.handed_back(), now_, effects);
        case v1::WorkerEvent::kHello:
        case v1::WorkerEvent::EVENT_NOT_SET:
          return;
      }
    });
  }

  void End(Stream& stream) {
    if (stream.worker.empty()) return;
    scheduler_.WorkerDisconnected(stream.worker, now_);
    stream = {};
  }

  template <typename Event>
  void Apply(Event event) {
    Effects effects;
    event(effects);
    const absl::Status invariants = scheduler_.CheckInvariants();
    Check(invariants.ok(), std::string(invariants.message()));
    for (const Effects::Assignment& assignment : effects.assign) {
      const v1::RunKey& run = assignment.start.run();
      const Attempt attempt{run.benchmark_id(), run.job_index(), run.repetition(), assignment.start.attempt()};
      Check(assigned_.emplace(attempt, assignment.start).second, "an attempt is assigned once");
      bool connected = false;
      for (const Stream& stream : streams_) connected |= stream.worker == assignment.worker;
      Check(connected, "runs go to workers with a stream");
    }
    for (const std::string& worker : effects.disconnect) {
      for (Stream& stream : streams_) {
        if (stream.worker == worker) stream = {};
      }
    }
    for (const auto& key : effects.runs) {
      v1::RunKey run_key;
      run_key.set_benchmark_id(std::get<0>(key));
      run_key.set_job_index(std::get<1>(key));
      run_key.set_repetition(std::get<2>(key));
      const v1::Run& run = *scheduler_.FindRun(run_key);
      const auto ended = ended_.find(key);
      if (ended != ended_.end()) Check(run.result().outcome() == ended->second, "a result that counts stays");
      if (run.state() == v1::RUN_STATE_ENDED) ended_.emplace(key, run.result().outcome());
    }
  }

  fuzz::Input input_;
  Scheduler scheduler_{kLease};
  int64_t now_ = 1'000'000;
  std::array<Stream, kStreams> streams_;
  std::map<Attempt, v1::StartRun> assigned_;
  std::map<std::tuple<uint64_t, uint32_t, uint32_t>, v1::Outcome> ended_;
};

}  // namespace
}  // namespace attnfleet::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  attnfleet::server::FuzzedFleet(attnfleet::fuzz::Input(data, size)).Run();
  return 0;
}
