#include "client/message_json.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "attnfleet/v1/service.pb.h"
#include "sample.h"

namespace attnfleet::client {
namespace {

nlohmann::json Parsed(const google::protobuf::Message& message) { return nlohmann::json::parse(MessageJson(message)); }

TEST(MessageJson, NumbersAreNumbersAndNamesAreTheProtos) {
  const nlohmann::json json = Parsed(FinishedBenchmark());
  EXPECT_TRUE(json["id"].is_number_integer());
  EXPECT_EQ(json["ended_unix_ms"], 1'790'000'300'000);
  EXPECT_EQ(json["state"], "BENCHMARK_STATE_FINISHED");
  EXPECT_EQ(json["jobs"][0]["summary"]["peak_allocated_bytes"], 5'130'000'000);
  EXPECT_EQ(json["jobs"][3]["runs"][0]["result"]["outcome"], "OUTCOME_OUT_OF_MEMORY");
  EXPECT_EQ(json["jobs"][0]["shape"]["sequence_length"], 128);
}

TEST(MessageJson, LargeIntegersKeepEveryDigit) {
  v1::TrainingSettings training;
  training.set_seed(18446744073709551615U);
  EXPECT_NE(MessageJson(training).find("18446744073709551615"), std::string::npos);
}

TEST(MessageJson, ScalarsAndListsAreAlwaysThereMessagesWhenSet) {
  const nlohmann::json json = Parsed(v1::Run());
  EXPECT_EQ(json["attempt"], 0);
  EXPECT_EQ(json["failed_attempts"], nlohmann::json::array());
  EXPECT_FALSE(json.contains("result"));
  EXPECT_FALSE(Parsed(v1::TrainingSettings()).contains("seed")) << "absent is not 0";
}

TEST(MessageJson, WhatIsNotFiniteIsNull) {
  v1::Measurement measurement;
  measurement.set_last_loss(std::numeric_limits<double>::quiet_NaN());
  measurement.set_wall_seconds(std::numeric_limits<double>::infinity());
  const nlohmann::json json = Parsed(measurement);
  EXPECT_TRUE(json["last_loss"].is_null());
  EXPECT_TRUE(json["wall_seconds"].is_null());
}

TEST(MessageJson, MapsAndEnumListsAreWrittenToo) {
  v1::SlotRequirements requirements;
  (*requirements.mutable_labels())["rack"] = "a3";
  EXPECT_EQ(Parsed(requirements)["labels"]["rack"], "a3");
  v1::Backend backend;
  backend.add_devices(v1::DEVICE_KIND_CUDA);
  EXPECT_EQ(Parsed(backend)["devices"][0], "DEVICE_KIND_CUDA");
}

}  // namespace
}  // namespace attnfleet::client
