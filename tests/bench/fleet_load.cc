// Thousands of workers on real gRPC streams against a real attnfleet-server, and what that costs:
//   fleet_load [--workers=N --runs=N --run-time=TIME ...] [--json]
// Starts the server beside this program, with an SQLite store in a temporary folder. Each worker is simulated in this
// one process, but has a TCP connection, an address (127.X.Y.Z) and a stream of its own, beats as the server's welcome
// asks, takes one run at a time, holds it for --run-time, reports a result as large as a trainer's and waits for its
// acknowledgement. At the end every run is read back from the server and compared with what the workers were told: the
// exit status is 1 if one is missing, was counted twice or is another one's, or if a worker lost its stream or lease.

#include <algorithm>
#include <cstdio>
#include <optional>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnfleet/v1/service.grpc.pb.h"
#include "program.h"
#include "proto/address.h"
#include "proto/support/flags.h"
#include "simulated_worker.h"

ABSL_FLAG(int, workers, 5000, "simulated workers");
ABSL_FLAG(int, slots, 1, "slots of each");
ABSL_FLAG(int, runs, 100'000, "runs, in benchmarks of --runs-per-benchmark");
ABSL_FLAG(int, runs_per_benchmark, 10'000, "runs of a benchmark");
ABSL_FLAG(absl::Duration, run_time, absl::ZeroDuration(), "how long a run takes, give or take half of it");
ABSL_FLAG(absl::Duration, settle, absl::Seconds(20), "time without work, for memory and heartbeats alone");
ABSL_FLAG(absl::Duration, heartbeat, absl::ZeroDuration(), "of the server; default: its own");
ABSL_FLAG(absl::Duration, lease, absl::ZeroDuration(), "of the server; default: its own");
ABSL_FLAG(bool, keepalive, true, "workers ping the server as real ones do, and give up when it is late to answer");
ABSL_FLAG(absl::Duration, limit, absl::Minutes(9), "give up after this");
ABSL_FLAG(std::string, store, "", "postgresql://..., instead of SQLite");
ABSL_FLAG(std::string, folder, "", "where to make the temporary folder");
ABSL_FLAG(bool, json, false, "one JSON object instead of lines for people");

namespace attnfleet::bench {
namespace {

// Each lane of a benchmark is a shape's: these go to one slot, one after another.
constexpr int kRepetitions = 5;
constexpr int kSequenceLengths = 50;
constexpr int kSubmitters = 4;
// A heartbeat that was sent so much after it was due is called late.
constexpr float kLateSeconds = 1;

float Quantile(std::vector<float>& sorted, double q) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(q * static_cast<double>(sorted.size())))];
}

// What is printed, in order, as text or JSON.
class Report {
 public:
  void Add(const std::string& name, double value) { figures_.push_back({name, absl::StrFormat("%.6g", value)}); }
  void AddCount(const std::string& name, uint64_t value) { figures_.push_back({name, absl::StrCat(value)}); }
  // p50, p99 and the largest, in milliseconds.
  void AddSpans(const std::string& name, const std::vector<Observations::Span>& spans) {
    std::vector<float> sorted;
    sorted.reserve(spans.size());
    for (const Observations::Span& span : spans) sorted.push_back(span.seconds * 1000);
    std::sort(sorted.begin(), sorted.end());
    Add(name + "_p50_ms", Quantile(sorted, 0.50));
    Add(name + "_p99_ms", Quantile(sorted, 0.99));
    Add(name + "_max_ms", Quantile(sorted, 1));
  }

  void Print(bool json) const {
    if (json) {
      const char* separator = "{";
      for (const auto& [name, value] : figures_) {
        std::printf("%s\"%s\": %s", separator, name.c_str(), value.c_str());
        separator = ", ";
      }
      std::printf("}\n");
      return;
    }
    for (const auto& [name, value] : figures_) std::printf("%-44s %14s\n", name.c_str(), value.c_str());
  }

 private:
  std::vector<std::pair<std::string, std::string>> figures_;
};

// CPU time of server and generator since it was made, as parts of one core.
class CpuMeter {
 public:
  explicit CpuMeter(const Program& server) : server_(server) {}

  void AddTo(Report& report, const std::string& when) const {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    report.Add("server_cpu_cores_" + when, (server_.CpuSeconds() - server_cpu_) / seconds);
    report.Add("generator_cpu_cores_" + when, (OwnCpuSeconds() - own_cpu_) / seconds);
  }
  double ServerSeconds() const { return server_.CpuSeconds() - server_cpu_; }

 private:
  const Program& server_;
  const Clock::time_point start_ = Clock::now();
  const double server_cpu_ = server_.CpuSeconds();
  const double own_cpu_ = OwnCpuSeconds();
};

class Load {
 public:
  Load()
      : folder_(absl::GetFlag(FLAGS_folder)),
        workers_(absl::GetFlag(FLAGS_workers)),
        give_up_(Clock::now() + absl::ToChronoSeconds(absl::GetFlag(FLAGS_limit))) {}

  int Run() {
    StartServer();
    report_.AddCount("workers", static_cast<uint64_t>(workers_));
    const long empty = server_->Status("VmRSS");
    report_.Add("server_rss_empty_mib", static_cast<double>(empty) / 1024);
    Connect();
    Settle();
    const long settled = server_->Status("VmRSS");
    report_.Add("server_rss_connected_mib", static_cast<double>(settled) / 1024);
    report_.Add("server_kib_per_worker", static_cast<double>(settled - empty) / workers_);
    Submit();
    Work();
    report_.Add("server_rss_peak_mib", static_cast<double>(server_->Status("VmHWM")) / 1024);
    report_.Add("server_rss_after_mib", static_cast<double>(server_->Status("VmRSS")) / 1024);
    report_.AddCount("server_threads", static_cast<uint64_t>(server_->Status("Threads")));
    Verify();
    report_.Print(absl::GetFlag(FLAGS_json));
    for (size_t i = 0; i < std::min<size_t>(wrong_.size(), 10); ++i) std::fprintf(stderr, "%s\n", wrong_[i].c_str());
    Disconnect();
    return wrong_.empty() ? 0 : 1;
  }

 private:
  void StartServer() {
    std::vector<std::string> argv = {BinaryFolder() + "/attnfleet-server", "--listen=127.0.0.1:0",
                                     "--metrics-listen=127.0.0.1:0",
                                     absl::StrCat("--state-dir=", folder_.path(), "/server")};
    const auto pass = [&argv](const std::string& flag, absl::Duration value) {
      if (value > absl::ZeroDuration()) argv.push_back(absl::StrCat(flag, "=", absl::FormatDuration(value)));
    };
    pass("--heartbeat", absl::GetFlag(FLAGS_heartbeat));
    pass("--lease", absl::GetFlag(FLAGS_lease));
    if (const std::string store = absl::GetFlag(FLAGS_store); !store.empty()) argv.push_back("--store=" + store);
    absl::StatusOr<std::unique_ptr<Program>> server = Program::Start(argv, log());
    if (!server.ok()) Die(std::string(server.status().message()));
    server_ = *std::move(server);
    users_ = MakeChannel(server_->address());
  }

  std::string log() const { return folder_.path() + "/server.log"; }

  // Waits until `done`, which is called with the observations' mutex held.
  template <typename Done>
  void WaitFor(const char* what, Done done) {
    std::unique_lock<std::mutex> lock(seen_.mutex);
    if (seen_.changed.wait_until(lock, give_up_, done)) return;
    Die(absl::StrCat("waited too long for ", what, ": ", seen_.welcomed, " workers welcomed, ", seen_.acknowledged,
                     " reports acknowledged; ", seen_.faults.empty() ? "" : seen_.faults.front()));
  }

  void Connect() {
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < workers_; ++i) {
      const std::shared_ptr<grpc::Channel> channel =
          ConnectFrom(static_cast<uint32_t>(i), server_->address(), absl::GetFlag(FLAGS_keepalive));
      if (channel == nullptr) Die(absl::StrCat("cannot connect worker ", i, " (ulimit -n?)"));
      WorkerOptions options;
      options.name = absl::StrCat("simulated-", i);
      options.instance = absl::StrCat("instance-", i);
      options.slots = absl::GetFlag(FLAGS_slots);
      options.run_time = absl::ToChronoMicroseconds(absl::GetFlag(FLAGS_run_time));
      fleet_.push_back(std::make_shared<SimulatedWorker>(channel, options, timer_, seen_, [this](const grpc::Status&) {
        const std::lock_guard<std::mutex> lock(seen_.mutex);
        ++ended_;
        seen_.changed.notify_all();
      }));
      fleet_.back()->Begin();
    }
    WaitFor("the welcomes", [this] { return seen_.welcomed == static_cast<uint64_t>(workers_); });
    report_.Add("connect_seconds", std::chrono::duration<double>(Clock::now() - start).count());
  }

  // Heartbeats alone.
  void Settle() {
    const Clock::time_point start = Clock::now();
    const CpuMeter cpu(*server_);
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(absl::GetFlag(FLAGS_settle)));
    cpu.AddTo(report_, "idle");
    AddHeartbeats("idle", start);
  }

  void AddHeartbeats(const std::string& when, Clock::time_point start) {
    const Clock::time_point end = Clock::now();
    std::vector<Observations::Span> spans;
    {
      const std::lock_guard<std::mutex> lock(seen_.mutex);
      spans.swap(seen_.heartbeats);
    }
    const auto late =
        std::count_if(spans.begin(), spans.end(), [](const auto& span) { return span.seconds > kLateSeconds; });
    report_.Add(absl::StrCat("heartbeats_per_second_", when),
                static_cast<double>(spans.size()) / std::chrono::duration<double>(end - start).count());
    report_.AddCount(absl::StrCat("heartbeats_late_", when), static_cast<uint64_t>(late));
    report_.AddSpans(absl::StrCat("heartbeat_delay_", when), spans);
  }

  void Submit() {
    const std::unique_ptr<v1::BenchmarkService::Stub> stub = v1::BenchmarkService::NewStub(users_);
    working_.emplace(*server_);
    submitted_ = Clock::now();
    int left = absl::GetFlag(FLAGS_runs);
    while (left > 0) {
      const int runs = std::min(left, absl::GetFlag(FLAGS_runs_per_benchmark));
      v1::SubmitRequest request;
      request.set_request_id(absl::StrCat("load-", ids_.size()));
      v1::BenchmarkSpec& spec = *request.mutable_spec();
      spec.set_name("load");
      spec.set_preset("tiny");
      spec.add_backends("eager");
      spec.set_repetitions(kRepetitions);
      spec.set_submitter(absl::StrCat("user", ids_.size() % kSubmitters, "@example"));
      for (int shape = 0; shape < std::max(1, runs / kRepetitions); ++shape) {
        v1::Shape& one = *spec.add_shapes();
        one.set_batch(1 + shape / kSequenceLengths);
        one.set_sequence_length(8 * (1 + shape % kSequenceLengths));
      }
      left -= spec.shapes_size() * kRepetitions;
      runs_ += static_cast<uint64_t>(spec.shapes_size()) * kRepetitions;
      grpc::ClientContext context;
      v1::SubmitResponse response;
      if (const grpc::Status status = stub->Submit(&context, request, &response); !status.ok()) {
        Die("submit: " + status.error_message());
      }
      ids_.push_back(response.benchmark().id());
    }
    report_.AddCount("runs", runs_);
    report_.AddCount("benchmarks", ids_.size());
    report_.Add("submit_seconds", std::chrono::duration<double>(Clock::now() - submitted_).count());
  }

  void Work() {
    WaitFor("the results", [this] { return seen_.acknowledged >= runs_ || ended_ > 0; });
    working_->AddTo(report_, "working");
    report_.Add("server_cpu_us_per_run", working_->ServerSeconds() / static_cast<double>(runs_) * 1e6);
    report_.Add("work_seconds", std::chrono::duration<double>(Clock::now() - submitted_).count());
    AddHeartbeats("working", submitted_);
    const std::lock_guard<std::mutex> lock(seen_.mutex);
    report_.Add("results_per_second", RateOf(seen_.acknowledgement));
    std::vector<Observations::Span> assigned = seen_.first;
    assigned.insert(assigned.end(), seen_.next.begin(), seen_.next.end());
    report_.Add("assignments_per_second", RateOf(assigned));
    report_.AddSpans("slot_free_to_next_run", seen_.next);
    report_.AddSpans("report_to_acknowledgement", seen_.acknowledgement);
    for (Observations::Span& span : seen_.first) {
      span.seconds = std::chrono::duration<float>(span.end - submitted_).count();
    }
    report_.AddSpans("submit_to_first_run", seen_.first);
  }

  // Over the middle four fifths of them: without the beginning, and the end where slots stay empty.
  static double RateOf(const std::vector<Observations::Span>& spans) {
    if (spans.size() < 10) return 0;
    std::vector<Clock::time_point> ends;
    ends.reserve(spans.size());
    for (const Observations::Span& span : spans) ends.push_back(span.end);
    std::sort(ends.begin(), ends.end());
    const size_t from = ends.size() / 10;
    const size_t to = ends.size() * 9 / 10;
    return static_cast<double>(to - from) / std::chrono::duration<double>(ends[to] - ends[from]).count();
  }

  // The server's books against what the workers were told.
  void Verify() {
    const std::unique_ptr<v1::BenchmarkService::Stub> stub = v1::BenchmarkService::NewStub(users_);
    std::map<RunId, std::vector<Observations::Acknowledged>> known;
    {
      const std::lock_guard<std::mutex> lock(seen_.mutex);
      known.swap(seen_.runs);
      wrong_ = seen_.faults;
    }
    uint64_t once = 0;
    uint64_t retried = 0;
    for (const uint64_t id : ids_) {
      grpc::ClientContext context;
      v1::GetRequest request;
      request.set_id(id);
      v1::Benchmark benchmark;
      if (const grpc::Status status = stub->Get(&context, request, &benchmark); !status.ok()) {
        Die("get: " + status.error_message());
      }
      for (const v1::Job& job : benchmark.jobs()) {
        for (const v1::Run& run : job.runs()) {
          const auto found = known.find({id, job.index(), run.key().repetition()});
          const size_t times = found == known.end() ? 0 : found->second.size();
          const bool same = times == 1 && run.state() == v1::RUN_STATE_ENDED &&
                            run.result().outcome() == v1::OUTCOME_MEASURED &&
                            run.attempt() == found->second[0].attempt &&
                            run.result().measurement().first_loss() == static_cast<double>(found->second[0].token);
          once += same ? 1 : 0;
          retried += run.attempt() > 1 || run.failed_attempts_size() > 0 ? 1 : 0;
          if (!same)
            wrong_.push_back(absl::StrCat(id, "/", job.index(), "/", run.key().repetition(), " was acknowledged ",
                                          times, " times and ended as ", run.ShortDebugString()));
        }
      }
    }
    report_.AddCount("runs_counted_once", once);
    report_.AddCount("runs_retried", retried);
    report_.AddCount("faults", wrong_.size());
    if (once != runs_) wrong_.push_back(absl::StrCat(runs_ - once, " runs are not counted exactly once"));
    if (retried > 0) wrong_.push_back(absl::StrCat(retried, " runs were given out more than once"));
  }

  void Disconnect() {
    for (const std::shared_ptr<SimulatedWorker>& worker : fleet_) worker->Leave();
    WaitFor("the streams' end", [this] { return ended_ == workers_; });
    fleet_.clear();
  }

  const Folder folder_;
  const int workers_;
  const Clock::time_point give_up_;
  std::unique_ptr<Program> server_;
  std::shared_ptr<grpc::Channel> users_;
  Observations seen_;
  Timer timer_;
  std::vector<std::shared_ptr<SimulatedWorker>> fleet_;
  int ended_ = 0;  // streams; guarded by seen_.mutex
  std::vector<uint64_t> ids_;
  uint64_t runs_ = 0;
  Clock::time_point submitted_;
  std::optional<CpuMeter> working_;  // since the first submission
  Report report_;
  std::vector<std::string> wrong_;
};

}  // namespace
}  // namespace attnfleet::bench

int main(int argc, char** argv) {
  const auto line = attnfleet::ParseFlags(argc, argv);
  if (!line.ok()) attnfleet::bench::Die(std::string(line.status().message()));
  if (line->help || !line->positional.empty()) {
    attnfleet::bench::Die("there are only the flags that tests/bench/fleet_load.cc begins with");
  }
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // as the server does
  return attnfleet::bench::Load().Run();
}
