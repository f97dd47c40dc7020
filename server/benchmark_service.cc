#include "server/benchmark_service.h"

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "proto/status.h"
#include "server/fleet_statistics.h"
#include "server/statistics.h"
#include "server/unary.h"

namespace attnfleet::server {
namespace {

// One user's watch. What changes faster than the user reads is coalesced by run, so it never holds more than one
// message for each run. Keeps itself alive until gRPC is done with it.
class WatchStream : public grpc::ServerWriteReactor<v1::WatchResponse>,
                    public Watcher,
                    public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(Coordinator& coordinator, const v1::WatchRequest& request)
      : coordinator_(coordinator), id_(request.id()), include_contaminated_(request.include_contaminated()) {}

  void Begin() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      self_ = shared_from_this();
    }
    coordinator_.Watch(id_, shared_from_this());
  }

  void Started(const v1::Benchmark& benchmark) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    started_ = benchmark;
    WriteNext();
  }

  void Changed(const v1::Run& run) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) return;
    runs_[{run.key().job_index(), run.key().repetition()}] = run;
    WriteNext();
  }

  void Ended(const absl::StatusOr<v1::Benchmark>& benchmark) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) return;
    if (!benchmark.ok()) {
      FinishLocked(benchmark.status());
      return;
    }
    ended_ = *benchmark;
    if (include_contaminated_) {
      Summarize(*ended_, true);
      SummarizeFleet(*ended_);
    }
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    if (!ok) {
      FinishLocked(absl::OkStatus());
    } else {
      WriteNext();
    }
  }

  void OnCancel() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    FinishLocked(absl::CancelledError("the client has gone"));
  }

  void OnDone() override {
    std::shared_ptr<WatchStream> self;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      self = std::move(self_);
    }
    coordinator_.Unwatch(id_, self);
  }

 private:
  void WriteNext() {
    if (writing_ || finished_) return;
    message_.Clear();
    if (started_) {
      *message_.mutable_benchmark() = std::move(*std::exchange(started_, std::nullopt));
    } else if (!runs_.empty() && !ended_) {
      const auto first = runs_.begin();
      *message_.mutable_run() = std::move(first->second);
      runs_.erase(first);
    } else if (ended_) {  // it tells of all runs
      *message_.mutable_benchmark() = std::move(*std::exchange(ended_, std::nullopt));
      runs_.clear();
      finished_ = true;
      StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
      return;
    } else {
      return;
    }
    writing_ = true;
    StartWrite(&message_);
  }

  void FinishLocked(const absl::Status& status) {
    if (std::exchange(finished_, true)) return;
    Finish(ToGrpc(status));
  }

  // Constant after construction.
  Coordinator& coordinator_;
  const uint64_t id_;
  const bool include_contaminated_;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::optional<v1::Benchmark> started_;
  std::map<std::pair<uint32_t, uint32_t>, v1::Run> runs_;
  std::optional<v1::Benchmark> ended_;
  v1::WatchResponse message_;  // not touched while writing_
  bool writing_ = false;
  bool finished_ = false;
  std::shared_ptr<WatchStream> self_;
};

// For a call that the guard should not have let in.
grpc::ServerUnaryReactor* FinishNameless(grpc::ServerUnaryReactor* reactor) {
  reactor->Finish({grpc::StatusCode::UNAUTHENTICATED, "the peer's certificate has no name"});
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* BenchmarkService::Submit(grpc::CallbackServerContext* context,
                                                   const v1::SubmitRequest* request, v1::SubmitResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  v1::SubmitRequest submit = *request;
  // Whoever is known by a certificate cannot say that they are somebody else.
  if (access_ != nullptr) {
    std::optional<std::string> name = PeerName(*context);
    if (!name) return FinishNameless(reactor);
    submit.mutable_spec()->set_submitter(*std::move(name));
  }
  coordinator_.Submit(std::move(submit), FinishWith(reactor, response->mutable_benchmark()));
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::Get(grpc::CallbackServerContext* context, const v1::GetRequest* request,
                                                v1::Benchmark* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  coordinator_.Get(*request, FinishWith(reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::List(grpc::CallbackServerContext* context, const v1::ListRequest* request,
                                                 v1::ListResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  coordinator_.List(*request, FinishWith(reactor, response));
  return reactor;
}

std::optional<std::string> BenchmarkService::Owner(const grpc::CallbackServerContext& context) const {
  if (access_ == nullptr) return "";
  std::optional<std::string> name = PeerName(context);
  if (name && access_->IsAdmin(*name)) return "";
  return name;
}

grpc::ServerUnaryReactor* BenchmarkService::Cancel(grpc::CallbackServerContext* context,
                                                   const v1::CancelRequest* request, v1::Benchmark* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const std::optional<std::string> owner = Owner(*context);
  if (!owner) return FinishNameless(reactor);
  coordinator_.Cancel(*request, FinishWith(reactor, response), *owner);
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::Pause(grpc::CallbackServerContext* context, const v1::PauseRequest* request,
                                                  v1::Benchmark* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const std::optional<std::string> owner = Owner(*context);
  if (!owner) return FinishNameless(reactor);
  coordinator_.SetPaused(request->id(), true, FinishWith(reactor, response), *owner);
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::Resume(grpc::CallbackServerContext* context,
                                                   const v1::ResumeRequest* request, v1::Benchmark* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const std::optional<std::string> owner = Owner(*context);
  if (!owner) return FinishNameless(reactor);
  coordinator_.SetPaused(request->id(), false, FinishWith(reactor, response), *owner);
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::Explain(grpc::CallbackServerContext* context,
                                                    const v1::ExplainRequest* request, v1::ExplainResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  coordinator_.Explain(request->id(), FinishWith(reactor, response));
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchResponse>* BenchmarkService::Watch(grpc::CallbackServerContext*,
                                                                     const v1::WatchRequest* request) {
  const auto stream = std::make_shared<WatchStream>(coordinator_, *request);
  stream->Begin();
  return stream.get();
}

}  // namespace attnfleet::server
