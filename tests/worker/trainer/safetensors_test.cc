#include "worker/trainer/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace attnfleet::trainer {
namespace {

using testing::HasSubstr;

std::string File(const std::string& header, const std::string& elements) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + elements;
}

constexpr char kHeader[] = R"({"__metadata__":{"kind":"test"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                           R"("b":{"dtype":"I64","shape":[],"data_offsets":[8,16]}})";

std::string ErrorOf(const std::string& contents) {
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Parse("f.safetensors", contents);
  return file.ok() ? "" : std::string(file.status().message());
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const SafetensorsFile file = SafetensorsFile::Parse("f", File(kHeader, std::string(16, '\1'))).value();
  ASSERT_EQ(file.entries().size(), 2u);
  EXPECT_EQ(file.entries().at("a").shape, std::vector<int64_t>{2});
  EXPECT_EQ(file.entries().at("a").bytes.size(), 8u);
  EXPECT_EQ(file.entries().at("b").type, ElementType::kInt64);
  EXPECT_EQ(file.metadata().at("kind"), "test");
}

TEST(Safetensors, EveryTruncationIsAnErrorThatNamesTheFile) {
  const std::string whole = File(kHeader, std::string(16, '\0'));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(ErrorOf(whole.substr(0, size)), HasSubstr("f.safetensors")) << size;
  }
  EXPECT_THAT(ErrorOf(whole.substr(0, whole.size() - 1)), HasSubstr("1 tensors reach past its end (truncated?): b"));
}

TEST(Safetensors, RefusesHeadersThatLie) {
  const std::string data(16, '\0');
  EXPECT_THAT(ErrorOf(File("[1]", data)), HasSubstr("no JSON object"));
  EXPECT_THAT(ErrorOf(File(R"({"a":{"dtype":"F32","shape":[2]}})", data)), HasSubstr("data_offsets"));
  EXPECT_THAT(ErrorOf(File(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", data)), HasSubstr("shape"));
  EXPECT_THAT(ErrorOf(File(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}})", data)), HasSubstr("shape"));
  EXPECT_THAT(ErrorOf(File(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", data)),
              HasSubstr("shape"));
  EXPECT_THAT(ErrorOf(File(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[8,0]}})", data)), HasSubstr("end"));
  EXPECT_THAT(ErrorOf(File(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", data)), HasSubstr("F64"));
}

TEST(Safetensors, ReadsHalfPrecision) {
  const std::string header = R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
                             R"("b":{"dtype":"F16","shape":[1,2],"data_offsets":[4,8]}})";
  const SafetensorsFile file = SafetensorsFile::Parse("f", File(header, std::string(8, '\1'))).value();
  EXPECT_EQ(file.entries().at("a").type, ElementType::kBFloat16);
  EXPECT_EQ(file.entries().at("b").type, ElementType::kFloat16);
}

TEST(Safetensors, LongListsOfTruncatedTensorsAreBounded) {
  std::string header = "{";
  for (int i = 0; i < 50; ++i) {
    if (i > 0) header += ",";
    header += "\"t" + std::to_string(i) + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  }
  const std::string message = ErrorOf(File(header + "}", ""));
  EXPECT_THAT(message, HasSubstr("50 tensors"));
  EXPECT_THAT(message, HasSubstr("and 42 more"));
}

TEST(Safetensors, FoldersAndEmptyFilesAreErrors) {
  EXPECT_THAT(std::string(SafetensorsFile::Read("/tmp").status().message()), HasSubstr("/tmp cannot be read"));
  EXPECT_THAT(std::string(SafetensorsFile::Read("/dev/null").status().message()), HasSubstr("cannot be read"));
}

TEST(Safetensors, MissingFileIsNotFound) {
  EXPECT_EQ(SafetensorsFile::Read("/nonexistent/f").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace attnfleet::trainer
