#include "server/worker_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>

#include "fleet_fixture.h"
#include "memory_store.h"
#include "server/listener.h"

namespace attnfleet::server {
namespace {

TEST(ValidateHello, AcceptsAWorkerWithASlot) { EXPECT_EQ(ValidateHello(MakeHello("w", 1)), absl::OkStatus()); }

TEST(ValidateHello, AnotherProtocolNamesBoth) {
  v1::WorkerHello hello = MakeHello("w", 1);
  hello.mutable_worker()->set_protocol(77);
  const absl::Status status = ValidateHello(hello);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("77"));
}

TEST(ValidateHello, EveryErrorNamesTheField) {
  v1::WorkerHello no_name = MakeHello("", 1);
  v1::WorkerHello no_instance = MakeHello("w", 1);
  no_instance.mutable_worker()->clear_instance();
  v1::WorkerHello label = MakeHello("w", 1);
  (*label.mutable_worker()->mutable_labels())["a\x1b[2J"] = "b";
  v1::WorkerHello twice = MakeHello("w", 2);
  twice.mutable_worker()->mutable_slots(1)->set_id("cpu0");
  v1::WorkerHello long_slot = MakeHello("w", 1);
  long_slot.mutable_worker()->mutable_slots(0)->set_id(std::string(200, 'x'));
  v1::WorkerHello device_name = MakeHello("w", 1);
  device_name.mutable_worker()->mutable_slots(0)->set_device_name(std::string(201, 'x'));
  v1::WorkerHello description = MakeHello("w", 1);
  description.mutable_worker()->mutable_backends(0)->set_description(std::string(1025, 'x'));
  v1::WorkerHello devices = MakeHello("w", 1);
  devices.mutable_worker()->mutable_backends(0)->mutable_devices()->Resize(17, v1::DEVICE_KIND_CPU);
  v1::WorkerHello active = MakeHello("w", 1);
  for (int i = 0; i < 1025; ++i) active.add_active();
  v1::WorkerHello active_slot = MakeHello("w", 1);
  active_slot.add_active()->set_slot(std::string(129, 'x'));
  for (const auto& [hello, field] :
       {std::pair{device_name, "slots.device_name"}, std::pair{description, "backends.description"},
        std::pair{devices, "backends.devices"}, std::pair{active, "hello.active"},
        std::pair{active_slot, "active.slot"}, std::pair{no_name, "worker.name"},
        std::pair{no_instance, "worker.instance"}, std::pair{MakeHello("w", 0), "worker.slots"},
        std::pair{MakeHello("w", 257), "worker.slots"}, std::pair{twice, "cpu0 is given twice"},
        std::pair{long_slot, "slots.id"}, std::pair{MakeHello("w\nforged line", 1), "worker.name"},
        std::pair{MakeHello("w 1", 1), "worker.name"}, std::pair{MakeHello("w\xc2\xa0", 1), "worker.name"},
        std::pair{label, "worker.labels"}}) {
    const absl::Status status = ValidateHello(hello);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(field));
  }
}

TEST(NormalizeResults, AnOutcomeThatNobodyKnowsBecomesAFailureThatSaysSo) {
  v1::StartRun start;
  start.set_attempt(1);
  v1::WorkerEvent event;
  *event.mutable_report() = MakeReport(start, static_cast<v1::Outcome>(77));
  NormalizeResults(event);
  EXPECT_EQ(event.report().result().outcome(), v1::OUTCOME_FAILED);
  EXPECT_THAT(event.report().result().reason(), testing::HasSubstr("outcome 77"));
  *event.mutable_hello() = MakeHello("w", 1);
  *event.mutable_hello()->add_unacknowledged() = MakeReport(start, v1::OUTCOME_UNSPECIFIED);
  *event.mutable_hello()->add_unacknowledged() = MakeReport(start, v1::OUTCOME_OUT_OF_MEMORY);
  NormalizeResults(event);
  EXPECT_EQ(event.hello().unacknowledged(0).result().outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(event.hello().unacknowledged(1).result().outcome(), v1::OUTCOME_OUT_OF_MEMORY);
}

TEST(NormalizeResults, WhatIsTooLongIsCut) {
  v1::WorkerEvent event;
  v1::RunResult& result = *event.mutable_report()->mutable_result();
  result.set_outcome(v1::OUTCOME_FAILED);
  result.set_reason(std::string(1023, 'r') + "\u00e9");  // two bytes, cut between them
  result.mutable_failure()->set_log_tail(std::string(10'000, 'a') + "the end");
  for (int i = 0; i < 40; ++i) result.add_contamination(std::string(300, 'c'));
  v1::Measurement& measurement = *result.mutable_measurement();
  for (int i = 0; i < 70; ++i) measurement.add_attention_kernels(std::string(600, 'k'));
  measurement.mutable_step_seconds()->Resize(kMaxSteps + 5, 0.25);
  const std::string text(300, 't');
  measurement.mutable_numerical_check()->set_gradient_worst(text);
  measurement.mutable_numerical_check()->set_skipped(std::string(2'000, 's'));
  result.mutable_environment()->set_host(text);
  result.mutable_environment()->set_step(text);
  result.mutable_out_of_memory()->set_phase(text);
  v1::GpuTelemetry& telemetry = *result.mutable_telemetry();
  for (int i = 0; i < 40; ++i) {
    telemetry.add_throttle_reasons(text);
    telemetry.add_unknown(text);
    telemetry.add_other_processes()->set_name(text);
    telemetry.mutable_other_processes(0)->add_phases(text);
  }
  NormalizeResults(event);
  EXPECT_EQ(result.reason(), std::string(1023, 'r') + "?");
  EXPECT_EQ(result.failure().log_tail().size(), 8192u);
  EXPECT_THAT(result.failure().log_tail(), testing::EndsWith("the end"));
  EXPECT_THAT(result.contamination(), testing::SizeIs(32));
  EXPECT_THAT(result.contamination(), testing::Each(testing::SizeIs(200)));
  EXPECT_THAT(measurement.attention_kernels(), testing::SizeIs(64));
  EXPECT_THAT(measurement.attention_kernels(), testing::Each(testing::SizeIs(512)));
  EXPECT_EQ(measurement.step_seconds_size(), kMaxSteps);
  EXPECT_EQ(measurement.numerical_check().gradient_worst().size(), 200u);
  EXPECT_EQ(measurement.numerical_check().skipped().size(), 1024u);
  EXPECT_EQ(result.environment().host().size(), 200u);
  EXPECT_EQ(result.environment().step().size(), 200u);
  EXPECT_EQ(result.out_of_memory().phase().size(), 200u);
  for (const auto& texts : {telemetry.throttle_reasons(), telemetry.unknown(), telemetry.other_processes(0).phases()}) {
    EXPECT_THAT(texts, testing::SizeIs(32));
    EXPECT_THAT(texts, testing::Each(testing::SizeIs(200)));
  }
  EXPECT_THAT(telemetry.other_processes(), testing::SizeIs(32));
  EXPECT_EQ(telemetry.other_processes(0).name().size(), 200u);
}

TEST(NormalizeResults, WhatIsShortEnoughStays) {
  v1::WorkerEvent event;
  v1::StartRun start;
  *event.mutable_report() = MakeReport(start, v1::OUTCOME_MEASURED);
  event.mutable_report()->mutable_result()->set_reason(std::string(1024, 'r'));
  const std::string before = event.SerializeAsString();
  NormalizeResults(event);
  EXPECT_EQ(event.SerializeAsString(), before);
}

// What stays closed if the guard should ever let in a peer whose certificate has no name.
TEST(WorkerService, WithRolesRefusesAWorkerThatHasNoCertificate) {
  std::string folder = std::filesystem::temp_directory_path() / "attnfleet-worker-service-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  std::ofstream(folder + "/roles") << "w worker\n";
  const auto access = AccessControl::Open(folder + "/roles");
  ASSERT_EQ(access.status(), absl::OkStatus());
  MemoryStore store;
  Coordinator::Options options;
  options.now_unix_ms = [] { return int64_t{1'000}; };
  const auto coordinator = Coordinator::Start(store, options);
  ASSERT_EQ(coordinator.status(), absl::OkStatus());
  WorkerService workers(**coordinator, access->get());
  const auto listener = Listen({.address = absl::StrCat("unix:", folder, "/socket")}, {&workers});  // plain text
  ASSERT_EQ(listener.status(), absl::OkStatus());
  const auto stub =
      v1::WorkerService::NewStub(grpc::CreateChannel(listener->address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto stream = stub->Connect(&context);
  v1::WorkerEvent hello;
  *hello.mutable_hello() = MakeHello("w", 1);
  stream->Write(hello);
  v1::WorkerCommand command;
  EXPECT_FALSE(stream->Read(&command)) << command.DebugString();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  listener->server->Shutdown(std::chrono::system_clock::now());
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace attnfleet::server
