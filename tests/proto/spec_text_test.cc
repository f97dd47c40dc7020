#include "proto/spec_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec.h"

namespace attnfleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string Error(const std::string& text) {
  return std::string(ParseSpecText(text, "b.textproto").status().message());
}

TEST(SpecText, ReadsWhatItWrites) {
  v1::BenchmarkSpec spec;
  spec.set_preset("tiny");
  ASSERT_TRUE(ApplyPreset(spec).ok());
  const absl::StatusOr<v1::BenchmarkSpec> read = ParseSpecText(FormatSpecText(spec), "x");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->SerializeAsString(), spec.SerializeAsString());
}

TEST(SpecText, AcceptsCommentsAndAnEmptyFile) {
  EXPECT_TRUE(ParseSpecText("", "x").ok());
  EXPECT_TRUE(ParseSpecText("# nothing\nrepetitions: 3  # three\n", "x").ok());
}

TEST(SpecText, NamesLineColumnAndTheNearestField) {
  EXPECT_THAT(Error("preset: \"tiny\"\nrepetition: 1\n"),
              AllOf(StartsWith("b.textproto:2:11: unknown field \"repetition\"; did you mean \"repetitions\"?"),
                    Not(HasSubstr("Message type"))));
  EXPECT_THAT(Error("shapes { bach: 1 }"), AllOf(StartsWith("b.textproto:1:"), HasSubstr("did you mean \"batch\"")));
}

TEST(SpecText, ListsTheValuesOfAnEnum) {
  EXPECT_THAT(Error("training { precision: BF16 }"), AllOf(StartsWith("b.textproto:1:28: unknown precision \"BF16\""),
                                                           HasSubstr("available: PRECISION_AUTO, PRECISION_FP32, ")));
  EXPECT_THAT(Error("requirements { device_kind: GPU }"), HasSubstr("DEVICE_KIND_CPU, DEVICE_KIND_CUDA"));
  EXPECT_THAT(Error("placement: ALL"), HasSubstr("PLACEMENT_ANY, PLACEMENT_EVERY"));
}

TEST(SpecText, SaysWhatASpecFileLooksLike) {
  for (const char* damaged : {"preset: tiny", "{\"preset\": \"tiny\"}", "\x01\x02", "repetitions = 3"}) {
    EXPECT_THAT(Error(damaged), AllOf(StartsWith("b.textproto:1:"), HasSubstr("preset: \"tiny\"; attnfleet run"),
                                      Not(HasSubstr("\n"))));
  }
}

TEST(SpecText, SaysThatTheFileEndsTooEarly) {
  EXPECT_THAT(Error("shapes { batch: 1"),
              StartsWith("b.textproto:1:18: expected identifier, got: the end of the file ("));
}

TEST(SpecText, NamesThePlaceOfEveryOtherError) {
  EXPECT_THAT(Error("repetitions: \"two\""), StartsWith("b.textproto:1:14: "));
  EXPECT_THAT(Error("\n\ntraining { model_size: HUGE }"), StartsWith("b.textproto:3:"));
  EXPECT_THAT(Error("shapes {"), StartsWith("b.textproto:1:"));
  EXPECT_THAT(Error("name: \"unterminated"), StartsWith("b.textproto:1:"));
}

}  // namespace
}  // namespace attnfleet
