#include "server/benchmark_service.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "proto/status.h"
#include "server/unary.h"

namespace attnfleet::server {
namespace {

using google::protobuf::io::CodedOutputStream;

// How a message within a message is encoded.
constexpr uint32_t kLengthDelimited = 2;

// Of the same bytes: they are freed when gRPC has sent the last of the slices.
grpc::Slice Share(const Wire& wire) {
  auto* held = new Wire(wire);
  return {const_cast<char*>(wire->data()), wire->size(), [](void* data) { delete static_cast<Wire*>(data); }, held};
}

grpc::ByteBuffer Whole(const Wire& message) {
  const grpc::Slice slice = Share(message);
  return {&slice, 1};
}

// A message that has nothing but this message, in that field.
grpc::ByteBuffer Within(int field, const Wire& message) {
  std::string tag(2 * CodedOutputStream::VarintSize32(UINT32_MAX), '\0');
  auto* const begin = reinterpret_cast<uint8_t*>(tag.data());
  uint8_t* end = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(field) << 3 | kLengthDelimited, begin);
  end = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(message->size()), end);
  tag.resize(static_cast<size_t>(end - begin));
  const grpc::Slice slices[] = {grpc::Slice(tag), Share(message)};
  return {slices, 2};
}

// Nothing if the bytes are no such message.
template <typename T>
std::optional<T> Parse(const grpc::ByteBuffer& bytes) {
  grpc::ByteBuffer copy = bytes;  // of references
  grpc::ProtoBufferReader reader(&copy);
  T message;
  if (!reader.status().ok() || !message.ParseFromZeroCopyStream(&reader)) return std::nullopt;
  return message;
}

grpc::ServerUnaryReactor* Finish(grpc::ServerUnaryReactor* reactor, grpc::Status status) {
  reactor->Finish(std::move(status));
  return reactor;
}

grpc::ServerUnaryReactor* FinishUnparsed(grpc::ServerUnaryReactor* reactor) {
  return Finish(reactor, {grpc::StatusCode::INVALID_ARGUMENT, "the request is damaged"});
}

// For a call that the guard should not have let in.
grpc::ServerUnaryReactor* FinishNameless(grpc::ServerUnaryReactor* reactor) {
  return Finish(reactor, {grpc::StatusCode::UNAUTHENTICATED, "the peer's certificate has no name"});
}

using Frame = grpc::ByteBuffer (*)(const Wire&);

Coordinator::Reply<Wire> FinishWithWire(grpc::ServerUnaryReactor* reactor, grpc::ByteBuffer* response,
                                        Frame frame = Whole) {
  return [reactor, response, frame](const absl::StatusOr<Wire>& wire) {
    if (wire.ok()) *response = frame(*wire);
    reactor->Finish(ToGrpc(wire.status()));
  };
}

// One user's watch. What changes faster than the user reads is coalesced by run, so it never holds more than one
// message for each run. Keeps itself alive until gRPC is done with it.
class WatchStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                    public Watcher,
                    public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(Coordinator& coordinator, v1::WatchRequest request)
      : coordinator_(coordinator), request_(std::move(request)) {}

  void Begin() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      self_ = shared_from_this();
    }
    coordinator_.Watch(request_, shared_from_this());
  }

  // The request could not be read.
  void Refuse() {
    const std::lock_guard<std::mutex> lock(mutex_);
    self_ = shared_from_this();
    FinishLocked(absl::InvalidArgumentError("the request is damaged"));
  }

  void Started(const Wire& benchmark) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    started_ = benchmark;
    WriteNext();
  }

  void Changed(const std::shared_ptr<const v1::Run>& run) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) return;
    runs_[{run->key().job_index(), run->key().repetition()}] = run;
    WriteNext();
  }

  void Ended(const absl::StatusOr<Wire>& benchmark) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) return;
    if (!benchmark.ok()) {
      FinishLocked(benchmark.status());
      return;
    }
    ended_ = *benchmark;
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
    coordinator_.Unwatch(request_.id(), self);
  }

 private:
  void WriteNext() {
    if (writing_ || finished_) return;
    if (ended_ != nullptr) {  // it tells of everything
      message_ = Within(v1::WatchResponse::kBenchmarkFieldNumber, ended_);
      runs_.clear();
      finished_ = true;
      StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
      return;
    }
    if (started_ != nullptr) {
      message_ = Within(v1::WatchResponse::kBenchmarkFieldNumber, std::exchange(started_, nullptr));
      begun_ = true;
    } else if (begun_ && !runs_.empty()) {
      const auto first = runs_.begin();
      auto run = std::make_shared<std::string>(first->second->SerializeAsString());
      message_ = Within(v1::WatchResponse::kRunFieldNumber, std::move(run));
      runs_.erase(first);
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
  const v1::WatchRequest request_;

  std::mutex mutex_;
  // Guarded by mutex_.
  Wire started_;        // null: none to send
  bool begun_ = false;  // the first message, the benchmark, is sent or being sent
  std::map<std::pair<uint32_t, uint32_t>, std::shared_ptr<const v1::Run>> runs_;
  Wire ended_;                // null: it goes on
  grpc::ByteBuffer message_;  // not touched while writing_
  bool writing_ = false;
  bool finished_ = false;
  std::shared_ptr<WatchStream> self_;
};

}  // namespace

grpc::ServerUnaryReactor* BenchmarkService::Submit(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  std::optional<v1::SubmitRequest> submit = Parse<v1::SubmitRequest>(*request);
  if (!submit) return FinishUnparsed(reactor);
  // Whoever is known by a certificate cannot say that they are somebody else.
  if (access_ != nullptr) {
    std::optional<std::string> name = PeerName(*context);
    if (!name) return FinishNameless(reactor);
    submit->mutable_spec()->set_submitter(*std::move(name));
  }
  const auto frame = [](const Wire& benchmark) { return Within(v1::SubmitResponse::kBenchmarkFieldNumber, benchmark); };
  coordinator_.Submit(*std::move(submit), FinishWithWire(reactor, response, frame));
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::Get(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  std::optional<v1::GetRequest> get = Parse<v1::GetRequest>(*request);
  if (!get) return FinishUnparsed(reactor);
  coordinator_.Get(*std::move(get), FinishWithWire(reactor, response));
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
                                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  std::optional<v1::CancelRequest> cancel = Parse<v1::CancelRequest>(*request);
  if (!cancel) return FinishUnparsed(reactor);
  const std::optional<std::string> owner = Owner(*context);
  if (!owner) return FinishNameless(reactor);
  coordinator_.Cancel(*std::move(cancel), FinishWithWire(reactor, response), *owner);
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::SetPaused(grpc::CallbackServerContext& context, uint64_t id, bool paused,
                                                      grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
  const std::optional<std::string> owner = Owner(context);
  if (!owner) return FinishNameless(reactor);
  coordinator_.SetPaused(id, paused, FinishWithWire(reactor, response), *owner);
  return reactor;
}

grpc::ServerUnaryReactor* BenchmarkService::Pause(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  const std::optional<v1::PauseRequest> pause = Parse<v1::PauseRequest>(*request);
  if (!pause) return FinishUnparsed(context->DefaultReactor());
  return SetPaused(*context, pause->id(), true, response);
}

grpc::ServerUnaryReactor* BenchmarkService::Resume(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  const std::optional<v1::ResumeRequest> resume = Parse<v1::ResumeRequest>(*request);
  if (!resume) return FinishUnparsed(context->DefaultReactor());
  return SetPaused(*context, resume->id(), false, response);
}

grpc::ServerUnaryReactor* BenchmarkService::Explain(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const std::optional<v1::ExplainRequest> explain = Parse<v1::ExplainRequest>(*request);
  if (!explain) return FinishUnparsed(reactor);
  coordinator_.Explain(explain->id(), FinishWithWire(reactor, response));
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* BenchmarkService::Watch(grpc::CallbackServerContext*,
                                                                    const grpc::ByteBuffer* request) {
  std::optional<v1::WatchRequest> watch = Parse<v1::WatchRequest>(*request);
  const bool readable = watch.has_value();
  const auto stream = std::make_shared<WatchStream>(coordinator_, std::move(watch).value_or(v1::WatchRequest()));
  if (readable) {
    stream->Begin();
  } else {
    stream->Refuse();
  }
  return stream.get();
}

}  // namespace attnfleet::server
