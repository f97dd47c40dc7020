// What a role does not say: whose benchmark, whose worker, and what becomes of calls that are open already.

#include "secured_server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "attnfleet/v1/service.grpc.pb.h"
#include "attnfleet/v1/worker.grpc.pb.h"
#include "fleet_fixture.h"
#include "proto/support/state_dir.h"

namespace attnfleet::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr char kRoles[] = "alice submitter\nbob submitter\nops admin\nw1 worker\nw2 worker\n";

class Peer {
 public:
  explicit Peer(std::shared_ptr<grpc::Channel> channel)
      : benchmarks_(v1::BenchmarkService::NewStub(channel)),
        fleet_(v1::FleetService::NewStub(channel)),
        workers_(v1::WorkerService::NewStub(channel)) {}

  // Of one spec of two runs (eager and sdpa), or as many more as there are shapes and repetitions.
  v1::Benchmark Submit(const std::string& submitter, int shapes = 1, int repetitions = 1) {
    v1::SubmitRequest request;
    *request.mutable_spec() = MakeSpec({"eager", "sdpa"}, shapes, repetitions);
    request.mutable_spec()->mutable_training()->set_timed_steps(10);
    request.mutable_spec()->set_submitter(submitter);
    v1::SubmitResponse response;
    const grpc::Status status = Call([&](auto* context) { return benchmarks_->Submit(context, request, &response); });
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.benchmark();
  }

  grpc::Status Cancel(uint64_t id) {
    v1::CancelRequest request;
    request.set_id(id);
    v1::Benchmark response;
    return Call([&](auto* context) { return benchmarks_->Cancel(context, request, &response); });
  }

  v1::Benchmark Get(uint64_t id) {
    v1::GetRequest request;
    request.set_id(id);
    v1::Benchmark response;
    const grpc::Status status = Call([&](auto* context) { return benchmarks_->Get(context, request, &response); });
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  grpc::StatusCode TryGet(uint64_t id) {
    v1::GetRequest request;
    request.set_id(id);
    v1::Benchmark response;
    return Call([&](auto* context) { return benchmarks_->Get(context, request, &response); }).error_code();
  }

  grpc::Status ListWorkers() {
    v1::ListWorkersResponse response;
    return Call([&](auto* context) { return fleet_->ListWorkers(context, {}, &response); });
  }

  v1::BenchmarkService::Stub& benchmarks() { return *benchmarks_; }
  v1::WorkerService::Stub& workers() { return *workers_; }

 private:
  template <typename Start>
  grpc::Status Call(Start start) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    return start(&context);
  }

  std::unique_ptr<v1::BenchmarkService::Stub> benchmarks_;
  std::unique_ptr<v1::FleetService::Stub> fleet_;
  std::unique_ptr<v1::WorkerService::Stub> workers_;
};

// A worker's stream by hand.
class WorkerCall {
 public:
  explicit WorkerCall(Peer& peer) {
    context_.set_deadline(Deadline());
    stream_ = peer.workers().Connect(&context_);
  }

  void Hello(const std::string& name) {
    v1::WorkerEvent event;
    *event.mutable_hello() = MakeHello(name, 1);
    stream_->Write(event);
  }
  void Report(const v1::StartRun& start) {
    v1::WorkerEvent event;
    *event.mutable_report() = MakeReport(start, v1::OUTCOME_MEASURED);
    stream_->Write(event);
  }
  // Reads on until a start comes; nothing if the stream ends.
  std::optional<v1::StartRun> Start() {
    v1::WorkerCommand command;
    while (stream_->Read(&command)) {
      if (command.has_start()) return command.start();
    }
    return std::nullopt;
  }
  bool Welcomed() {
    v1::WorkerCommand command;
    return stream_->Read(&command) && command.has_welcome();
  }
  grpc::Status End() {
    v1::WorkerCommand command;
    while (stream_->Read(&command)) {
    }
    return stream_->Finish();
  }
  void Leave() {
    stream_->WritesDone();
    End();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerEvent, v1::WorkerCommand>> stream_;
};

// A Get whose answer begins to come and is not read, so that the most of it stays with the server.
class UnreadGet {
 public:
  UnreadGet(const SecuredServer& server, const std::string& peer, uint64_t id) : stub_(Channel(server, peer)) {
    context_.set_deadline(Deadline());
    call_ = stub_.PrepareCall(&context_, "/attnfleet.v1.BenchmarkService/Get", &queue_);
    call_->StartCall(nullptr);
    EXPECT_TRUE(Next());
    v1::GetRequest request;
    request.set_id(id);
    const grpc::Slice bytes(request.SerializeAsString());
    call_->WriteLast(grpc::ByteBuffer(&bytes, 1), grpc::WriteOptions(), nullptr);
    EXPECT_TRUE(Next());
    call_->ReadInitialMetadata(nullptr);
    EXPECT_TRUE(Next());
  }

  // Reads at last.
  grpc::Status End() {
    grpc::ByteBuffer answer;
    call_->Read(&answer, nullptr);
    Next();
    grpc::Status status;
    call_->Finish(&status, nullptr);
    EXPECT_TRUE(Next());
    return status;
  }

 private:
  // Of a small window that stays as it is, unlike that of attnfleet's own clients.
  static std::shared_ptr<grpc::Channel> Channel(const SecuredServer& server, const std::string& peer) {
    const TlsFiles files = server.files.Client(peer);
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1 << 10);
    arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
    const auto credentials =
        grpc::SslCredentials({*ReadFile(files.ca), *ReadFile(files.key), *ReadFile(files.certificate)});
    return grpc::CreateCustomChannel(server.address(), credentials, arguments);
  }

  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

// A benchmark of 40,000 runs: far more than a stream's flow control lets through unread.
uint64_t SubmitLarge(Peer& peer) { return peer.Submit("", 20, 1'000).id(); }

// Asks until it is another answer than `code`.
grpc::StatusCode GetUntilNot(grpc::StatusCode code, Peer& peer, uint64_t id) {
  const Clock::time_point limit = Clock::now() + seconds(30);
  for (;;) {
    const grpc::StatusCode now = peer.TryGet(id);
    if (now != code || Clock::now() > limit) return now;
    std::this_thread::sleep_for(milliseconds(100));
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr seconds kCutLimit{20};
#else
constexpr seconds kCutLimit{5};
#endif

class SecuredServerTest : public testing::Test {
 protected:
  Peer As(const std::string& name) const { return Peer(server_.Channel(name)); }

  SecuredServer server_{kRoles};
};

TEST_F(SecuredServerTest, TheSubmitterIsWhoeverTheCertificateNames) {
  EXPECT_EQ(As("alice").Submit("bob").spec().submitter(), "alice");
}

TEST_F(SecuredServerTest, ASubmitterCancelsItsOwnAndAnAdminAll) {
  Peer alice = As("alice");
  Peer bob = As("bob");
  Peer ops = As("ops");
  const uint64_t first = alice.Submit("").id();
  const uint64_t second = alice.Submit("").id();
  const grpc::Status refused = bob.Cancel(first);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(refused.error_message(), HasSubstr("is alice's"));
  EXPECT_EQ(ops.Get(first).state(), v1::BENCHMARK_STATE_QUEUED);
  EXPECT_TRUE(alice.Cancel(first).ok());
  EXPECT_TRUE(ops.Cancel(second).ok());
}

TEST_F(SecuredServerTest, AWorkerCannotTakeAnothersName) {
  Peer w2 = As("w2");
  WorkerCall impostor(w2);
  impostor.Hello("w1");
  const grpc::Status status = impostor.End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("hello.worker.name: the certificate is that of w2"));
}

TEST_F(SecuredServerTest, AWorkerCannotReportAnothersRun) {
  Peer alice = As("alice");
  Peer ops = As("ops");
  Peer w1 = As("w1");
  Peer w2 = As("w2");
  WorkerCall first(w1);
  first.Hello("w1");
  ASSERT_TRUE(first.Welcomed());
  const uint64_t id = alice.Submit("").id();
  const std::optional<v1::StartRun> start = first.Start();
  ASSERT_TRUE(start.has_value());
  {
    WorkerCall second(w2);
    second.Hello("w2");
    ASSERT_TRUE(second.Welcomed());
    second.Report(*start);
    second.Leave();  // the coordinator has taken the report by then
  }
  const auto run = [&] { return ops.Get(id).jobs(static_cast<int>(start->run().job_index())).runs(0); };
  EXPECT_NE(run().state(), v1::RUN_STATE_ENDED);
  EXPECT_EQ(run().worker(), "w1");
  first.Report(*start);
  ASSERT_TRUE(first.Start().has_value());  // the next run, so the report was taken
  EXPECT_EQ(run().state(), v1::RUN_STATE_ENDED);
}

TEST_F(SecuredServerTest, OpenStreamsOfARevokedPeerAreCutAndOthersAreNot) {
  Peer alice = As("alice");
  Peer bob = As("bob");
  Peer w1 = As("w1");
  Peer w2 = As("w2");
  WorkerCall revoked(w1);
  WorkerCall kept(w2);
  revoked.Hello("w1");
  kept.Hello("w2");
  ASSERT_TRUE(revoked.Welcomed());
  ASSERT_TRUE(kept.Welcomed());
  const uint64_t id = alice.Submit("").id();
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  v1::WatchRequest request;
  request.set_id(id);
  const auto watch = alice.benchmarks().Watch(&context, request);
  v1::WatchResponse response;
  ASSERT_TRUE(watch->Read(&response));

  const Clock::time_point begin = Clock::now();
  server_.SetRoles("bob submitter\nops admin\nw2 worker\n");
  EXPECT_FALSE(revoked.End().ok());
  while (watch->Read(&response)) {
  }
  EXPECT_FALSE(watch->Finish().ok());
  const auto cut = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
  RecordProperty("cut_ms", static_cast<int>(cut.count()));
  EXPECT_LT(cut, kCutLimit);

  EXPECT_EQ(alice.ListWorkers().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  bob.Submit("");  // w1's slot keeps the first one until its lease ends
  EXPECT_TRUE(kept.Start().has_value());
}

TEST_F(SecuredServerTest, ANewCertificateOfTheServerIsUsedWithoutARestart) {
  // Of another CA: whoever trusts only that one can connect once the server has the new certificate.
  const Certificates other;
  const TlsFiles renewed = other.Server();
  TlsFiles client = server_.files.Client("bob");
  client.ca = renewed.ca;
  Peer before(MakeChannel(server_.address(), client));
  EXPECT_EQ(before.ListWorkers().error_code(), grpc::StatusCode::UNAVAILABLE);
  std::filesystem::copy_file(renewed.certificate, server_.files / "server.pem",
                             std::filesystem::copy_options::overwrite_existing);
  std::filesystem::copy_file(renewed.key, server_.files / "server.key",
                             std::filesystem::copy_options::overwrite_existing);
  const Clock::time_point limit = Clock::now() + seconds(30);
  while (!before.ListWorkers().ok() && Clock::now() < limit) std::this_thread::sleep_for(milliseconds(100));
  EXPECT_TRUE(before.ListWorkers().ok());
}

TEST_F(SecuredServerTest, AClientRefusesAServerThatIsNotItsOwn) {
  const TlsFiles right = server_.files.Client("bob");
  const Certificates other;
  TlsFiles trusts_another = right;
  trusts_another.ca = other / "ca.pem";
  const auto answer = [&](const TlsFiles& files) {
    return Peer(MakeChannel(server_.address(), files)).ListWorkers().error_code();
  };
  EXPECT_EQ(answer(trusts_another), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answer(right), grpc::StatusCode::OK);
  const auto answer_becomes = [&](grpc::StatusCode code) {
    const Clock::time_point limit = Clock::now() + seconds(30);
    while (answer(right) != code && Clock::now() < limit) std::this_thread::sleep_for(milliseconds(100));
    return answer(right) == code;
  };
  server_.files.Server("server", "elsewhere.example.org");
  EXPECT_TRUE(answer_becomes(grpc::StatusCode::UNAVAILABLE));
  server_.files.Server();
  EXPECT_TRUE(answer_becomes(grpc::StatusCode::OK));
}

TEST(CallLimits, AnAnswerThatIsNotReadIsEnded) {
  const SecuredServer server(kRoles, {.send = milliseconds(200), .open_per_peer = 1});
  Peer alice(server.Channel("alice"));
  Peer bob(server.Channel("bob"));
  Peer ops(server.Channel("ops"));
  const uint64_t large = SubmitLarge(bob);
  const uint64_t small = ops.Submit("").id();
  ASSERT_GT(ops.Get(large).ByteSizeLong(), 300'000);
  UnreadGet unread(server, "alice", large);
  EXPECT_EQ(GetUntilNot(grpc::StatusCode::RESOURCE_EXHAUSTED, alice, small), grpc::StatusCode::OK);
  EXPECT_EQ(unread.End().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(alice.ListWorkers().ok());
}

TEST(CallLimits, AnAnswerThatARevokedPeerDoesNotReadIsEnded) {
  SecuredServer server(kRoles, {.open_per_peer = 1});
  Peer alice(server.Channel("alice"));
  Peer bob(server.Channel("bob"));
  Peer ops(server.Channel("ops"));
  const uint64_t large = SubmitLarge(bob);
  const uint64_t small = ops.Submit("").id();
  ASSERT_GT(ops.Get(large).ByteSizeLong(), 300'000);
  UnreadGet unread(server, "alice", large);
  EXPECT_EQ(alice.TryGet(small), grpc::StatusCode::RESOURCE_EXHAUSTED);
  server.SetRoles("bob submitter\n");
  EXPECT_EQ(GetUntilNot(grpc::StatusCode::RESOURCE_EXHAUSTED, alice, small), grpc::StatusCode::UNAUTHENTICATED);
  server.SetRoles(kRoles);
  EXPECT_EQ(GetUntilNot(grpc::StatusCode::UNAUTHENTICATED, alice, small), grpc::StatusCode::OK);
  EXPECT_EQ(unread.End().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(CallLimits, AStreamThatSaysNothingIsEnded) {
  const SecuredServer server(kRoles, {.first_message = milliseconds(200)});
  Peer worker(server.Channel("w1"));
  WorkerCall silent(worker);
  EXPECT_EQ(silent.End().error_code(), grpc::StatusCode::CANCELLED);
  WorkerCall speaks(worker);
  speaks.Hello("w1");
  EXPECT_TRUE(speaks.Welcomed());
}

TEST(CallLimits, APeerHasOnlySoManyOpenCalls) {
  const SecuredServer server(kRoles, {.open_per_peer = 2});
  Peer alice(server.Channel("alice"));
  v1::WatchRequest request;
  request.set_id(alice.Submit("").id());
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::WatchResponse>>> watches;
  v1::WatchResponse response;
  for (int i = 0; i < 2; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    contexts.back()->set_deadline(Deadline());
    watches.push_back(alice.benchmarks().Watch(contexts.back().get(), request));
    ASSERT_TRUE(watches.back()->Read(&response));
  }
  const auto third = [&](Peer& peer) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    const auto watch = peer.benchmarks().Watch(&context, request);
    if (watch->Read(&response)) context.TryCancel();
    return watch->Finish().error_code();
  };
  EXPECT_EQ(third(alice), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(alice.ListWorkers().ok());
  Peer bob(server.Channel("bob"));
  EXPECT_EQ(third(bob), grpc::StatusCode::CANCELLED);  // by itself: it was let in
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& watch : watches) watch->Finish();
  // The server hears of the end a moment later.
  const Clock::time_point limit = Clock::now() + seconds(30);
  grpc::StatusCode code = grpc::StatusCode::RESOURCE_EXHAUSTED;
  while (code == grpc::StatusCode::RESOURCE_EXHAUSTED && Clock::now() < limit) code = third(alice);
  EXPECT_EQ(code, grpc::StatusCode::CANCELLED);
}

TEST(CallLimits, CallsThatCameTogetherAreEndedDownToTheLimit) {
  constexpr size_t kMost = 2;
  const SecuredServer server(kRoles, {.open_per_peer = kMost});
  Peer alice(server.Channel("alice"));
  v1::WatchRequest request;
  request.set_id(alice.Submit("").id());
  struct Watch {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> reader;
  };
  std::vector<std::unique_ptr<Watch>> watches;
  for (int i = 0; i < 10; ++i) {  // none waits for another, so more than two may be let in
    watches.push_back(std::make_unique<Watch>());
    watches.back()->context.set_deadline(Deadline());
    watches.back()->reader = alice.benchmarks().Watch(&watches.back()->context, request);
  }
  std::atomic<size_t> open{watches.size()};
  std::vector<std::thread> readers;
  for (const auto& watch : watches) {
    readers.emplace_back([&open, one = watch.get()] {
      v1::WatchResponse response;
      while (one->reader->Read(&response)) {
      }
      --open;
    });
  }
  const Clock::time_point limit = Clock::now() + seconds(30);
  while (open > kMost && Clock::now() < limit) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(open, kMost);
  for (const auto& watch : watches) watch->context.TryCancel();
  for (std::thread& reader : readers) reader.join();
  for (const auto& watch : watches) watch->reader->Finish();
}

}  // namespace
}  // namespace attnfleet::server
