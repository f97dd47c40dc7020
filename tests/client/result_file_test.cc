#include "client/result_file.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "sample.h"

namespace attnfleet::client {
namespace {

using testing::HasSubstr;

// A benchmark whose first run knows everything that a trainer can tell.
v1::Benchmark Complete() {
  v1::Benchmark benchmark = FinishedBenchmark();
  v1::Run& run = *benchmark.mutable_jobs(0)->mutable_runs(0);
  run.add_failed_attempts()->set_reason("signal 9");
  v1::RunResult& result = *run.mutable_result();
  result.mutable_environment()->set_seed(18446744073709551615U);
  result.add_contamination("other processes on the GPU: \"x\"");
  v1::Measurement& measurement = *result.mutable_measurement();
  measurement.add_step_seconds(0.1);
  measurement.add_step_seconds(1.0 / 3);
  measurement.add_attention_kernels("flash_fwd_kernel<...>");
  measurement.mutable_numerical_check()->set_gradient_error(1e-300);
  measurement.set_attention_dropout_placement(v1::DROPOUT_PLACEMENT_OUTPUT);
  measurement.set_peak_device_bytes(9007199254740993);
  v1::OtherProcess& other = *result.mutable_telemetry()->add_other_processes();
  other.set_pid(42);
  other.add_phases("during");
  (*benchmark.mutable_spec()->mutable_requirements()->mutable_labels())["rack"] = "a3";
  return benchmark;
}

TEST(ResultFile, NothingIsLostOnTheWay) {
  const v1::Benchmark benchmark = Complete();
  const auto read = ParseResultJson(ResultJson({benchmark}));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 1U);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals((*read)[0], benchmark));
}

TEST(ResultFile, ADivergedLossStaysOne) {
  v1::Benchmark benchmark = Complete();
  benchmark.mutable_jobs(0)->mutable_runs(0)->mutable_result()->mutable_measurement()->set_last_loss(
      std::numeric_limits<double>::quiet_NaN());
  const auto read = ParseResultJson(ResultJson({benchmark}));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(std::isnan((*read)[0].jobs(0).runs(0).result().measurement().last_loss()));
  EXPECT_EQ(ResultJson(*read), ResultJson({benchmark}));
}

TEST(ResultFile, SeveralBenchmarksAreAnArray) {
  const std::string text = ResultJson({Complete(), FinishedBenchmark()});
  const auto read = ParseResultJson(text);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->size(), 2U);
  EXPECT_EQ(ResultJson(*read), text);
}

TEST(ResultFile, WhatIsNoResultIsToldApart) {
  const auto message = [](const std::string& text) { return std::string(ParseResultJson(text).status().message()); };
  EXPECT_EQ(message("table"), "is no JSON from line 1, column 2, on");
  EXPECT_EQ(message("{\n  \"jobs\": [],\n  \"id\": nul}"), "is no JSON from line 3, column 12, on");
  EXPECT_EQ(message("{\n  \"jobs\": [\n"), "is no whole JSON: it ends too early");
  EXPECT_EQ(message(""), "is no whole JSON: it ends too early");
  EXPECT_EQ(message("{\"id\": 1e999}"), "holds a number that is too large");
  EXPECT_EQ(message("[1]"), "holds no benchmark");
  EXPECT_THAT(message("[]"), HasSubstr("no benchmark"));
  EXPECT_THAT(message("{}"), HasSubstr("no jobs"));
  EXPECT_EQ(message("{\"speed\": 1}"), "speed: there is no such field");
  EXPECT_EQ(message("{\"jobs\": [{\"speed\": 1}]}"), "jobs[0] speed: there is no such field");
  EXPECT_EQ(message("{\"jobs\": [{\"index\": \"x\"}]}"), "jobs[0].index: invalid value \"x\"");
  EXPECT_EQ(message("{\"jobs\": [{\"index\": {\"a\": 1}}]}"), "jobs[0]: no object can be index");
  const std::string path = testing::TempDir() + "result_file_test.json";
  std::ofstream(path) << "{}";
  EXPECT_EQ(std::string(ReadResultFiles({path}).status().message()),
            "--input: " + path + ": holds no jobs; give a file as attnfleet results --format=json writes it");
  std::filesystem::remove(path);
  EXPECT_THAT(std::string(ReadResultFiles({"/nowhere/r.json"}).status().message()), HasSubstr("/nowhere/r.json"));
}

}  // namespace
}  // namespace attnfleet::client
