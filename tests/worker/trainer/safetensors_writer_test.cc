#include "worker/trainer/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace attnfleet::trainer {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SafetensorsWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "writer-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    path_ = (folder_ / "f.safetensors").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::ptrdiff_t Files() const { return std::distance(fs::directory_iterator(folder_), {}); }

  fs::path folder_;
  std::string path_;
};

TEST_F(SafetensorsWriterTest, WhatIsWrittenCanBeRead) {
  SafetensorsWriter writer =
      SafetensorsWriter::Create(path_, {{"z", ElementType::kFloat32, {2}}, {"a", ElementType::kInt64, {}}},
                                {{"format", "pt"}})
          .value();
  EXPECT_FALSE(fs::exists(path_));
  ASSERT_TRUE(writer.Append(std::string(8, 'z')).ok());
  ASSERT_TRUE(writer.Append(std::string(8, 'a')).ok());
  ASSERT_TRUE(writer.Finish().ok());
  EXPECT_EQ(Files(), 1);

  const SafetensorsFile file = SafetensorsFile::Read(path_).value();
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.entries().at("z").bytes, std::string(8, 'z'));
  EXPECT_EQ(file.entries().at("z").shape, std::vector<int64_t>{2});
  EXPECT_EQ(file.entries().at("a").bytes, std::string(8, 'a'));
}

TEST_F(SafetensorsWriterTest, AnUnfinishedFileLeavesTheOldOne) {
  std::ofstream(path_) << "old";
  {
    SafetensorsWriter writer = SafetensorsWriter::Create(path_, {{"a", ElementType::kInt64, {}}}, {}).value();
    EXPECT_EQ(Files(), 2);
  }
  EXPECT_EQ(Files(), 1);
  EXPECT_EQ(fs::file_size(path_), 3u);
}

// As on a full disk: the limit of a file's size makes write() fail.
TEST_F(SafetensorsWriterTest, AFullDiskIsAnErrorThatLeavesTheOldFile) {
  std::ofstream(path_) << "old";
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {1000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    SafetensorsWriter writer = SafetensorsWriter::Create(path_, {{"a", ElementType::kFloat32, {500}}}, {}).value();
    EXPECT_THAT(std::string(writer.Append(std::string(2000, '\0')).message()), HasSubstr("cannot be written"));
  }
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(Files(), 1);
  EXPECT_EQ(fs::file_size(path_), 3u);
}

TEST_F(SafetensorsWriterTest, AMissingFolderIsAnError) {
  const absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create("/nonexistent/f", {}, {});
  EXPECT_THAT(std::string(writer.status().message()), HasSubstr("/nonexistent/f cannot be created"));
}

}  // namespace
}  // namespace attnfleet::trainer
