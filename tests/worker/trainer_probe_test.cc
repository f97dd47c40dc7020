#include "worker/trainer_probe.h"

#include <gmock/gmock.h>

#include <optional>

#include "support.h"

namespace attnfleet::worker {
namespace {

using testing::HasSubstr;

absl::StatusOr<v1::TrainerCapabilities> Probe(const std::string& behaviour, std::chrono::milliseconds limit = kPatience,
                                              std::chrono::milliseconds kill_limit = kKillLimit) {
  const ScopedEnvironment environment("ATTNFLEET_DOUBLE", behaviour);
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  std::optional<absl::StatusOr<v1::TrainerCapabilities>> answer;
  std::unique_ptr<TrainerProbe> probe = *TrainerProbe::Start(
      *loop, MakeProbeCommand(DoubleProgram()), limit,
      [&](auto result) {
        answer = std::move(result);
        probe.reset();
      },
      kill_limit);
  EXPECT_TRUE(RunUntil(*loop, [&] { return answer.has_value(); }));
  return *answer;
}

TEST(TrainerProbe, LearnsWhatTheTrainerCanDo) {
  const auto capabilities = Probe("");
  ASSERT_TRUE(capabilities.ok()) << capabilities.status();
  ASSERT_EQ(capabilities->backends_size(), 4);
  EXPECT_EQ(capabilities->backends(1).name(), "sdpa");
  EXPECT_EQ(capabilities->backends(1).devices_size(), 2);
  EXPECT_EQ(capabilities->backends(3).devices_size(), 1);
  EXPECT_EQ(capabilities->libtorch_version(), "2.11.0+double");
}

TEST(TrainerProbe, FailureCarriesTheTrainersOwnWords) {
  EXPECT_THAT(std::string(Probe("list:exit=4").status().message()),
              HasSubstr("trainer exited with status 4: double: exiting with status 4"));
  EXPECT_THAT(std::string(Probe("list:crash=11").status().message()), HasSubstr("signal 11"));
  EXPECT_THAT(std::string(Probe("list:half").status().message()), HasSubstr("cannot be read"));
}

TEST(TrainerProbe, WithoutLibTorchTheTrainersLastLineIsAll) {
  const absl::Status status = Probe("list:exit=3").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(status.message(), "double: exiting with status 3");
}

TEST(TrainerProbe, ATrainerThatHangsIsGivenUp) {
  EXPECT_THAT(std::string(Probe("list:stubborn", std::chrono::milliseconds(200)).status().message()),
              HasSubstr("within 200 ms"));
}

TEST(TrainerProbe, ATrainerThatCannotBeKilledIsGivenUpToo) {
  const std::chrono::milliseconds limit(200);
  EXPECT_THAT(std::string(Probe("list:unkillable", limit, limit).status().message()), HasSubstr("within 200 ms"));
}

}  // namespace
}  // namespace attnfleet::worker
