// Is memory flat, and are descriptors, while everything comes and goes?
//   fleet_churn [--rounds=6 --churn=5m --workers=N --users=N]
// Starts the server beside this program, with an SQLite store that keeps the last --keep benchmarks, and a real worker
// that runs the trainer double without a pause. Simulated workers (see fleet_load) join, and leave in good order or as
// if they were killed; users submit, watch to the end or give up watching, cancel, pause and resume, get, list and
// explain. Every --interval it prints what /proc says of both programs.
//
// What is in use at work is whatever is on its way just then, and resident memory is as large as the most that has been
// and the holes in it: both hide a leak. So after each round of churn everybody leaves, the store is left with --keep
// benchmarks of two runs each, and once the server has given back what it does not use, what the programs have
// allocated is looked at (heap_count.cc). Memory is flat if
// - what is allocated is at the last rest less than 1 % above that at the second (the first round fills pools);
// - resident memory is less than 5 % above, from the second rest to the last, and from its highest at work in the
//   second third of the time to that in the last.
// Descriptors are flat if their highest number is in the last third at most 2 % and 2 above that in the second third.
// The exit status is 1 if one is not flat, or if a simulated worker saw what must not be.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <fstream>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnfleet/v1/service.grpc.pb.h"
#include "program.h"
#include "proto/address.h"
#include "proto/spec.h"
#include "proto/support/flags.h"
#include "simulated_worker.h"

ABSL_FLAG(int, rounds, 6, "of churn, each with a rest behind it");
ABSL_FLAG(absl::Duration, churn, absl::Minutes(5), "how long in each round");
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
constexpr double kMostAllocated = 1.01;
constexpr double kMostResident = 1.05;
constexpr double kMostDescriptors = 1.02;
constexpr double kMoreDescriptors = 2;
constexpr std::chrono::seconds kRest{75};  // longer than the server waits before it gives back what it does not use
constexpr std::chrono::seconds kLongestCall{60};
constexpr std::chrono::minutes kLongestDrain{5};

struct Sample {
  double allocated_kib;
  double rss_kib;
  double descriptors;
  double threads;
};

// A program's samples, and the verdict on them.
class Watched {
 public:
  // `heap_count` is the file with the program's count.
  Watched(std::string name, const Program& program, std::string heap_count)
      : name_(std::move(name)), program_(program), heap_count_(std::move(heap_count)) {}

  void LookAtWork(double minutes) { at_work_.push_back(Look(minutes, "")); }
  void LookAtRest(double minutes) { at_rest_.push_back(Look(minutes, ", at rest")); }

  bool Judge() const {
    std::printf("%s\n", name_.c_str());
    const Sample& second_rest = at_rest_.at(1);
    const Sample& last_rest = at_rest_.back();
    bool flat = true;
    const auto say = [&flat](bool is_flat) {
      std::printf(": %s\n", is_flat ? "flat" : "NOT FLAT");
      flat = flat && is_flat;
    };
    std::printf("  allocated at the second rest %.1f KiB, at the last %.1f", second_rest.allocated_kib,
                last_rest.allocated_kib);
    say(last_rest.allocated_kib < kMostAllocated * second_rest.allocated_kib);
    std::printf("  resident at the second rest %.0f KiB, at the last %.0f", second_rest.rss_kib, last_rest.rss_kib);
    say(last_rest.rss_kib < kMostResident * second_rest.rss_kib);

    const auto second = at_work_.begin() + static_cast<ptrdiff_t>(at_work_.size() / 3);
    const auto last = at_work_.begin() + static_cast<ptrdiff_t>(at_work_.size() * 2 / 3);
    const std::vector<Sample> before(second, last), after(last, at_work_.end());
    const Range work = RangeOf(at_work_, &Sample::rss_kib);
    const double most_before = RangeOf(before, &Sample::rss_kib).most;
    const double most_after = RangeOf(after, &Sample::rss_kib).most;
    std::printf("  resident at work %.0f to %.0f KiB; in the second third of the time at most %.0f, in the last %.0f",
                work.least, work.most, most_before, most_after);
    say(most_after < kMostResident * most_before);

    const Range open_before = RangeOf(before, &Sample::descriptors), open_after = RangeOf(after, &Sample::descriptors);
    std::printf("  descriptors %.0f to %.0f, then %.0f to %.0f", open_before.least, open_before.most, open_after.least,
                open_after.most);
    say(open_after.most <= kMostDescriptors * open_before.most + kMoreDescriptors);
    const Range threads = RangeOf(at_work_, &Sample::threads);
    std::printf("  threads %.0f to %.0f\n", threads.least, threads.most);
    return flat;
  }

 private:
  struct Range {
    double least;
    double most;
  };
  static Range RangeOf(const std::vector<Sample>& samples, double Sample::*field) {
    const auto [least, most] = std::minmax_element(
        samples.begin(), samples.end(), [field](const Sample& a, const Sample& b) { return a.*field < b.*field; });
    return {(*least).*field, (*most).*field};
  }

  double AllocatedKib() const {
    int64_t bytes = 0;
    std::ifstream file(heap_count_, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(&bytes), sizeof bytes)) {
      Die(absl::StrCat("cannot read ", heap_count_,
                       "; is libheap_count.so beside this program, in a folder without spaces and colons?"));
    }
    return static_cast<double>(bytes) / 1024;
  }

  Sample Look(double minutes, const char* when) const {
    const Sample sample = {AllocatedKib(), static_cast<double>(program_.Status("VmRSS")),
                           static_cast<double>(program_.Descriptors()),
                           static_cast<double>(program_.Status("Threads"))};
    std::printf("%7.2f min  %-7s %9.0f KiB, %.1f allocated, %4.0f descriptors %4.0f threads%s\n", minutes,
                name_.c_str(), sample.rss_kib, sample.allocated_kib, sample.descriptors, sample.threads, when);
    std::fflush(stdout);
    return sample;
  }

  const std::string name_;
  const Program& program_;
  const std::string heap_count_;
  std::vector<Sample> at_work_, at_rest_;
};

// One simulated worker's comings and goings under one name.
class Member : public std::enable_shared_from_this<Member> {
 public:
  Member(uint32_t number, std::string server, Timer& timer, Observations& seen)
      : number_(number), server_(std::move(server)), timer_(timer), seen_(seen), random_(number + 1) {}

  // Joins and leaves, until it is told to stop.
  void Begin() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = false;
    }
    Join();
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
  void Join() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_ || worker_ != nullptr) return;
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
  bool stopped_ = true;
};

// What to measure: each shape and backend so many times, on a worker with this label.
v1::BenchmarkSpec MakeSpec(int shapes, int repetitions, const std::string& label) {
  v1::BenchmarkSpec spec;
  spec.set_preset("tiny");
  spec.add_backends("eager");
  spec.add_backends("sdpa");
  spec.set_max_worker_losses(10);
  spec.set_repetitions(repetitions);
  if (!label.empty()) (*spec.mutable_requirements()->mutable_labels())[label] = "yes";
  for (int i = 1; i <= shapes; ++i) {
    v1::Shape& shape = *spec.add_shapes();
    shape.set_batch(i);
    shape.set_sequence_length(64);
  }
  return spec;
}

// Somebody who uses the service in every way, one call after another. With a label: who watches one benchmark after the
// other to its end on the workers that have it.
class User {
 public:
  User(unsigned number, const std::string& server, std::string label)
      : channel_(MakeChannel(server)),
        stub_(v1::BenchmarkService::NewStub(channel_)),
        fleet_(v1::FleetService::NewStub(channel_)),
        label_(std::move(label)),
        number_(number),
        random_(number),
        thread_([this] { Loop(); }) {}

  void Stop() { stopping_ = true; }
  // Waits until it has stopped; the destructor does too.
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  ~User() { Join(); }

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
        if (stopping_) Cancel(id);
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
    request.set_request_id(absl::StrCat("churn-", number_, "-", ++submitted_));
    v1::BenchmarkSpec& spec = *request.mutable_spec();
    spec = MakeSpec(1 + static_cast<int>(random_() % 30), 1 + static_cast<int>(random_() % 5), label_);
    spec.set_submitter(absl::StrCat("user", random_() % 8, "@example"));
    spec.set_priority(static_cast<int>(random_() % 3));
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
  const unsigned number_;

  // Of its thread.
  std::minstd_rand random_;
  int submitted_ = 0;

  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<std::string, int> done_;  // guarded by mutex_
  std::thread thread_;
};

// `counted` is where what it has allocated is counted.
std::unique_ptr<Program> StartOrDie(const std::vector<std::string>& argv, const std::string& log,
                                    const std::string& counted, std::vector<std::string> environment = {}) {
  environment.push_back(absl::StrCat("LD_PRELOAD=", BinaryFolder(), "/libheap_count.so"));
  environment.push_back("ATTNFLEET_HEAP_COUNT=" + counted);
  absl::StatusOr<std::unique_ptr<Program>> program = Program::Start(argv, log, environment);
  if (!program.ok()) Die(std::string(program.status().message()));
  return *std::move(program);
}

// Waits until nothing is left to be done, and ends the process if that does not come.
void AwaitIdle(v1::BenchmarkService::Stub& stub) {
  for (const auto end = Clock::now() + kLongestDrain; Clock::now() < end;) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kLongestCall);
    v1::ListRequest request;
    request.set_limit(1000);
    v1::ListResponse list;
    const grpc::Status status = stub.List(&context, request, &list);
    if (!status.ok()) Die(absl::StrCat("list: ", status.error_message()));
    if (std::all_of(list.benchmarks().begin(), list.benchmarks().end(), HasEnded)) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  Die("benchmarks are still open five minutes after the last one was submitted");
}

// The fleet, and who uses it.
class Fleet {
 public:
  explicit Fleet(std::string server)
      : server_(std::move(server)), stub_(v1::BenchmarkService::NewStub(MakeChannel(server_))) {
    for (int i = 0; i < absl::GetFlag(FLAGS_workers); ++i) {
      members_.push_back(std::make_shared<Member>(static_cast<uint32_t>(i), server_, timer_, seen_));
    }
  }

  void BeginRound() {
    for (const std::shared_ptr<Member>& member : members_) member->Begin();
    for (int i = 0; i < absl::GetFlag(FLAGS_users); ++i) AddUser("");
    AddUser(kRealLabel);  // the real worker always has work
  }

  // Leaves the server alone with the real worker and with benchmarks that are the same after every round.
  void EndRound() {
    for (const std::unique_ptr<User>& user : users_) user->Stop();
    for (const std::unique_ptr<User>& user : users_) {
      user->Join();
      for (const auto& [what, count] : user->done()) done_[what] += count;
    }
    users_.clear();
    AwaitIdle(*stub_);
    for (const std::shared_ptr<Member>& member : members_) member->Stop();
    for (const std::shared_ptr<Member>& member : members_) {
      while (!member->gone()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    for (int i = 0; i < absl::GetFlag(FLAGS_keep); ++i) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kLongestCall);
      v1::SubmitRequest request;
      *request.mutable_spec() = MakeSpec(1, 1, kRealLabel);
      v1::SubmitResponse response;
      const grpc::Status status = stub_->Submit(&context, request, &response);
      if (!status.ok()) Die(absl::StrCat("submit: ", status.error_message()));
    }
    AwaitIdle(*stub_);
  }

  // What has been done, and what simulated workers have seen that must not be; false if there was such.
  bool Report() const {
    int lives = 0;
    for (const std::shared_ptr<Member>& member : members_) lives += member->lives();
    std::printf("%d lives of %zu simulated workers, %llu of their results acknowledged\n", lives, members_.size(),
                static_cast<unsigned long long>(seen_.acknowledged));
    for (const auto& [what, count] : done_) std::printf("  %s: %d\n", what.c_str(), count);
    for (const std::string& fault : seen_.faults) std::printf("%s\n", fault.c_str());
    return seen_.faults.empty();
  }

 private:
  void AddUser(const std::string& label) { users_.push_back(std::make_unique<User>(++user_count_, server_, label)); }

  const std::string server_;
  const std::unique_ptr<v1::BenchmarkService::Stub> stub_;
  Observations seen_;
  Timer timer_;
  std::vector<std::shared_ptr<Member>> members_;
  std::vector<std::unique_ptr<User>> users_;
  unsigned user_count_ = 0;
  std::map<std::string, int> done_;
};

int Churn() {
  const Folder folder(absl::GetFlag(FLAGS_folder));
  const std::string binaries = BinaryFolder();
  const std::string server_heap = folder.path() + "/server.heap", worker_heap = folder.path() + "/worker.heap";
  const std::unique_ptr<Program> server =
      StartOrDie({binaries + "/attnfleet-server", "--listen=127.0.0.1:0", "--metrics-listen=off",
                  absl::StrCat("--state-dir=", folder.path(), "/server"),
                  absl::StrCat("--retain-benchmarks=", absl::GetFlag(FLAGS_keep))},
                 folder.path() + "/server.log", server_heap);
  const std::unique_ptr<Program> worker =
      StartOrDie({binaries + "/attnfleet-worker", "--server=" + server->address(), "--name=real", "--slots=cpu:2",
                  absl::StrCat("--labels=", kRealLabel, "=yes"), absl::StrCat("--state-dir=", folder.path(), "/worker"),
                  absl::StrCat("--trainer=", binaries, "/attnfleet-trainer-double")},
                 folder.path() + "/worker.log", worker_heap, {"ATTNFLEET_DOUBLE=*:slow=0.2"});
  Fleet fleet(server->address());
  std::vector<Watched> watched = {{"server", *server, server_heap}, {"worker", *worker, worker_heap}};
  const Clock::time_point start = Clock::now();
  const auto minutes = [&] { return std::chrono::duration<double>(Clock::now() - start).count() / 60; };
  const auto sleep_until = [&](Clock::time_point due) {
    std::this_thread::sleep_until(due);
    if (!server->alive() || !worker->alive()) Die("a program has ended");
  };
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    fleet.BeginRound();
    const auto interval = absl::ToChronoMilliseconds(absl::GetFlag(FLAGS_interval));
    const Clock::time_point begin = Clock::now();
    const auto end = begin + absl::ToChronoMilliseconds(absl::GetFlag(FLAGS_churn));
    for (auto due = begin + interval; due <= end; due += interval) {
      sleep_until(due);
      for (Watched& one : watched) one.LookAtWork(minutes());
    }
    fleet.EndRound();
    sleep_until(Clock::now() + kRest);
    for (Watched& one : watched) one.LookAtRest(minutes());
  }

  bool good = fleet.Report();
  for (const Watched& one : watched) good = one.Judge() && good;
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
  if (absl::GetFlag(FLAGS_rounds) < 3 || absl::GetFlag(FLAGS_churn) < 3 * absl::GetFlag(FLAGS_interval) ||
      absl::GetFlag(FLAGS_interval) < absl::Milliseconds(1)) {
    attnfleet::bench::Die("--rounds: at least 3; --churn: at least three times the --interval, which is 1ms or more");
  }
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // as the server does
  return attnfleet::bench::Churn();
}
