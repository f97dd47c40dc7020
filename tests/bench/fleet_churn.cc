// Is memory flat, and are descriptors, while everything comes and goes?
//   fleet_churn [--duration=30m --workers=N --users=N]
// Starts the server beside this program, with an SQLite store that keeps the last --keep benchmarks, and a real worker
// that runs the trainer double without a pause. Simulated workers (see fleet_load) join, and leave in good order or as
// if they were killed; users submit, watch to the end or give up watching, cancel, pause and resume, get, list and
// explain. Every --interval it prints what /proc says of both programs; at the end, from the last two thirds of the
// time, the slope of their memory by least squares with its 95 % interval, in KiB a minute. The interval is widened for
// samples that are like those before them.
//
// Memory is flat if the interval holds zero or less, or if it has grown by less than 1 % in the time that was looked
// at. Descriptors come and go with connections and trainers, so it is their highest number that must not grow: they are
// flat if it is in the last third at most 2 % and 2 above what it was in the second. The exit status is 1 if one is not
// flat, or if a simulated worker saw what must not be.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>

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

ABSL_FLAG(absl::Duration, duration, absl::Minutes(30), "how long");
ABSL_FLAG(absl::Duration, interval, absl::Seconds(10), "between two samples");
ABSL_FLAG(int, workers, 200, "simulated workers");
ABSL_FLAG(absl::Duration, stay, absl::Seconds(20), "how long a worker stays, on average");
ABSL_FLAG(absl::Duration, run_time, absl::Milliseconds(200), "how long a run takes, give or take half of it");
ABSL_FLAG(int, users, 4, "who submit");
ABSL_FLAG(int, keep, 100, "benchmarks that the store keeps");
ABSL_FLAG(std::string, folder, "", "where to make the temporary folder");

namespace attnfleet::bench {
namespace {

constexpr char kRealLabel[] = "real";
constexpr double kMostGrowth = 0.01;
constexpr double kMostDescriptors = 1.02;
constexpr double kMoreDescriptors = 2;
constexpr std::chrono::seconds kLongestCall{60};

struct Sample {
  double minutes;
  double rss_kib;
  double descriptors;
  double threads;
};

// A straight line through samples.
struct Slope {
  double per_minute = 0;
  double margin = 0;  // half of the 95 % interval
  double mean = 0;

  double low() const { return per_minute - margin; }
  double high() const { return per_minute + margin; }
  bool FlatFor(double minutes) const { return low() <= 0 || per_minute * minutes < kMostGrowth * mean; }
};

Slope SlopeOf(const std::vector<Sample>& samples, double Sample::*field) {
  const auto n = static_cast<double>(samples.size());
  if (samples.size() < 4) return {};
  double x = 0;
  double y = 0;
  for (const Sample& sample : samples) {
    x += sample.minutes / n;
    y += sample.*field / n;
  }
  double xx = 0;
  double xy = 0;
  for (const Sample& sample : samples) {
    xx += (sample.minutes - x) * (sample.minutes - x);
    xy += (sample.minutes - x) * (sample.*field - y);
  }
  Slope slope{xy / xx, 0, y};
  std::vector<double> residuals;
  for (const Sample& sample : samples) {
    residuals.push_back(sample.*field - y - slope.per_minute * (sample.minutes - x));
  }
  double squares = 0;
  double neighbours = 0;
  for (size_t i = 0; i < residuals.size(); ++i) {
    squares += residuals[i] * residuals[i];
    if (i > 0) neighbours += residuals[i] * residuals[i - 1];
  }
  const double likeness = squares > 0 ? std::clamp(neighbours / squares, 0.0, 0.99) : 0;
  slope.margin = 1.96 * std::sqrt(squares / (n - 2) / xx * (1 + likeness) / (1 - likeness));
  return slope;
}

// A program's samples, and the verdict on them.
class Watched {
 public:
  Watched(std::string name, const Program& program) : name_(std::move(name)), program_(program) {}

  void Look(double minutes) {
    samples_.push_back({minutes, static_cast<double>(program_.Status("VmRSS")),
                        static_cast<double>(program_.Descriptors()), static_cast<double>(program_.Status("Threads"))});
    const Sample& sample = samples_.back();
    std::printf("%7.2f min  %-7s %9.0f KiB %6.0f descriptors %4.0f threads\n", sample.minutes, name_.c_str(),
                sample.rss_kib, sample.descriptors, sample.threads);
  }

  bool Judge() const {
    const auto second = samples_.begin() + static_cast<ptrdiff_t>(samples_.size() / 3);
    const auto last = samples_.begin() + static_cast<ptrdiff_t>(samples_.size() * 2 / 3);
    const std::vector<Sample> settled(second, samples_.end());
    const Range minutes = RangeOf(settled, &Sample::minutes);
    std::printf("%s, minutes %.1f to %.1f\n", name_.c_str(), minutes.least, minutes.most);

    const Slope slope = SlopeOf(settled, &Sample::rss_kib);
    const Range memory = RangeOf(settled, &Sample::rss_kib);
    const bool memory_flat = slope.FlatFor(minutes.most - minutes.least);
    std::printf("  memory %.0f KiB on average (%.0f to %.0f), %+.2f a minute (95 %% interval %+.2f to %+.2f): %s\n",
                slope.mean, memory.least, memory.most, slope.per_minute, slope.low(), slope.high(),
                memory_flat ? "flat" : "NOT FLAT");

    const Range before = RangeOf({second, last}, &Sample::descriptors);
    const Range after = RangeOf({last, samples_.end()}, &Sample::descriptors);
    const bool descriptors_flat = after.most <= kMostDescriptors * before.most + kMoreDescriptors;
    std::printf("  descriptors %.0f to %.0f, then %.0f to %.0f: %s\n", before.least, before.most, after.least,
                after.most, descriptors_flat ? "flat" : "NOT FLAT");
    const Range threads = RangeOf(settled, &Sample::threads);
    std::printf("  threads %.0f to %.0f\n", threads.least, threads.most);
    return memory_flat && descriptors_flat;
  }

 private:
  struct Range {
    double least;
    double most;
  };
  static Range RangeOf(const std::vector<Sample>& samples, double Sample::*field) {
    std::vector<double> values;
    for (const Sample& sample : samples) values.push_back(sample.*field);
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    return {*least, *most};
  }

  const std::string name_;
  const Program& program_;
  std::vector<Sample> samples_;
};

// One simulated worker's comings and goings under one name.
class Member : public std::enable_shared_from_this<Member> {
 public:
  Member(uint32_t number, std::string server, Timer& timer, Observations& seen)
      : number_(number), server_(std::move(server)), timer_(timer), seen_(seen), random_(number + 1) {}

  void Join() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    const std::shared_ptr<grpc::Channel> channel = ConnectFrom(number_, server_);
    if (channel == nullptr) return JoinAfter(std::chrono::milliseconds(500));
    WorkerOptions options;
    options.name = absl::StrCat("churn-", number_);
    options.instance = absl::StrCat("life-", ++lives_);
    options.run_time = absl::ToChronoMicroseconds(absl::GetFlag(FLAGS_run_time));
    options.keep_record = false;
    worker_ = std::make_shared<SimulatedWorker>(channel, options, timer_, seen_,
                                                [self = shared_from_this()](const grpc::Status&) { self->Ended(); });
    worker_->Begin();
    const double stay = absl::ToDoubleSeconds(absl::GetFlag(FLAGS_stay));
    After(std::exponential_distribution<double>(1 / stay)(random_), [life = lives_](Member& self) { self.Go(life); });
  }

  // Joins no more; the one who is there leaves.
  void Stop() {
    std::shared_ptr<SimulatedWorker> worker;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = true;
      worker = worker_;
    }
    if (worker != nullptr) worker->Leave();
  }

  bool gone() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return worker_ == nullptr;
  }
  int lives() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return lives_;
  }

 private:
  void After(double seconds, std::function<void(Member&)> what) {
    timer_.At(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)),
              [weak = weak_from_this(), what = std::move(what)] {
                if (const std::shared_ptr<Member> self = weak.lock()) what(*self);
              });
  }
  void JoinAfter(std::chrono::duration<double> pause) {
    After(pause.count(), [](Member& self) { self.Join(); });
  }

  void Go(int life) {
    std::shared_ptr<SimulatedWorker> worker;
    bool killed = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (life == lives_) worker = worker_;
      killed = random_() % 2 == 0;
    }
    if (worker == nullptr) return;
    killed ? worker->Vanish() : worker->Leave();
  }

  void Ended() {
    const std::lock_guard<std::mutex> lock(mutex_);
    worker_.reset();
    if (!stopped_) JoinAfter(std::chrono::duration<double>(0.5 + static_cast<double>(random_() % 2000) / 1000));
  }

  // Constant after construction.
  const uint32_t number_;
  const std::string server_;
  Timer& timer_;
  Observations& seen_;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::minstd_rand random_;
  std::shared_ptr<SimulatedWorker> worker_;
  int lives_ = 0;
  bool stopped_ = false;
};

// Somebody who uses the service in every way, one call after another.
class User {
 public:
  User(unsigned seed, const std::string& server, std::string label)
      : channel_(MakeChannel(server)),
        stub_(v1::BenchmarkService::NewStub(channel_)),
        fleet_(v1::FleetService::NewStub(channel_)),
        label_(std::move(label)),
        random_(seed),
        thread_([this] { Loop(); }) {}

  // Asks it to stop; the destructor waits.
  void Stop() { stopping_ = true; }
  ~User() { thread_.join(); }

  std::map<std::string, int> done() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return done_;
  }

 private:
  void Loop() {
    while (!stopping_) {
      const uint64_t id = Submit();
      if (id == 0) {
        Pause(1000);
      } else if (!label_.empty()) {
        Watch(id, 0);
      } else {
        UseSomehow(id);
        Pause(static_cast<int>(random_() % 300));
      }
    }
  }

  void UseSomehow(uint64_t id) {
    switch (random_() % 6) {
      case 0:
      case 1:
        Watch(id, 0);
        break;
      case 2:
        Watch(id, 1 + static_cast<int>(random_() % 20));
        break;
      case 3:
        Pause(static_cast<int>(random_() % 1000));
        Cancel(id);
        break;
      case 4:
        SetPaused(id);
        break;
      default:
        Ask(id);
    }
  }

  void Pause(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }
  void Count(const std::string& what, const grpc::Status& status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++done_[status.ok() ? what : absl::StrCat(what, " (", status.error_message(), ")")];
  }

  uint64_t Submit() {
    v1::SubmitRequest request;
    request.set_request_id(absl::StrCat("churn-", reinterpret_cast<uintptr_t>(this), "-", ++submitted_));
    v1::BenchmarkSpec& spec = *request.mutable_spec();
    spec.set_preset("tiny");
    spec.add_backends("eager");
    spec.add_backends("sdpa");
    spec.set_submitter(absl::StrCat("user", random_() % 8, "@example"));
    spec.set_priority(static_cast<int>(random_() % 3));
    spec.set_max_worker_losses(10);
    spec.set_repetitions(1 + static_cast<int>(random_() % 5));
    if (!label_.empty()) (*spec.mutable_requirements()->mutable_labels())[label_] = "yes";
    const int shapes = 1 + static_cast<int>(random_() % 30);
    for (int i = 1; i <= shapes; ++i) {
      v1::Shape& shape = *spec.add_shapes();
      shape.set_batch(i);
      shape.set_sequence_length(64);
    }
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLongestCall);
    v1::SubmitResponse response;
    const grpc::Status status = stub_->Submit(&context, request, &response);
    Count("submit", status);
    return response.benchmark().id();
  }

  // Reads so many messages and gives up; 0: to the end.
  void Watch(uint64_t id, int messages) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLongestCall);
    v1::WatchRequest request;
    request.set_id(id);
    const std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> reader = stub_->Watch(&context, request);
    v1::WatchResponse response;
    int read = 0;
    while (!stopping_ && reader->Read(&response)) {
      if (++read == messages) break;
    }
    const bool all = messages == 0 && !stopping_;
    if (!all) context.TryCancel();
    const grpc::Status status = reader->Finish();
    Count(all ? "watch" : "watch a little", all ? status : grpc::Status::OK);
  }

  void Cancel(uint64_t id) {
    grpc::ClientContext context;
    v1::CancelRequest request;
    request.set_id(id);
    v1::Benchmark benchmark;
    Count("cancel", stub_->Cancel(&context, request, &benchmark));
  }

  void SetPaused(uint64_t id) {
    v1::Benchmark benchmark;
    {
      grpc::ClientContext context;
      v1::PauseRequest request;
      request.set_id(id);
      const grpc::Status status = stub_->Pause(&context, request, &benchmark);
      if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION) return;  // it was as quick as this
      Count("pause", status);
    }
    Pause(static_cast<int>(random_() % 500));
    grpc::ClientContext context;
    v1::ResumeRequest request;
    request.set_id(id);
    const grpc::Status status = stub_->Resume(&context, request, &benchmark);
    if (status.error_code() != grpc::StatusCode::FAILED_PRECONDITION) Count("resume", status);
  }

  void Ask(uint64_t id) {
    {
      grpc::ClientContext context;
      v1::GetRequest request;
      request.set_id(id);
      v1::Benchmark benchmark;
      Count("get", stub_->Get(&context, request, &benchmark));
    }
    {
      grpc::ClientContext context;
      v1::ListResponse list;
      Count("list", stub_->List(&context, v1::ListRequest(), &list));
    }
    {
      grpc::ClientContext context;
      v1::ExplainRequest request;
      request.set_id(id);
      v1::ExplainResponse explained;
      Count("explain", stub_->Explain(&context, request, &explained));
    }
    grpc::ClientContext context;
    v1::ListWorkersResponse workers;
    Count("list workers", fleet_->ListWorkers(&context, v1::ListWorkersRequest(), &workers));
  }

  // Constant after construction.
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::BenchmarkService::Stub> stub_;
  const std::unique_ptr<v1::FleetService::Stub> fleet_;
  const std::string label_;  // that its benchmarks ask for

  // Of its thread.
  std::minstd_rand random_;
  int submitted_ = 0;

  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<std::string, int> done_;  // guarded by mutex_
  std::thread thread_;
};

std::unique_ptr<Program> StartOrDie(const std::vector<std::string>& argv, const std::string& log,
                                    const std::vector<std::string>& environment = {}) {
  absl::StatusOr<std::unique_ptr<Program>> program = Program::Start(argv, log, environment);
  if (!program.ok()) Die(std::string(program.status().message()));
  return *std::move(program);
}

int Churn() {
  const Folder folder(absl::GetFlag(FLAGS_folder));
  const std::string binaries = BinaryFolder();
  const std::unique_ptr<Program> server =
      StartOrDie({binaries + "/attnfleet-server", "--listen=127.0.0.1:0", "--metrics-listen=off",
                  absl::StrCat("--state-dir=", folder.path(), "/server"),
                  absl::StrCat("--retain-benchmarks=", absl::GetFlag(FLAGS_keep))},
                 folder.path() + "/server.log");
  const std::unique_ptr<Program> worker =
      StartOrDie({binaries + "/attnfleet-worker", "--server=" + server->address(), "--name=real", "--slots=cpu:2",
                  absl::StrCat("--labels=", kRealLabel, "=yes"), absl::StrCat("--state-dir=", folder.path(), "/worker"),
                  absl::StrCat("--trainer=", binaries, "/attnfleet-trainer-double")},
                 folder.path() + "/worker.log", {"ATTNFLEET_DOUBLE=*:slow=0.2"});
  Observations seen;
  Timer timer;
  std::vector<std::shared_ptr<Member>> members;
  for (int i = 0; i < absl::GetFlag(FLAGS_workers); ++i) {
    members.push_back(std::make_shared<Member>(static_cast<uint32_t>(i), server->address(), timer, seen));
    members.back()->Join();
  }
  std::vector<std::unique_ptr<User>> users;
  for (int i = 0; i < absl::GetFlag(FLAGS_users); ++i) {
    users.push_back(std::make_unique<User>(static_cast<unsigned>(i + 1), server->address(), ""));
  }
  users.push_back(std::make_unique<User>(99, server->address(), kRealLabel));  // the real worker always has work

  std::vector<Watched> watched = {{"server", *server}, {"worker", *worker}};
  const Clock::time_point start = Clock::now();
  const auto interval = absl::ToChronoMilliseconds(absl::GetFlag(FLAGS_interval));
  const auto duration = absl::ToChronoMilliseconds(absl::GetFlag(FLAGS_duration));
  for (auto due = start + interval; due <= start + duration; due += interval) {
    std::this_thread::sleep_until(due);
    if (!server->alive() || !worker->alive()) Die("a program has ended");
    const double minutes = std::chrono::duration<double>(Clock::now() - start).count() / 60;
    for (Watched& one : watched) one.Look(minutes);
    std::fflush(stdout);
  }

  for (const std::unique_ptr<User>& user : users) user->Stop();
  std::map<std::string, int> done;
  for (const std::unique_ptr<User>& user : users) {
    for (const auto& [what, count] : user->done()) done[what] += count;
  }
  users.clear();
  int lives = 0;
  for (const std::shared_ptr<Member>& member : members) {
    lives += member->lives();
    member->Stop();
  }
  for (const std::shared_ptr<Member>& member : members) {
    while (!member->gone()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::printf("%d lives of %zu simulated workers, %llu of their results acknowledged\n", lives, members.size(),
              static_cast<unsigned long long>(seen.acknowledged));
  for (const auto& [what, count] : done) std::printf("  %s: %d\n", what.c_str(), count);
  bool good = seen.faults.empty();
  for (const Watched& one : watched) good = one.Judge() && good;
  for (const std::string& fault : seen.faults) std::printf("%s\n", fault.c_str());
  return good ? 0 : 1;
}

}  // namespace
}  // namespace attnfleet::bench

int main(int argc, char** argv) {
  const auto line = attnfleet::ParseFlags(argc, argv);
  if (!line.ok()) attnfleet::bench::Die(std::string(line.status().message()));
  if (line->help || !line->positional.empty()) {
    attnfleet::bench::Die("there are only the flags that tests/bench/fleet_churn.cc begins with");
  }
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // as the server does
  return attnfleet::bench::Churn();
}
