#include "proto/support/stop_signals.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace attnfleet {
namespace {

using std::chrono::milliseconds;

// Each test sends signals to its own thread: gtest's process has no other.
TEST(StopSignals, ReturnsEachSignalOnce) {
  StopSignals signals;
  EXPECT_EQ(signals.Wait(milliseconds(0)), 0);
  raise(SIGINT);
  EXPECT_EQ(signals.Wait(milliseconds(1000)), SIGINT);
  EXPECT_FALSE(signals.Pending());
  EXPECT_EQ(signals.Wait(milliseconds(0)), 0);
  raise(SIGTERM);
  EXPECT_TRUE(signals.Pending());
  EXPECT_TRUE(signals.Pending()) << "asking takes nothing";
  EXPECT_EQ(signals.Wait(milliseconds(1000)), SIGTERM);
}

TEST(StopSignals, WaitEndsWithItsTimeout) {
  StopSignals signals;
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(signals.Wait(milliseconds(30)), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(25));
}

TEST(StopSignals, AClosedPipeIsAnErrorAndNoDeath) {
  const StopSignals signals;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_EQ(write(ends[1], "x", 1), -1);
  close(ends[1]);
}

TEST(StopSignals, AChildCanBeWaitedForThoughItsSignalWasIgnored) {
  std::signal(SIGCHLD, SIG_IGN);
  const StopSignals signals;
  const pid_t child = fork();
  if (child == 0) _exit(7);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

}  // namespace
}  // namespace attnfleet
