// The commands against a service in this process, over a Unix socket.

#include "client/commands/commands.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "absl/time/clock.h"
#include "attnfleet/v1/service.grpc.pb.h"
#include "client/follow.h"
#include "client/progress.h"
#include "client/server.h"
#include "client/watcher.h"
#include "proto/address.h"
#include "proto/support/exit_code.h"
#include "sample.h"

namespace attnfleet::client {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

// Answers as the test says.
class FakeService : public v1::BenchmarkService::Service {
 public:
  std::function<grpc::Status(grpc::ServerContext*)> before = [](grpc::ServerContext*) { return grpc::Status::OK; };
  std::function<grpc::Status(grpc::ServerContext*)> before_explain = before;
  std::function<grpc::Status(grpc::ServerContext*, grpc::ServerWriter<v1::WatchResponse>*)> watch;
  std::set<std::string> request_ids;
  int submits = 0;
  v1::Benchmark benchmark = FinishedBenchmark();
  std::string cancel_reason;
  v1::ExplainResponse explanations;

  grpc::Status Submit(grpc::ServerContext* context, const v1::SubmitRequest* request,
                      v1::SubmitResponse* response) override {
    ++submits;
    request_ids.insert(request->request_id());
    *response->mutable_benchmark() = benchmark;
    return before(context);
  }
  grpc::Status Get(grpc::ServerContext* context, const v1::GetRequest* request, v1::Benchmark* response) override {
    if (request->id() > benchmark.id()) return {grpc::StatusCode::NOT_FOUND, "no benchmark 99"};
    *response = benchmark;
    return before(context);
  }
  // The benchmark, without its jobs, as a listing has it.
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest*, v1::ListResponse* response) override {
    *response->add_benchmarks() = benchmark;
    response->mutable_benchmarks(0)->clear_jobs();
    return grpc::Status::OK;
  }
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::Benchmark* response) override {
    cancel_reason = request->reason();
    *response = benchmark;
    return before(context);
  }
  grpc::Status Pause(grpc::ServerContext*, const v1::PauseRequest*, v1::Benchmark*) override { return Ended(); }
  grpc::Status Resume(grpc::ServerContext*, const v1::ResumeRequest*, v1::Benchmark*) override { return Ended(); }
  grpc::Status Explain(grpc::ServerContext* context, const v1::ExplainRequest*,
                       v1::ExplainResponse* response) override {
    *response = explanations;
    return before_explain(context);
  }
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest*,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    return watch(context, writer);
  }

 private:
  static grpc::Status Ended() { return {grpc::StatusCode::FAILED_PRECONDITION, "benchmark 12 has ended"}; }
};

// Offers eager, sdpa and flash2, or nothing.
class FakeFleet : public v1::FleetService::Service {
 public:
  bool connected = true;
  std::function<void(grpc::ServerContext*)> before_list = [](grpc::ServerContext*) {};

  grpc::Status ListBackends(grpc::ServerContext*, const v1::ListBackendsRequest*,
                            v1::ListBackendsResponse* response) override {
    if (!connected) return grpc::Status::OK;
    for (const char* name : {"eager", "sdpa", "flash2"}) response->add_backends()->set_name(name);
    return grpc::Status::OK;
  }
  grpc::Status ListWorkers(grpc::ServerContext* context, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse* response) override {
    before_list(context);
    *response = workers;
    return grpc::Status::OK;
  }

  v1::ListWorkersResponse workers;
};

class CommandsTest : public testing::Test {
 protected:
  CommandsTest() {
    std::string path = testing::TempDir() + "commands_test.XXXXXX";
    dir_ = mkdtemp(path.data());
    address_ = "unix:" + dir_ + "/s";
    setenv("XDG_STATE_HOME", dir_.c_str(), 1);
    unsetenv("COLUMNS");
  }
  ~CommandsTest() override {
    Stop();
    std::filesystem::remove_all(dir_);
  }

  void Start() {
    grpc::ServerBuilder builder;
    ApplyServerLimits(builder);
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&service_);
    builder.RegisterService(&fleet_);
    grpc_server_ = builder.BuildAndStart();
    ASSERT_NE(grpc_server_, nullptr);
  }
  void Stop() {
    if (grpc_server_ != nullptr) grpc_server_->Shutdown(std::chrono::system_clock::now());
    grpc_server_.reset();
  }

  // Runs a command line; out_ and err_ hold what it wrote.
  int Run(const std::vector<std::string>& arguments) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunCommandLine(arguments, signals_);
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return code;
  }
  int RunOnServer(std::vector<std::string> arguments) {
    arguments.push_back("--server=" + address_);
    return Run(arguments);
  }

  static v1::WatchResponse Whole(const v1::Benchmark& benchmark) {
    v1::WatchResponse update;
    *update.mutable_benchmark() = benchmark;
    return update;
  }

  static v1::WatchRequest WatchRequest() {
    v1::WatchRequest request;
    request.set_id(12);
    return request;
  }

  StopSignals signals_;
  std::string dir_;
  std::string address_;
  FakeService service_;
  FakeFleet fleet_;
  std::unique_ptr<grpc::Server> grpc_server_;
  std::string out_;
  std::string err_;
};

// A signal while an answer is on its way ends the call or is left for who asks next; one that did neither would be a
// Ctrl-C without effect. The pauses are about as long as the client takes to look for a signal, for both to happen.
TEST_F(CommandsTest, SignalDuringACallIsNotLost) {
  int answered = 0;
  std::chrono::microseconds pause{0};
  service_.before = [&pause](grpc::ServerContext*) {
    const std::chrono::microseconds of_this_call = pause;
    kill(getpid(), SIGINT);
    std::this_thread::sleep_for(of_this_call);
    return grpc::Status::OK;
  };
  Start();
  Server server(address_, absl::Seconds(30), signals_);
  constexpr int kCalls = 100;
  for (int i = 0; i < kCalls; ++i) {
    pause = std::chrono::microseconds(400 * i);
    const absl::StatusOr<v1::Benchmark> benchmark = server.Get(12);
    if (benchmark.ok()) {
      ++answered;
    } else {
      EXPECT_TRUE(absl::IsCancelled(benchmark.status())) << benchmark.status();
    }
    EXPECT_EQ(signals_.Wait(std::chrono::milliseconds(0)), benchmark.ok() ? SIGINT : 0) << "call " << i;
  }
  EXPECT_GT(answered, 0);
  EXPECT_LT(answered, kCalls);
}

TEST_F(CommandsTest, HelpTeachesByExampleAndListsExitCodes) {
  EXPECT_EQ(Run({"--help"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("attnfleet run --preset=tiny"));
  EXPECT_THAT(out_, HasSubstr("Exit codes"));
  for (const char* said :
       {"of results: they were shown", "the benchmark was cancelled", "pause or resume what has ended"}) {
    EXPECT_THAT(out_, HasSubstr(said));
  }
  for (const char* command :
       {"run", "submit", "watch", "list", "results", "cancel", "workers", "backends", "explain"}) {
    EXPECT_EQ(Run({command, "--help"}), kExitOk);
    const std::string help = out_;
    EXPECT_THAT(help, HasSubstr(std::string("  attnfleet ") + command)) << command;
    EXPECT_THAT(help, HasSubstr("--server=ADDRESS")) << command;
    EXPECT_THAT(help, HasSubstr("Exit codes")) << command;
    EXPECT_EQ(Run({"help", command}), kExitOk);
    EXPECT_EQ(out_, help);
  }
  EXPECT_EQ(Run({"--version"}), kExitOk);
  EXPECT_THAT(out_, StartsWith("attnfleet "));
}

TEST_F(CommandsTest, HelpDefinesWhatTablesShow) {
  for (const char* command : {"run", "results"}) {
    EXPECT_EQ(Run({command, "--help"}), kExitOk);
    EXPECT_THAT(out_, HasSubstr("MFU (model FLOPS utilisation) = model FLOPs per iteration x it/s /")) << command;
    EXPECT_THAT(out_, HasSubstr("--include-contaminated")) << command;
  }
}

TEST_F(CommandsTest, WrongUseIsOneLineOnStandardError) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "a command is needed"},
      {{"rnu"}, "unknown command \"rnu\"; did you mean \"run\"?"},
      {{"help", "rnu"}, "did you mean \"run\"?"},
      {{"watch"}, "ID is needed: attnfleet watch ID"},
      {{"watch", "1", "2"}, "what is \"2\"? The form is: attnfleet watch [FLAGS] ID\n"},
      {{"list", "1"}, "what is \"1\"? The form is: attnfleet list [FLAGS]\n"},
      {{"results", "seven"}, "\"seven\" is no benchmark's number"},
      {{"list", "--steps=3"}, "unknown flag \"--steps\""},
      {{"list", "--server=nonsense"}, "--server: \"nonsense\" is no address"},
      {{"list", "--format=xml"}, "--format: unknown format \"xml\"; available: table, markdown, csv, json"},
      {{"submit", "--preset=tiny"}, "--server is needed"},
      {{"workers", "--server=x:1", "--torch=/x"}, "--torch: of a worker that is started here"},
      {{"run", "--server=x:1", "--trainer=/x", "--preset=tiny"}, "--trainer: of a worker that is started here"},
      {{"run", "--preset=tiny", "--output=/nowhere/x"}, "--output: /nowhere/x"},
      {{"run", "--preset=tiny", "--output=/nowhere/x", "--dry-run"}, "--output: /nowhere/x"},
      {{"submit", "--preset=tiny", "--output=/nowhere/x", "--dry-run"}, "--output: /nowhere/x"},
      {{"list", "--server=x:1", "--output=/nowhere/x"}, "--output: /nowhere/x"},
      {{"explain", "1", "--server=x:1", "--output=/nowhere/x"}, "--output: /nowhere/x"},
      {{"workers", "--server=x:1", "--output=/nowhere/x"}, "--output: /nowhere/x"},
      {{"backends", "--server=x:1", "--output=/nowhere/x"}, "--output: /nowhere/x"},
  };
  for (const auto& [arguments, text] : cases) {
    EXPECT_EQ(Run(arguments), kExitUsage) << text;
    EXPECT_THAT(err_, HasSubstr(text));
    EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
    EXPECT_EQ(out_, "");
  }
}

TEST_F(CommandsTest, DryRunPrintsJobsAndSpec) {
  EXPECT_EQ(Run({"run", "--preset=tiny", "--dry-run"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("4x128"));
  EXPECT_THAT(out_, HasSubstr("4 jobs, 12 runs"));
  EXPECT_THAT(out_, HasSubstr("timed_steps: 20"));
  EXPECT_EQ(Run({"run", "--backends=eager", "--shapes=2x32", "--repetitions=1", "--dry-run"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\n1 job, 1 run. "));
}

TEST_F(CommandsTest, SubmitPrintsTheNumber) {
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny"}), kExitOk) << err_;
  EXPECT_EQ(out_, "12\n");
  EXPECT_THAT(err_, HasSubstr("attnfleet watch 12 --server=" + address_));
}

TEST_F(CommandsTest, ExplainSaysOnceThatTheStoreDoesNotWork) {
  service_.explanations.add_explanations()->set_text("0 of 2 runs ended; waits: no worker is connected");
  service_.explanations.set_stalled("store /s: disk full");
  Start();
  EXPECT_EQ(RunOnServer({"explain", "12"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("waits: no worker is connected"));
  EXPECT_EQ(err_, "attnfleet: warning: nothing new starts, and no result is taken: store /s: disk full\n");
}

TEST_F(CommandsTest, ExplainNamesTheNodeOfEachCellWithPlacementEvery) {
  for (const char* worker : {"w1", "w2"}) {
    v1::Explanation& explanation = *service_.explanations.add_explanations();
    *explanation.mutable_shape() = service_.benchmark.jobs(0).shape();
    explanation.set_backend("eager");
    explanation.set_text("0 of 1 runs ended");
    explanation.mutable_node()->set_worker(worker);
    explanation.mutable_node()->set_slot("cpu0");
  }
  Start();
  EXPECT_EQ(RunOnServer({"explain", "12"}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("\n32x128  eager    w2 cpu0  0 of 1 runs ended\n"));
  for (v1::Explanation& one : *service_.explanations.mutable_explanations()) one.clear_node();
  EXPECT_EQ(RunOnServer({"explain", "12"}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("\n32x128  eager    0 of 1 runs ended\n"));
}

TEST_F(CommandsTest, SubmitWarnsOfWhatNoSlotOfTheFleetCanTake) {
  v1::Explanation& busy = *service_.explanations.add_explanations();
  busy.set_waits("every slot that fits is busy");
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny"}), kExitOk);
  EXPECT_THAT(err_, Not(HasSubstr("warning")));
  v1::Explanation unfit;
  unfit.set_backend("cudnn");
  unfit.set_waits("no slot offers cudnn: w1 cpu0 has no backend cudnn on cpu");
  unfit.set_unfit(true);
  for (int shape = 0; shape < 2; ++shape) *service_.explanations.add_explanations() = unfit;
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny"}), kExitOk);
  EXPECT_THAT(
      err_,
      EndsWith("\nattnfleet: warning: cudnn cannot start in the fleet as it is: no slot offers cudnn: w1 cpu0 has "
               "no backend cudnn on cpu\n"));
  service_.explanations.clear_explanations();
  unfit.set_waits("no slot fits: w1 cpu0 has no backend cudnn on cpu");
  for (const char* backend : {"cudnn", "flash2"}) {
    unfit.set_backend(backend);
    *service_.explanations.add_explanations() = unfit;
  }
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny"}), kExitOk);
  EXPECT_EQ(out_, "12\n");
  EXPECT_THAT(err_,
              EndsWith("\nattnfleet: warning: nothing of it can start in the fleet as it is: no slot fits: w1 cpu0 "
                       "has no backend cudnn on cpu\n"));
}

TEST_F(CommandsTest, SubmitDoesNotWaitLongForTheWarning) {
  std::optional<absl::Duration> given;
  service_.before_explain = [&given](grpc::ServerContext* context) {
    given = absl::FromChrono(context->deadline()) - absl::Now();
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--timeout=20s"}), kExitOk);
  EXPECT_EQ(out_, "12\n");
  EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
  ASSERT_TRUE(given.has_value());
  EXPECT_LT(*given, absl::Seconds(3));
}

TEST_F(CommandsTest, ARefusalHasAnExitCodeOfItsOwn) {
  grpc::Status refusal;
  service_.before = [&refusal](grpc::ServerContext*) { return refusal; };
  Start();
  for (const auto code : {grpc::StatusCode::PERMISSION_DENIED, grpc::StatusCode::UNAUTHENTICATED}) {
    refusal = {code, "bob is viewer"};
    EXPECT_EQ(RunOnServer({"cancel", "12"}), kExitRefused);
    EXPECT_EQ(err_, "attnfleet: bob is viewer\n");
  }
}

TEST_F(CommandsTest, ARetriedSubmitKeepsItsRequestId) {
  service_.before = [this](grpc::ServerContext*) {
    return service_.submits < 3 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting") : grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny"}), kExitOk) << err_;
  EXPECT_EQ(service_.submits, 3);
  EXPECT_THAT(service_.request_ids, SizeIs(1));
  EXPECT_THAT(*service_.request_ids.begin(), SizeIs(32));
}

// A server that stops cancels what it has not answered. To the client that was once its user's Ctrl-C.
TEST_F(CommandsTest, ACallThatTheServerEndsIsMadeAgain) {
  service_.before = [this](grpc::ServerContext*) {
    return service_.submits == 1 ? grpc::Status(grpc::StatusCode::CANCELLED, "") : grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny"}), kExitOk);
  EXPECT_EQ(service_.submits, 2);
  EXPECT_THAT(service_.request_ids, SizeIs(1));
}

TEST_F(CommandsTest, TheServersRefusalNamesTheFlag) {
  service_.before = [](grpc::ServerContext*) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "repetitions: too many for this server");
  };
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--repetitions=9"}), kExitUsage);
  EXPECT_EQ(err_, "attnfleet: --repetitions: too many for this server\n");
}

TEST_F(CommandsTest, BackendsAreThoseOfTheConnectedWorkers) {
  Start();
  for (const char* dry : {"--nodry-run", "--dry-run"}) {
    EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--backends=flsh", dry}), kExitUsage);
    EXPECT_EQ(err_,
              "attnfleet: --backends: unknown backend \"flsh\"; did you mean \"flash2\"? available: eager, sdpa, "
              "flash2\n");
  }
  EXPECT_EQ(service_.submits, 0);
}

TEST_F(CommandsTest, WithoutAWorkerAnyBackendIsAcceptedAndTheWaitIsSaid) {
  fleet_.connected = false;
  Start();
  const std::string note = "attnfleet: no worker is connected yet; the benchmark waits until one offers flsh\n";
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--backends=flsh"}), kExitOk);
  EXPECT_THAT(err_, StartsWith(note));
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--backends=flsh", "--dry-run"}), kExitOk);
  EXPECT_EQ(err_, note);
  EXPECT_EQ(service_.submits, 1);
}

TEST_F(CommandsTest, AnUnreachableServerIsNamedWithinTheTimeout) {
  const absl::Time start = absl::Now();
  EXPECT_EQ(RunOnServer({"list", "--timeout=0.5"}), kExitUnavailable);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_THAT(err_, HasSubstr("cannot reach the server at " + address_));
  EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
}

TEST_F(CommandsTest, AServerThatSaysThatItCannotWasReached) {
  int calls = 0;
  grpc::Status answer(grpc::StatusCode::UNAVAILABLE, "benchmark 12 cannot be read at present: its disk is away");
  service_.before = [&](grpc::ServerContext*) {
    ++calls;
    return answer;
  };
  Start();
  EXPECT_EQ(RunOnServer({"results", "12", "--timeout=0.5"}), kExitUnavailable);
  EXPECT_EQ(
      err_,
      "attnfleet: the server at " + address_ +
          " cannot do it at present (tried for 0.5 s): benchmark 12 cannot be read at present: its disk is away\n");
  EXPECT_GT(calls, 1) << "it may pass";
  answer = {grpc::StatusCode::CANCELLED, ""};
  EXPECT_EQ(RunOnServer({"results", "12", "--timeout=0.5"}), kExitUnavailable);
  EXPECT_THAT(err_, HasSubstr(" cannot do it at present (tried for 0.5 s): the server ended the call\n"));
}

TEST_F(CommandsTest, AServerThatDoesNotAnswerIsGivenUp) {
  service_.before = [](grpc::ServerContext* context) {
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"results", "--timeout=0.3"}), kExitUnavailable);
  EXPECT_THAT(err_, HasSubstr("no answer"));
}

TEST_F(CommandsTest, CtrlCEndsACall) {
  service_.before = [](grpc::ServerContext* context) {
    kill(getpid(), SIGINT);
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"results"}), kExitInterrupted);
}

TEST_F(CommandsTest, UnknownBenchmarkIsWrongUse) {
  Start();
  for (const char* command : {"results", "watch"}) {
    EXPECT_EQ(RunOnServer({command, "99"}), kExitUsage);
    EXPECT_THAT(err_, HasSubstr("99"));
  }
}

TEST_F(CommandsTest, ResultsCanBeWrittenToAFile) {
  Start();
  const std::string path = dir_ + "/result.csv";
  EXPECT_EQ(RunOnServer({"results", "12", "--format=csv", "--output=" + path}), kExitOk) << err_;
  EXPECT_EQ(out_, "");
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_GT(std::filesystem::file_size(path), 500U);
}

TEST_F(CommandsTest, AFullDeviceIsAFailure) {
  Start();
  EXPECT_EQ(RunOnServer({"results", "--output=/dev/full"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("No space left on device"));
}

TEST_F(CommandsTest, CancelPassesTheReasonOn) {
  Start();
  EXPECT_EQ(RunOnServer({"cancel", "12", "--reason=wrong shapes"}), kExitOk);
  EXPECT_EQ(service_.cancel_reason, "wrong shapes");
  EXPECT_THAT(err_, HasSubstr("had ended before"));
}

TEST_F(CommandsTest, CancellingTwiceIsSaid) {
  Start();
  service_.before = [this](grpc::ServerContext*) {  // of the first
    service_.benchmark.set_state(v1::BENCHMARK_STATE_CANCELLED);
    service_.benchmark.set_cancel_reason("wrong shapes");
    return grpc::Status::OK;
  };
  v1::Benchmark& benchmark = service_.benchmark;
  benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
  EXPECT_EQ(RunOnServer({"cancel", "12"}), kExitOk);
  EXPECT_EQ(RunOnServer({"cancel", "12"}), kExitOk);
  EXPECT_THAT(err_, StartsWith("attnfleet: benchmark 12 was cancelled already (wrong shapes): attnfleet results 12 "));
}

TEST_F(CommandsTest, AListingDoesNotCountWhatACancellationEndedAsRun) {
  Start();
  EXPECT_EQ(RunOnServer({"list", "--format=csv"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr(",finished,18/18,"));
  service_.benchmark.set_state(v1::BENCHMARK_STATE_CANCELLED);
  EXPECT_EQ(RunOnServer({"list", "--format=csv"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr(",cancelled,?/18,"));
  EXPECT_EQ(err_, "");
  EXPECT_EQ(RunOnServer({"list"}), kExitOk);
  EXPECT_THAT(err_, HasSubstr("? of a cancelled benchmark: "));
}

TEST_F(CommandsTest, AFleetWithoutWorkersSaysSo) {
  fleet_.connected = false;
  Start();
  for (const char* command : {"workers", "backends"}) {
    EXPECT_EQ(RunOnServer({command}), kExitOk);
    EXPECT_THAT(out_, StartsWith("no worker is connected"));
    EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 1);
    EXPECT_EQ(RunOnServer({command, "--format=json"}), kExitOk);
    EXPECT_THAT(out_, StartsWith("{"));
    EXPECT_EQ(RunOnServer({command, "--format=csv"}), kExitOk);
    EXPECT_THAT(out_, Not(HasSubstr("no worker")));
  }
}

TEST_F(CommandsTest, AListIsFittedToTheTerminal) {
  service_.benchmark.mutable_spec()->set_submitter("somebody@a-host-with-a-long-name");
  Start();
  EXPECT_EQ(RunOnServer({"list"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("Cancelled because\n"));
  setenv("COLUMNS", "60", 1);
  EXPECT_EQ(RunOnServer({"list"}), kExitOk);
  unsetenv("COLUMNS");
  EXPECT_THAT(out_, HasSubstr("By: somebody@a-host-with-a-long-name\n"));
  EXPECT_THAT(out_, Not(HasSubstr("Cancelled because")));
}

TEST_F(CommandsTest, WorkersThatShareACpuAreSaid) {
  for (const char* name : {"w1", "w2", "w3"}) {
    v1::WorkerStatus& worker = *fleet_.workers.add_workers();
    worker.set_connected(true);
    worker.mutable_info()->set_name(name);
    worker.mutable_info()->set_host(std::string(name) == "w3" ? "b" : "a");
    worker.mutable_info()->add_slots()->set_device_kind(v1::DEVICE_KIND_CPU);
  }
  Start();
  EXPECT_EQ(RunOnServer({"workers"}), kExitOk);
  EXPECT_EQ(err_,
            "attnfleet: warning: w1, w2 share the CPU of a: what they run at the same time slows each other down\n");
  fleet_.workers.mutable_workers(1)->mutable_info()->mutable_slots(0)->set_device_kind(v1::DEVICE_KIND_CUDA);
  EXPECT_EQ(RunOnServer({"workers"}), kExitOk);
  EXPECT_EQ(err_, "");
}

TEST_F(CommandsTest, SubmitWarnsOfAStepThatNoCpuRunsWithAutoPrecision) {
  fleet_.workers.add_workers()->mutable_info()->add_slots()->set_device_kind(v1::DEVICE_KIND_CPU);
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--step=fused-bf16-stream"}), kExitOk);
  EXPECT_THAT(err_, StartsWith("attnfleet: warning: every slot that fits is a CPU: --step: fused-bf16-stream is for "
                               "precision bf16-mixed, and auto is fp32 on the CPU; "));
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--step=fused-bf16-stream", "--device=cpu"}), kExitUsage);
  EXPECT_THAT(err_, StartsWith("attnfleet: --step: fused-bf16-stream is for precision bf16-mixed, and auto is fp32"));
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--step=fused-bf16-stream", "--precision=bf16-mixed"}), kExitOk);
  EXPECT_THAT(err_, Not(HasSubstr("warning")));
}

TEST_F(CommandsTest, PlacementEverySaysWhichWorkersItLeavesOut) {
  for (const char* name : {"w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"}) {
    v1::WorkerStatus& worker = *fleet_.workers.add_workers();
    worker.mutable_info()->set_name(name);
    worker.mutable_info()->add_slots();
  }
  fleet_.workers.mutable_workers(0)->set_connected(true);
  Start();
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny"}), kExitOk);
  EXPECT_THAT(err_, Not(HasSubstr("placement every")));
  EXPECT_EQ(RunOnServer({"submit", "--preset=tiny", "--placement=every"}), kExitOk);
  EXPECT_THAT(err_,
              StartsWith("attnfleet: warning: placement every takes the slots that are to be had when it starts: "
                         "as things are, none of w2 (lost), w3 (lost), w4 (lost), w5 (lost), w6 (lost), w7 (lost) "
                         "and 1 more\n"));
}

TEST_F(CommandsTest, ASignalBeforeTheSubmitIsObeyed) {
  fleet_.before_list = [](grpc::ServerContext* context) {
    kill(getpid(), SIGINT);
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  };
  Start();
  for (const char* command : {"submit", "run"}) {
    EXPECT_EQ(RunOnServer({command, "--preset=tiny", "--placement=every"}), kExitInterrupted);
  }
  EXPECT_EQ(service_.submits, 0);
}

TEST_F(CommandsTest, WorkersThatAreNotBackAreListedToo) {
  v1::WorkerStatus& away = *fleet_.workers.add_workers();
  away.mutable_info()->set_name("away");
  away.set_drained(true);
  Start();
  EXPECT_EQ(RunOnServer({"workers"}), kExitOk);
  EXPECT_THAT(out_, testing::ContainsRegex("away +not back since the server started, drained"));
}

TEST_F(CommandsTest, ResultsOfAServerSayHowToRunThemThereAgain) {
  Start();
  EXPECT_EQ(RunOnServer({"results", "12", "--format=markdown"}), kExitOk);
  EXPECT_THAT(out_, testing::ContainsRegex("- Command: attnfleet run .* --server=" + address_ + "\n"));
  EXPECT_EQ(RunOnServer({"results", "12", "--details"}), kExitOk);
  EXPECT_THAT(out_, testing::ContainsRegex("^attnfleet run .* --server=" + address_ + "\n"));
}

TEST_F(CommandsTest, WithoutALocalStoreResultsSayHowToBegin) {
  EXPECT_EQ(Run({"results"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("attnfleet run --preset=tiny"));
}

TEST_F(CommandsTest, WatchShowsProgressAndTheTable) {
  service_.watch = [](grpc::ServerContext*, grpc::ServerWriter<v1::WatchResponse>* writer) {
    v1::Benchmark benchmark = QueuedBenchmark({"eager", "sdpa", "flash2"}, 3);
    writer->Write(Whole(benchmark));
    v1::WatchResponse update;
    *update.mutable_run() = FinishedBenchmark().jobs(0).runs(0);
    writer->Write(update);
    writer->Write(Whole(FinishedBenchmark()));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"watch", "12"}), kExitOk) << err_;
  EXPECT_THAT(err_, HasSubstr("[1/18] eager 32x128, repetition 1 of 3: 23.40 it/s"));
  EXPECT_THAT(err_, testing::Not(HasSubstr("\033")));
  EXPECT_THAT(out_, HasSubstr("29.35 ±0.12"));
}

TEST_F(CommandsTest, AFailedRunIsExitCode1) {
  EndWithout(*service_.benchmark.mutable_jobs(0), v1::OUTCOME_FAILED, "signal 11");
  service_.watch = [this](grpc::ServerContext*, grpc::ServerWriter<v1::WatchResponse>* writer) {
    writer->Write(Whole(service_.benchmark));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"watch", "12"}), kExitFailed);
  EXPECT_THAT(out_, HasSubstr("eager 32x128: failed: signal 11"));
  EXPECT_EQ(RunOnServer({"results", "12"}), kExitOk) << "shows what was asked for";
}

TEST_F(CommandsTest, ACancelledBenchmarkIsExitCode1ForWatch) {
  service_.benchmark.set_state(v1::BENCHMARK_STATE_CANCELLED);
  service_.watch = [this](grpc::ServerContext*, grpc::ServerWriter<v1::WatchResponse>* writer) {
    writer->Write(Whole(service_.benchmark));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"watch", "12"}), kExitFailed);
  EXPECT_EQ(RunOnServer({"results", "12"}), kExitOk) << "shows what was asked for";
}

TEST_F(CommandsTest, WhatTheServerCannotDoIsExitCode1) {
  Start();
  for (const char* command : {"pause", "resume"}) {
    EXPECT_EQ(RunOnServer({command, "12"}), kExitFailed);
    EXPECT_EQ(err_, "attnfleet: benchmark 12 has ended\n");
  }
}

TEST_F(CommandsTest, WatchSaysWhyNothingMoreIsHeardOfWhatRuns) {
  service_.explanations.set_stalled("store /s: disk full");
  std::atomic<bool> asked = false;  // by one that shows nothing else before it has the answer
  service_.before_explain = [&asked](grpc::ServerContext*) {
    asked = true;
    return grpc::Status::OK;
  };
  service_.watch = [this, &asked](grpc::ServerContext* context, grpc::ServerWriter<v1::WatchResponse>* writer) {
    v1::Benchmark running = QueuedBenchmark({"eager"}, 1);
    running.mutable_jobs(0)->mutable_runs(0)->set_state(v1::RUN_STATE_RUNNING);
    writer->Write(Whole(running));
    while (!asked && !context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    writer->Write(Whole(service_.benchmark));
    return grpc::Status::OK;
  };
  Start();
  Server server(address_, absl::Seconds(30), signals_);
  testing::internal::CaptureStderr();
  EXPECT_TRUE(Follow(server, 12, {.quiet = absl::Milliseconds(100)}, signals_).ok());
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("nothing new starts: store /s: disk full\n"));
}

TEST_F(CommandsTest, CtrlCInWatchLeavesTheBenchmarkAlone) {
  service_.watch = [](grpc::ServerContext* context, grpc::ServerWriter<v1::WatchResponse>* writer) {
    writer->Write(Whole(QueuedBenchmark({"eager"}, 1)));
    kill(getpid(), SIGINT);
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"watch", "12"}), kExitInterrupted);
  EXPECT_THAT(err_, HasSubstr("benchmark 12 goes on"));
  EXPECT_EQ(service_.cancel_reason, "");
}

TEST_F(CommandsTest, WatchGoesOnWhereItWasAfterTheServerRestarts) {
  int streams = 0;
  std::mutex mutex;
  service_.watch = [&](grpc::ServerContext*, grpc::ServerWriter<v1::WatchResponse>* writer) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (++streams == 1) {
      writer->Write(Whole(QueuedBenchmark({"eager", "sdpa", "flash2"}, 3)));
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "going down");
    }
    if (streams == 2) return grpc::Status(grpc::StatusCode::CANCELLED, "still starting");
    writer->Write(Whole(FinishedBenchmark()));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"watch", "12"}), kExitOk) << err_;
  EXPECT_EQ(streams, 3);
  EXPECT_THAT(err_, HasSubstr("flash2 64x1024, repetition 3 of 3: unsupported"));
}

TEST_F(CommandsTest, WatcherSurvivesAServerThatIsReallyGoneForAWhile) {
  service_.watch = [](grpc::ServerContext* context, grpc::ServerWriter<v1::WatchResponse>* writer) {
    writer->Write(Whole(QueuedBenchmark({"eager"}, 1)));
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return grpc::Status::CANCELLED;
  };
  Start();
  Watcher watcher(std::make_shared<LeaderChannel>(address_), WatchRequest(), absl::Seconds(60));
  const auto wait_for_updates = [&watcher] {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (absl::Now() < deadline) {
      if (!watcher.Take().empty()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  };
  ASSERT_TRUE(wait_for_updates());
  Stop();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_NE(watcher.Disconnected(), "");
  EXPECT_FALSE(watcher.End().has_value());
  service_.watch = [](grpc::ServerContext*, grpc::ServerWriter<v1::WatchResponse>* writer) {
    writer->Write(Whole(FinishedBenchmark()));
    return grpc::Status::OK;
  };
  Start();
  ASSERT_TRUE(wait_for_updates());
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!watcher.End().has_value() && absl::Now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_TRUE(watcher.End().has_value());
  EXPECT_TRUE(watcher.End()->ok());
}

TEST_F(CommandsTest, WatcherGivesUpWhenItsPatienceEnds) {
  const absl::Time start = absl::Now();
  Watcher watcher(std::make_shared<LeaderChannel>(address_), WatchRequest(), absl::Milliseconds(300));
  while (!watcher.End().has_value() && absl::Now() - start < absl::Seconds(30)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(watcher.End().has_value());
  EXPECT_TRUE(absl::IsUnavailable(*watcher.End()));
}

TEST_F(CommandsTest, CtrlCInRunOnAServerCancelsAndShowsWhatWasMeasured) {
  service_.watch = [this](grpc::ServerContext* context, grpc::ServerWriter<v1::WatchResponse>* writer) {
    writer->Write(Whole(QueuedBenchmark({"eager", "sdpa", "flash2"}, 3)));
    kill(getpid(), SIGINT);
    while (service_.cancel_reason.empty() && !context->IsCancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    v1::Benchmark cancelled = FinishedBenchmark();
    cancelled.set_state(v1::BENCHMARK_STATE_CANCELLED);
    writer->Write(Whole(cancelled));
    return grpc::Status::OK;
  };
  Start();
  EXPECT_EQ(RunOnServer({"run", "--preset=tiny"}), kExitInterrupted) << err_;
  EXPECT_THAT(service_.cancel_reason, HasSubstr("interrupted"));
  EXPECT_THAT(out_, HasSubstr("29.35"));
}

}  // namespace
}  // namespace attnfleet::client
