#include "proto/support/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace attnfleet {
namespace {

std::string Logged(LogFormat format, const std::function<void()>& log) {
  InitLog("test", Severity::kInfo, format);
  testing::internal::CaptureStderr();
  log();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, JsonIsOneObjectALineWhateverTheText) {
  const std::string line = Logged(LogFormat::kJson, [] {
    LogWarning("quote \" line\nfeed, no UTF-8 \xff", {{"request_id", "ci-42"}, {"run", "1/2/3"}, {"slot", ""}});
  });
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["program"], "test");
  EXPECT_EQ(json["message"], "quote \" line\nfeed, no UTF-8 \xef\xbf\xbd");
  EXPECT_EQ(json["request_id"], "ci-42");
  EXPECT_EQ(json["run"], "1/2/3");
  EXPECT_FALSE(json.contains("slot")) << "empty fields are left out";
  EXPECT_THAT(json["time"].get<std::string>(), testing::MatchesRegex("2.*T.*Z"));
}

TEST(Log, TextHasTheFieldsBehindIt) {
  EXPECT_THAT(Logged(LogFormat::kText,
                     [] {
                       LogInfo("a run ends", {{"request_id", "ci-42"}, {"slot", ""}});
                     }),
              testing::EndsWith(" info test: a run ends request_id=ci-42\n"));
}

TEST(Log, WhatIsNotSevereEnoughIsLeftOut) {
  InitLog("test", Severity::kWarning);
  testing::internal::CaptureStderr();
  LogInfo("nothing");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_FALSE(LogsAt(Severity::kInfo));
  EXPECT_TRUE(LogsAt(Severity::kError));
}

TEST(Log, FormatsAreTextAndJson) {
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_EQ(*ParseLogFormat("text"), LogFormat::kText);
  EXPECT_THAT(ParseLogFormat("xml").status().message(), testing::HasSubstr("--log-format: \"xml\""));
}

}  // namespace
}  // namespace attnfleet
