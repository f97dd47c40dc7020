#include "worker/trainer/events.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace attnfleet::trainer {
namespace {

using nlohmann::json;

RunResult Measured() {
  RunResult result;
  result.outcome = Outcome::kMeasured;
  result.measurement.wall_seconds = 2;
  result.measurement.step_seconds = {0.5, 0.5, 0.5, 0.4};
  return result;
}

TEST(Events, MeasuredResultCarriesRateAndQuantiles) {
  const json result = json::parse(ResultLine(Measured()))["result"];
  EXPECT_EQ(result["outcome"], "OUTCOME_MEASURED");
  EXPECT_EQ(result["measurement"]["timed_steps"], 4);
  EXPECT_EQ(result["measurement"]["iterations_per_second"], 2.0);
  EXPECT_EQ(result["measurement"]["step_seconds_median"], 0.5);
  EXPECT_EQ(result["measurement"]["step_seconds"].size(), 4u);
}

TEST(Events, LossThatIsNoNumberIsAString) {
  RunResult result = Measured();
  result.measurement.first_loss = std::numeric_limits<double>::quiet_NaN();
  result.measurement.last_loss = -std::numeric_limits<double>::infinity();
  const json measurement = json::parse(ResultLine(result))["result"]["measurement"];
  EXPECT_EQ(measurement["first_loss"], "NaN");
  EXPECT_EQ(measurement["last_loss"], "-Infinity");
}

TEST(Events, OutOfMemoryCarriesBytesAndNoMeasurement) {
  RunResult result;
  result.outcome = Outcome::kOutOfMemory;
  result.out_of_memory = {int64_t{1} << 60, 2, 3};
  result.memory_phase = "backward";
  const json json_result = json::parse(ResultLine(result))["result"];
  EXPECT_EQ(json_result["out_of_memory"]["requested_bytes"], int64_t{1} << 60);
  EXPECT_EQ(json_result["out_of_memory"]["phase"], "backward");
  EXPECT_FALSE(json_result.contains("measurement"));
}

TEST(Events, AnyTextStaysOneLineOfJson) {
  RunResult result;
  result.reason = "quote \" newline \n not UTF-8 \xff";
  const std::string line = ResultLine(result);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(json::parse(line)["result"]["reason"], "quote \" newline \n not UTF-8 \xef\xbf\xbd");
}

TEST(Events, StartedProgressAndCapabilitiesUseTheContractsNames) {
  Environment environment;
  environment.cuda = true;
  const json started = json::parse(StartedLine(environment, 5, "ci:42"))["started"];
  EXPECT_EQ(started["environment"]["device_kind"], "DEVICE_KIND_CUDA");
  EXPECT_EQ(started["parameter_count"], 5);
  EXPECT_EQ(started["request_id"], "ci:42");
  EXPECT_EQ(json::parse(ProgressLine({Phase::kWarmup, 1, 2, 3, 4}))["progress"]["phase"], "TRAINER_PHASE_WARMUP");
  Capabilities capabilities;
  capabilities.backends = {{"flash2", "text", false, true}};
  const json listed = json::parse(CapabilitiesLine(capabilities));
  EXPECT_EQ(listed["backends"][0]["devices"], json::array({"DEVICE_KIND_CUDA"}));
  EXPECT_EQ(listed["steps"],
            json::array({"TRAINING_STEP_REFERENCE", "TRAINING_STEP_FUSED", "TRAINING_STEP_FUSED_BF16_STREAM"}));
}

TEST(Events, FullDiskIsAnError) {
  const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  EXPECT_THAT(std::string(WriteLine(full, "{}").message()), testing::HasSubstr("standard output"));
  close(full);
}

}  // namespace
}  // namespace attnfleet::trainer
