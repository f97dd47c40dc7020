#include "client/child.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "absl/time/clock.h"
#include "client/private_dir.h"

namespace attnfleet::client {
namespace {

using testing::HasSubstr;

class ChildTest : public testing::Test {
 protected:
  ChildTest() {
    std::string path = testing::TempDir() + "child_test.XXXXXX";
    dir_ = mkdtemp(path.data());
  }
  ~ChildTest() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<Child> Shell(const std::string& script) {
    auto child = std::make_unique<Child>(std::vector<std::string>{"/bin/sh", "-c", script}, dir_ + "/log");
    EXPECT_TRUE(child->Start().ok());
    return child;
  }

  std::string dir_;
  StopSignals signals_;
};

TEST_F(ChildTest, IsReadyWhenItSaysSoAndStopsWhenAsked) {
  const auto child = Shell("trap 'exit 0' TERM; echo ready x; while :; do sleep 0.05; done");
  EXPECT_TRUE(child->WaitUntilReady(absl::Seconds(20), signals_).ok());
  EXPECT_FALSE(child->Ended());
  child->Stop(absl::Seconds(20), signals_);
  EXPECT_EQ(child->HowItEnded(), "ended with status 0");
}

TEST_F(ChildTest, AnEarlyEndIsToldInItsOwnWordsWithItsExitCode) {
  const absl::Status usage =
      Shell("echo one >&2; echo '--torch: wrong' >&2; exit 2")->WaitUntilReady(absl::Seconds(20), signals_);
  EXPECT_TRUE(absl::IsInvalidArgument(usage));
  EXPECT_EQ(usage.message(), "one\n--torch: wrong");
  EXPECT_TRUE(absl::IsUnavailable(Shell("exit 3")->WaitUntilReady(absl::Seconds(20), signals_)));
  const absl::Status silent = Shell("exit 1")->WaitUntilReady(absl::Seconds(20), signals_);
  EXPECT_TRUE(absl::IsUnknown(silent));
  EXPECT_EQ(silent.message(), "sh ended with status 1 before it was ready");
}

TEST_F(ChildTest, OfALogOnlyTheErrorIsTold) {
  const absl::Status status = Shell("echo 'T info x: fine' >&2; echo 'T error x: no GPU' >&2; echo more >&2; exit 1")
                                  ->WaitUntilReady(absl::Seconds(20), signals_);
  EXPECT_EQ(status.message(), "no GPU\nmore");
}

TEST_F(ChildTest, SilenceEndsWithTheTimeout) {
  const absl::Status status = Shell("echo hm >&2; exec sleep 60")->WaitUntilReady(absl::Milliseconds(200), signals_);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("hm"));
}

TEST_F(ChildTest, AStopSignalEndsTheWait) {
  const auto child = Shell("exec sleep 60");
  raise(SIGINT);
  EXPECT_TRUE(absl::IsCancelled(child->WaitUntilReady(absl::Seconds(20), signals_)));
}

TEST_F(ChildTest, IsKilledWhenItDoesNotStopOrASignalComes) {
  const std::string stubborn = "trap '' TERM; echo ready x; while :; do sleep 0.05; done";
  const auto slow = Shell(stubborn);
  ASSERT_TRUE(slow->WaitUntilReady(absl::Seconds(20), signals_).ok());
  slow->Stop(absl::Milliseconds(100), signals_);
  EXPECT_EQ(slow->HowItEnded(), "was killed by signal 9");
  const auto interrupted = Shell(stubborn);
  ASSERT_TRUE(interrupted->WaitUntilReady(absl::Seconds(20), signals_).ok());
  raise(SIGINT);
  const absl::Time start = absl::Now();
  interrupted->Stop(absl::Seconds(60), signals_);
  EXPECT_LT(absl::Now() - start, absl::Seconds(30));
}

TEST_F(ChildTest, ASecondStartContinuesTheLog) {
  const auto child = Shell("echo line >&2; exit 1");
  EXPECT_FALSE(child->WaitUntilReady(absl::Seconds(20), signals_).ok());
  ASSERT_TRUE(child->Start().ok());
  EXPECT_FALSE(child->WaitUntilReady(absl::Seconds(20), signals_).ok());
  EXPECT_EQ(child->LogTail(), "line\nline");
}

TEST_F(ChildTest, PrivateDirIsInTheRuntimeDirAndRemoved) {
  setenv("XDG_RUNTIME_DIR", dir_.c_str(), 1);
  std::string folder;
  {
    const absl::StatusOr<PrivateDir> made = PrivateDir::Make();
    ASSERT_TRUE(made.ok()) << made.status();
    const std::filesystem::path socket = made->address().substr(5);
    folder = socket.parent_path().string();
    EXPECT_EQ(socket.parent_path().parent_path(), dir_);
    EXPECT_EQ(std::filesystem::status(folder).permissions(), std::filesystem::perms::owner_all);
  }
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(ChildTest, PrivateDirAvoidsAPathThatIsTooLongForASocket) {
  setenv("XDG_RUNTIME_DIR", (dir_ + "/" + std::string(90, 'x')).c_str(), 1);
  const absl::StatusOr<PrivateDir> made = PrivateDir::Make();
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_THAT(made->address(), testing::StartsWith("unix:/tmp/attnfleet-"));
}

TEST_F(ChildTest, OnlyWhatAPrivateDirHoldsIsRemovedForAKilledProcess) {
  for (const char* name : {"attnfleet-abc", "attnfleet-full", "other"}) {
    std::filesystem::create_directory(dir_ + "/" + name);
    std::ofstream(dir_ + "/" + name + "/coordinator.sock") << "";
  }
  std::ofstream(dir_ + "/attnfleet-full/precious") << "x";
  for (const char* name : {"attnfleet-abc", "attnfleet-full", "other"}) {
    PrivateDir::RemoveLeft("unix:" + dir_ + "/" + name + "/coordinator.sock");
  }
  PrivateDir::RemoveLeft("127.0.0.1:7600");
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/attnfleet-abc"));
  EXPECT_TRUE(std::filesystem::exists(dir_ + "/attnfleet-full/precious"));
  EXPECT_TRUE(std::filesystem::exists(dir_ + "/other/coordinator.sock"));
}

}  // namespace
}  // namespace attnfleet::client
