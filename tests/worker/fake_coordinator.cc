#include "fake_coordinator.h"

#include <grpcpp/server_builder.h>

#include <chrono>
#include <cstdlib>
#include <utility>

#include "proto/address.h"

namespace attnfleet::worker {

FakeCoordinator::Session::Session(FakeCoordinator* owner) : owner_(owner) {}

void FakeCoordinator::Session::Start(bool reading) {
  const std::lock_guard lock(mutex_);
  if (reading) StartRead(&incoming_);
}

void FakeCoordinator::Session::Send(v1::WorkerCommand command) {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  outbox_.push_back(std::move(command));
  if (writing_) return;
  writing_ = true;
  StartWrite(&outbox_.front());
}

void FakeCoordinator::Session::Welcome(int heartbeat_interval_ms) {
  v1::WorkerCommand command;
  command.mutable_welcome()->set_heartbeat_interval_ms(heartbeat_interval_ms);
  command.mutable_welcome()->set_lease_ms(10 * heartbeat_interval_ms);
  Send(std::move(command));
}

void FakeCoordinator::Session::Acknowledge(const v1::RunReport& report) {
  v1::WorkerCommand command;
  v1::ActiveRun& run = *command.mutable_acknowledge()->add_reports();
  *run.mutable_run() = report.run();
  run.set_attempt(report.attempt());
  Send(std::move(command));
}

void FakeCoordinator::Session::End(grpc::Status status) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(finished_, true)) return;
  Finish(std::move(status));
}

std::vector<v1::WorkerEvent> FakeCoordinator::Session::events() {
  const std::lock_guard lock(mutex_);
  return events_;
}

std::vector<v1::WorkerEvent> FakeCoordinator::Session::events(v1::WorkerEvent::EventCase kind) {
  std::vector<v1::WorkerEvent> result;
  for (v1::WorkerEvent& event : events()) {
    if (event.event_case() == kind) result.push_back(std::move(event));
  }
  return result;
}

bool FakeCoordinator::Session::half_closed() {
  const std::lock_guard lock(mutex_);
  return half_closed_;
}

bool FakeCoordinator::Session::done() {
  const std::lock_guard lock(mutex_);
  return done_;
}

void FakeCoordinator::Session::OnReadDone(bool ok) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (!ok) {
      half_closed_ = true;
      if (!std::exchange(finished_, true)) Finish(grpc::Status::OK);
      return;
    }
    first = events_.empty();
    events_.push_back(std::move(incoming_));
    incoming_.Clear();
  }
  if (first && owner_->reading_) owner_->Greet(this);
  const std::lock_guard lock(mutex_);
  if (!finished_) StartRead(&incoming_);
}

void FakeCoordinator::Session::OnWriteDone(bool ok) {
  const std::lock_guard lock(mutex_);
  writing_ = false;
  outbox_.pop_front();
  if (!ok || finished_ || outbox_.empty()) return;
  writing_ = true;
  StartWrite(&outbox_.front());
}

void FakeCoordinator::Session::OnDone() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  const std::lock_guard lock(owner_->mutex_);
  owner_->session_done_.notify_all();
}

grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand>* FakeCoordinator::Service::Connect(
    grpc::CallbackServerContext*) {
  Session* session = nullptr;
  {
    const std::lock_guard lock(owner_->mutex_);
    session = owner_->streams_.emplace_back(std::make_unique<Session>(owner_)).get();
  }
  session->Start(owner_->reading_);
  if (!owner_->reading_) owner_->Greet(session);
  return session;
}

void FakeCoordinator::Greet(Session* session) {
  {
    const std::lock_guard lock(mutex_);
    sessions_.push_back(session);
  }
  if (on_stream_) on_stream_(*session);
}

FakeCoordinator::FakeCoordinator(const std::string& path, std::function<void(Session&)> on_stream, bool reading)
    : on_stream_(std::move(on_stream)), reading_(reading), service_(this) {
  grpc::ServerBuilder builder;
  ApplyServerLimits(builder);
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) std::abort();
}

FakeCoordinator::~FakeCoordinator() {
  // A session that does not read does not hear that its stream is cancelled, and Shutdown waits for it.
  for (size_t i = 0; !reading_ && i < sessions(); ++i) session(i).End(grpc::Status::CANCELLED);
  server_->Shutdown(std::chrono::system_clock::now());
  std::unique_lock lock(mutex_);
  session_done_.wait(lock, [this] {
    for (const auto& stream : streams_) {
      if (!stream->done()) return false;
    }
    return true;
  });
}

size_t FakeCoordinator::sessions() {
  const std::lock_guard lock(mutex_);
  return sessions_.size();
}

FakeCoordinator::Session& FakeCoordinator::session(size_t index) {
  const std::lock_guard lock(mutex_);
  return *sessions_.at(index);
}

}  // namespace attnfleet::worker
