#include "simulated_worker.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/address.h"
#include "proto/spec.h"
#include "proto/version.h"

namespace attnfleet::bench {
namespace {

constexpr uint32_t kFirstHost = 0x7f010001;  // 127.1.0.1
constexpr int kSteps = 40;

float Seconds(Clock::duration duration) { return std::chrono::duration<float>(duration).count(); }

RunId IdOf(const v1::RunKey& key) { return {key.benchmark_id(), key.job_index(), key.repetition()}; }

// As long as one of the trainer on a CPU.
v1::RunResult MakeResult() {
  v1::RunResult result;
  result.set_outcome(v1::OUTCOME_MEASURED);
  v1::Measurement& measurement = *result.mutable_measurement();
  measurement.set_timed_steps(kSteps);
  measurement.set_wall_seconds(1.25);
  measurement.set_iterations_per_second(32);
  measurement.set_step_seconds_median(0.03125);
  measurement.set_step_seconds_p90(0.03125);
  measurement.set_step_seconds_p99(0.03125);
  measurement.set_peak_resident_bytes(412'000'000);
  measurement.set_last_loss(1.94);
  measurement.set_warmup_steps(5);
  for (int i = 0; i < kSteps; ++i) measurement.add_step_seconds(0.03125);
  v1::Environment& environment = *result.mutable_environment();
  environment.set_host("simulated.example");
  environment.set_device_kind(v1::DEVICE_KIND_CPU);
  environment.set_device_name("Simulated CPU @ 2.40GHz");
  environment.set_libtorch_version("2.11.0");
  environment.set_cpu_threads(2);
  environment.set_precision("fp32");
  environment.set_attnfleet_version(kVersion);
  environment.set_build_id("unknown");
  return result;
}

}  // namespace

Timer::~Timer() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Timer::At(Clock::time_point when, std::function<void()> what) {
  bool first = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    first = entries_.empty() || when < entries_.top().when;
    entries_.push({when, std::move(what)});
  }
  if (first) wake_.notify_one();
}

void Timer::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    if (entries_.empty()) {
      wake_.wait(lock);
      continue;
    }
    if (const Clock::time_point when = entries_.top().when; when > Clock::now()) {
      wake_.wait_until(lock, when);
      continue;
    }
    const std::function<void()> what = entries_.top().what;
    entries_.pop();
    lock.unlock();
    what();
    lock.lock();
  }
}

SimulatedWorker::SimulatedWorker(std::shared_ptr<grpc::Channel> channel, WorkerOptions options, Timer& timer,
                                 Observations& observations, std::function<void(const grpc::Status&)> ended)
    : stub_(v1::WorkerService::NewStub(std::move(channel))),
      options_(std::move(options)),
      timer_(timer),
      observations_(observations),
      ended_(std::move(ended)),
      slots_(static_cast<size_t>(options_.slots)),
      random_(static_cast<unsigned>(std::hash<std::string>()(options_.name + options_.instance))) {}

void SimulatedWorker::Begin() {
  const std::lock_guard<std::mutex> lock(mutex_);
  self_ = shared_from_this();
  stub_->async()->Connect(&context_, this);
  AddHold();  // writes start outside of reactions; released by the read that fails
  StartRead(&incoming_);
  StartCall();
  Send(Hello(), Clock::now());
}

void SimulatedWorker::Leave() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (leaving_) return;
  for (Slot& slot : slots_) {
    if (!std::exchange(slot.busy, false)) continue;
    v1::WorkerEvent event;
    v1::RunHandedBack& handed_back = *event.mutable_handed_back();
    *handed_back.mutable_run() = slot.run.run();
    handed_back.set_attempt(slot.run.attempt());
    handed_back.set_reason("the worker leaves");
    Send(std::move(event), Clock::now());
  }
  leaving_ = true;
  WriteNext();
}

void SimulatedWorker::Vanish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    leaving_ = true;
    writes_done_ = true;
  }
  context_.TryCancel();
}

void SimulatedWorker::OnReadDone(bool ok) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!ok) {
    broken_ = true;
    RemoveHold();
    return;
  }
  Take(incoming_);
  incoming_.Clear();
  StartRead(&incoming_);
}

void SimulatedWorker::OnWriteDone(bool ok) {
  const std::lock_guard<std::mutex> lock(mutex_);
  writing_ = false;
  const Outgoing& sent = outbox_.front();
  if (ok && sent.event.has_heartbeat() && options_.keep_record) {
    const Clock::time_point now = Clock::now();
    const std::lock_guard<std::mutex> observing(observations_.mutex);
    observations_.heartbeats.push_back({now, Seconds(now - sent.due)});
  }
  outbox_.pop_front();
  if (ok) WriteNext();
}

void SimulatedWorker::OnDone(const grpc::Status& status) {
  std::shared_ptr<SimulatedWorker> self;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    self = std::move(self_);
    broken_ = true;
    if (!leaving_) {
      Fault(absl::StrCat("its stream ended: ", std::to_string(status.error_code()), " ", status.error_message()));
    }
  }
  // Not here: if this is the last of all channels, gRPC's own thread would have to end itself.
  timer_.At(Clock::now(), [self = std::move(self), status] { self->ended_(status); });
}

void SimulatedWorker::Send(v1::WorkerEvent event, Clock::time_point due) {
  if (broken_ || leaving_) return;
  outbox_.push_back({std::move(event), due});
  WriteNext();
}

void SimulatedWorker::WriteNext() {
  if (writing_ || broken_ || writes_done_) return;
  if (!outbox_.empty()) {
    writing_ = true;
    StartWrite(&outbox_.front().event);
  } else if (leaving_) {
    writes_done_ = true;
    StartWritesDone();
  }
}

void SimulatedWorker::CallAt(Clock::time_point when, std::function<void(SimulatedWorker&)> what) {
  timer_.At(when, [weak = weak_from_this(), what = std::move(what)] {
    const std::shared_ptr<SimulatedWorker> self = weak.lock();
    if (self == nullptr) return;
    const std::lock_guard<std::mutex> lock(self->mutex_);
    what(*self);
  });
}

v1::WorkerEvent SimulatedWorker::Hello() const {
  v1::WorkerEvent event;
  event.mutable_hello()->set_takes_batches(true);
  v1::WorkerInfo& worker = *event.mutable_hello()->mutable_worker();
  worker.set_name(options_.name);
  worker.set_host(options_.name);
  worker.set_instance(options_.instance);
  worker.set_version(kVersion);
  worker.set_protocol(kProtocolVersion);
  worker.set_libtorch_version("2.11.0");
  worker.mutable_labels()->insert(options_.labels.begin(), options_.labels.end());
  for (size_t i = 0; i < slots_.size(); ++i) {
    v1::Slot& slot = *worker.add_slots();
    slot.set_id(absl::StrCat("cpu", i));
    slot.set_device_kind(v1::DEVICE_KIND_CPU);
    slot.set_device_name("Simulated CPU @ 2.40GHz");
    slot.set_memory_bytes(int64_t{24} << 30);
  }
  for (const char* name : {"eager", "sdpa"}) {
    v1::Backend& backend = *worker.add_backends();
    backend.set_name(name);
    backend.set_description("simulated");
    backend.add_devices(v1::DEVICE_KIND_CPU);
  }
  return event;
}

void SimulatedWorker::BeatAt(Clock::time_point due) {
  CallAt(due, [due](SimulatedWorker& self) {
    v1::WorkerEvent event;
    event.mutable_heartbeat();
    self.Send(std::move(event), due);
    self.BeatAt(due + self.heartbeat_interval_);
  });
}

void SimulatedWorker::Take(const v1::WorkerCommand& command) {
  switch (command.command_case()) {
    case v1::WorkerCommand::kWelcome:
      welcomed_ = Clock::now();
      heartbeat_interval_ = std::chrono::milliseconds(command.welcome().heartbeat_interval_ms());
      BeatAt(welcomed_ + heartbeat_interval_);
      {
        const std::lock_guard<std::mutex> observing(observations_.mutex);
        ++observations_.welcomed;
      }
      observations_.changed.notify_all();
      break;
    case v1::WorkerCommand::kStart:
      TakeStart(command.start());
      break;
    case v1::WorkerCommand::kStop:
      for (Slot& slot : slots_) {
        if (IdOf(slot.run.run()) == IdOf(command.stop().run()) && slot.run.attempt() == command.stop().attempt()) {
          slot.busy = false;
        }
      }
      break;
    case v1::WorkerCommand::kAcknowledge:
      for (const v1::ActiveRun& report : command.acknowledge().reports()) TakeAcknowledgement(report);
      break;
    case v1::WorkerCommand::kBatch:
      for (const v1::WorkerCommand& one : command.batch().commands()) Take(one);
      break;
    case v1::WorkerCommand::COMMAND_NOT_SET:
      break;
  }
}

void SimulatedWorker::TakeStart(const v1::StartRun& start) {
  const Clock::time_point now = Clock::now();
  if (leaving_) return;
  size_t index = 0;
  while (index < slots_.size() && absl::StrCat("cpu", index) != start.slot()) ++index;
  if (index == slots_.size()) return Fault("a run for a slot that it has not");
  Slot& slot = slots_[index];
  if (slot.busy) return Fault(absl::StrCat("a second run on its slot: ", FormatRunKey(start.run())));
  if (options_.keep_record) {
    const std::lock_guard<std::mutex> observing(observations_.mutex);
    std::vector<Observations::Span>& spans = slot.was_busy ? observations_.next : observations_.first;
    spans.push_back({now, Seconds(now - (slot.was_busy ? slot.free_since : welcomed_))});
  }
  slot.run = start;
  slot.busy = true;
  slot.was_busy = true;
  const int64_t whole = options_.run_time.count();
  if (whole == 0) return Report(index);
  const std::chrono::microseconds run_time(std::uniform_int_distribution<int64_t>(whole / 2, whole * 3 / 2)(random_));
  const RunId id = IdOf(start.run());
  CallAt(now + run_time, [index, id, attempt = start.attempt()](SimulatedWorker& self) {
    const Slot& now_there = self.slots_[index];
    if (now_there.busy && IdOf(now_there.run.run()) == id && now_there.run.attempt() == attempt) self.Report(index);
  });
}

void SimulatedWorker::Report(size_t index) {
  Slot& slot = slots_[index];
  static const v1::RunResult& kResult = *new v1::RunResult(MakeResult());
  slot.busy = false;
  slot.free_since = Clock::now();
  uint64_t token = 0;
  {
    const std::lock_guard<std::mutex> observing(observations_.mutex);
    token = observations_.next_token++;
  }
  unacknowledged_[{IdOf(slot.run.run()), slot.run.attempt()}] = {slot.free_since, token};
  v1::WorkerEvent event;
  v1::RunReport& report = *event.mutable_report();
  *report.mutable_run() = slot.run.run();
  report.set_attempt(slot.run.attempt());
  report.set_slot(slot.run.slot());
  *report.mutable_result() = kResult;
  report.mutable_result()->mutable_measurement()->set_first_loss(static_cast<double>(token));
  Send(std::move(event), slot.free_since);
}

void SimulatedWorker::TakeAcknowledgement(const v1::ActiveRun& report) {
  const auto found = unacknowledged_.find({IdOf(report.run()), report.attempt()});
  if (found == unacknowledged_.end()) {
    return Fault(absl::StrCat("an acknowledgement of what it did not report: ", FormatRunKey(report.run())));
  }
  const Unacknowledged known = found->second;
  unacknowledged_.erase(found);
  const Clock::time_point now = Clock::now();
  {
    const std::lock_guard<std::mutex> observing(observations_.mutex);
    ++observations_.acknowledged;
    if (options_.keep_record) {
      observations_.acknowledgement.push_back({now, Seconds(now - known.reported)});
      observations_.runs[IdOf(report.run())].push_back({report.attempt(), known.token});
    }
  }
  observations_.changed.notify_all();
}

void SimulatedWorker::Fault(const std::string& text) {
  {
    const std::lock_guard<std::mutex> observing(observations_.mutex);
    observations_.faults.push_back(absl::StrCat(options_.name, ": ", text));
  }
  observations_.changed.notify_all();
}

std::shared_ptr<grpc::Channel> ConnectFrom(uint32_t host, const std::string& server, bool keepalive) {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return nullptr;
  sockaddr_in own{};
  own.sin_family = AF_INET;
  own.sin_addr.s_addr = htonl(kFirstHost + host);
  sockaddr_in peer = own;
  peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  peer.sin_port = htons(static_cast<uint16_t>(std::atoi(server.substr(server.rfind(':') + 1).c_str())));
  const int on = 1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (bind(descriptor, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0 ||
      connect(descriptor, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) != 0 ||
      fcntl(descriptor, F_SETFL, O_NONBLOCK) != 0) {
    close(descriptor);
    return nullptr;
  }
  grpc::ChannelArguments arguments = MakeChannelArguments();
  if (!keepalive) arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, INT_MAX);
  return grpc::CreateCustomInsecureChannelFromFd(server, descriptor, arguments);
}

}  // namespace attnfleet::bench
