#include "proto/support/state_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace attnfleet {
namespace {

using testing::HasSubstr;

class StateDirTest : public testing::Test {
 protected:
  StateDirTest() {
    std::string path = testing::TempDir() + "state_dir_test.XXXXXX";
    dir_ = mkdtemp(path.data());
  }
  ~StateDirTest() override { std::filesystem::remove_all(dir_); }

  std::string dir_;
};

TEST_F(StateDirTest, LockTellsWhoHoldsItAndIsFreeAfterwards) {
  const std::string path = dir_ + "/lock";
  {
    const absl::StatusOr<FileLock> lock = FileLock::Acquire(path, "attnfleet run");
    ASSERT_TRUE(lock.ok()) << lock.status();
    const absl::Status second = FileLock::Acquire(path, "other").status();
    EXPECT_TRUE(absl::IsAlreadyExists(second)) << second;
    EXPECT_THAT(std::string(second.message()),
                HasSubstr("is held by process " + std::to_string(getpid()) + " (attnfleet run)"));
  }
  EXPECT_TRUE(FileLock::Acquire(path, "third").ok());
}

TEST_F(StateDirTest, LockMovesWithItsOwner) {
  absl::StatusOr<FileLock> lock = FileLock::Acquire(dir_ + "/lock", "a");
  ASSERT_TRUE(lock.ok());
  const FileLock moved = *std::move(lock);
  EXPECT_TRUE(absl::IsAlreadyExists(FileLock::Acquire(dir_ + "/lock", "b").status()));
}

TEST_F(StateDirTest, LockFollowsNoLink) {
  std::filesystem::create_symlink(dir_ + "/target", dir_ + "/lock");
  EXPECT_FALSE(FileLock::Acquire(dir_ + "/lock", "a").ok());
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/target"));
}

TEST_F(StateDirTest, IsMadePrivateWithItsParents) {
  ASSERT_TRUE(PrepareStateDirectory(dir_ + "/a/b").ok());
  struct stat status {};
  ASSERT_EQ(stat((dir_ + "/a/b").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0700U);
  EXPECT_TRUE(std::filesystem::is_empty(dir_ + "/a/b"));
  EXPECT_TRUE(PrepareStateDirectory(dir_ + "/a/b").ok());
}

TEST_F(StateDirTest, AFileInTheWayIsNamed) {
  std::ofstream(dir_ + "/file") << "x";
  const absl::Status status = PrepareStateDirectory(dir_ + "/file/state");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(dir_ + "/file/state"));
}

TEST_F(StateDirTest, AtomicWriteReplacesAndLeavesNothingBeside) {
  const std::string path = dir_ + "/file";
  ASSERT_TRUE(WriteFileAtomically(path, "first, and longer").ok());
  ASSERT_TRUE(WriteFileAtomically(path, std::string("\0two", 4)).ok());
  const absl::StatusOr<std::string> read = ReadFile(path);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, std::string("\0two", 4));
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST_F(StateDirTest, AtomicWriteIntoNowhereFailsAndSaysWhere) {
  const absl::Status status = WriteFileAtomically(dir_ + "/nowhere/file", "x");
  EXPECT_THAT(std::string(status.message()), HasSubstr(dir_ + "/nowhere/file"));
  EXPECT_TRUE(absl::IsNotFound(ReadFile(dir_ + "/nowhere").status()));
}

}  // namespace
}  // namespace attnfleet
