#include "client/local_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace attnfleet::client {
namespace {

using testing::HasSubstr;

class LocalFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* folder : {"a", "b"}) {
      std::filesystem::create_directories(root_ + folder);
      for (const char* file : {"/d.jsonl", "/w.safetensors"}) std::ofstream(root_ + folder + file) << "x";
    }
  }

  absl::StatusOr<std::string> Apply(const std::vector<std::string>& arguments, bool local = true) {
    LocalFiles files;
    const auto rest = ParseArguments(arguments, files.Flags());
    if (!rest.ok()) return rest.status();
    return files.Apply(local, spec_);
  }

  std::string Error(const std::vector<std::string>& arguments, bool local = true) {
    return std::string(Apply(arguments, local).status().message());
  }

  const std::string root_ = testing::TempDir() + "local_files/";
  v1::BenchmarkSpec spec_;
};

TEST_F(LocalFilesTest, NamesGoIntoTheSpecAndTheFolderToTheWorker) {
  const auto folder = Apply({"--data=" + root_ + "a/d.jsonl", "--weights=" + root_ + "b/../a/w.safetensors"});
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(*folder, std::filesystem::canonical(root_ + "a"));
  EXPECT_EQ(spec_.training().data_file(), "d.jsonl");
  EXPECT_EQ(spec_.training().weights_file(), "w.safetensors");
}

TEST_F(LocalFilesTest, LinkIsTheFileThatItLeadsTo) {
  std::filesystem::remove(root_ + "a/link");
  std::filesystem::create_symlink("../b/w.safetensors", root_ + "a/link");
  EXPECT_EQ(*Apply({"--weights=" + root_ + "a/link"}), std::filesystem::canonical(root_ + "b"));
  EXPECT_EQ(spec_.training().weights_file(), "w.safetensors");
}

TEST_F(LocalFilesTest, WithoutFilesThereIsNoFolder) { EXPECT_EQ(*Apply({}), ""); }

TEST_F(LocalFilesTest, BothFilesAreInOneFolder) {
  EXPECT_THAT(Error({"--data=" + root_ + "a/d.jsonl", "--weights=" + root_ + "b/w.safetensors"}),
              HasSubstr("is not in the folder of --data"));
}

TEST_F(LocalFilesTest, MissingFileIsNamed) {
  EXPECT_EQ(Error({"--data=/nowhere/d.jsonl"}), "--data: there is no file /nowhere/d.jsonl");
  EXPECT_EQ(Error({"--weights=" + root_ + "a"}), "--weights: there is no file " + root_ + "a");
}

TEST_F(LocalFilesTest, FilesOfAServersWorkersHaveFlagsOfTheirOwn) {
  EXPECT_THAT(Error({"--data=" + root_ + "a/d.jsonl"}, /*local=*/false), HasSubstr("give --data-file=NAME"));
  spec_.mutable_training()->set_weights_file("w");
  EXPECT_TRUE(Apply({}, /*local=*/false).ok());
  EXPECT_THAT(Error({}), HasSubstr("without --server give --weights=FILE"));
}

}  // namespace
}  // namespace attnfleet::client
