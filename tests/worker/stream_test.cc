#include "worker/stream.h"

#include <gtest/gtest.h>

#include <string>

#include "fake_coordinator.h"
#include "proto/address.h"
#include "support.h"

namespace attnfleet::worker {
namespace {

v1::WorkerEvent Progress(uint32_t job_index, const std::string& padding) {
  v1::WorkerEvent event;
  event.mutable_progress()->mutable_run()->set_job_index(job_index);
  // A progress message has no text of its own to make it long; an unknown field does.
  event.mutable_progress()
      ->GetReflection()
      ->MutableUnknownFields(event.mutable_progress())
      ->AddLengthDelimited(1000, padding);
  return event;
}

v1::WorkerEvent Report(uint32_t job_index, const std::string& padding) {
  v1::WorkerEvent event;
  event.mutable_report()->mutable_run()->set_job_index(job_index);
  event.mutable_report()->mutable_result()->set_reason(padding);
  return event;
}

class StreamTest : public testing::Test {
 protected:
  const ScratchDirectory scratch_;
  FakeCoordinator coordinator_{scratch_ / "socket", nullptr, /*reading=*/false};
  Stream stream_{MakeChannel("unix:" + (scratch_ / "socket")),
                 {.readable = [] {}, .ended = [](const grpc::Status&, const std::string&) {}}};
};

TEST_F(StreamTest, QueueIsBoundedAndProgressGivesWayToReports) {
  // More than flow control lets through to a coordinator that does not read.
  const std::string padding(1 << 20, 'x');
  for (uint32_t i = 0; i < 64; ++i) ASSERT_TRUE(stream_.Send(Report(i, padding)));
  uint32_t accepted = 0;
  while (accepted < 100'000 && stream_.Send(Progress(accepted, ""))) ++accepted;
  EXPECT_LT(accepted, 1'000U);
  EXPECT_TRUE(stream_.Send(Report(64, "")));
  EXPECT_TRUE(stream_.Send(Progress(1, ""))) << "replaces the older progress of the run";
  uint32_t reports = 0;
  while (reports < 100'000 && stream_.Send(Report(reports, ""))) ++reports;
  EXPECT_GT(reports, 1'000U);
  EXPECT_LT(reports, 100'000U);
}

TEST_F(StreamTest, NothingIsTakenAfterHalfClose) {
  stream_.HalfClose();
  EXPECT_FALSE(stream_.Send(Report(1, "")));
}

}  // namespace
}  // namespace attnfleet::worker
