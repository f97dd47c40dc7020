#include "proto/support/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string>

namespace attnfleet {
namespace {

struct Ended {
  int status = 0;
  std::string output;
};

// Runs a shell script to its end with its standard output captured.
Ended RunShell(const std::string& script, bool own_group = false, const std::vector<std::string>& environment = {}) {
  std::array<int, 2> ends{};
  EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const absl::StatusOr<pid_t> pid = Spawn({"/bin/sh", "-c", script}, {-1, ends[1], -1}, own_group, environment);
  close(ends[1]);
  EXPECT_TRUE(pid.ok()) << pid.status();
  Ended result;
  std::array<char, 4096> buffer{};
  for (ssize_t length; (length = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    result.output.append(buffer.data(), static_cast<size_t>(length));
  }
  close(ends[0]);
  if (pid.ok()) waitpid(*pid, &result.status, 0);
  return result;
}

TEST(Spawn, PassesOutputAndExitStatus) {
  const Ended ended = RunShell("echo hello; exit 7");
  EXPECT_EQ(ended.output, "hello\n");
  EXPECT_EQ(WEXITSTATUS(ended.status), 7);
}

TEST(Spawn, SetsEnvironmentOverOwn) {
  setenv("ATTNFLEET_TEST_A", "old", 1);
  setenv("ATTNFLEET_TEST_B", "kept", 1);
  EXPECT_EQ(RunShell("echo $ATTNFLEET_TEST_A $ATTNFLEET_TEST_B", false, {"ATTNFLEET_TEST_A=new"}).output, "new kept\n");
}

TEST(Spawn, LeaksNoDescriptor) {
  const int leak = open("/dev/null", O_RDONLY);  // on purpose without O_CLOEXEC
  EXPECT_EQ(RunShell("ls /proc/self/fd | wc -l").output, "4\n") << "three streams, and the folder that ls reads";
  close(leak);
}

TEST(Spawn, UnblocksAndResetsSignals) {
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  std::signal(SIGPIPE, SIG_IGN);
  for (const char* name : {"TERM", "PIPE"}) {
    EXPECT_EQ(RunShell(std::string("kill -") + name + " $$; echo alive").output, "") << name;
  }
  std::signal(SIGPIPE, SIG_DFL);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST(Spawn, OwnGroupIsApartFromTheTerminals) {
  const std::string group = "ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat";
  EXPECT_EQ(std::stoi(RunShell(group, false).output), getpgrp());
  EXPECT_NE(std::stoi(RunShell(group, true).output), getpgrp());
}

TEST(Spawn, MissingProgramIsNamed) {
  const absl::StatusOr<pid_t> pid = Spawn({"/nowhere/program"}, {}, false);
  ASSERT_FALSE(pid.ok());
  EXPECT_NE(pid.status().message().find("/nowhere/program"), std::string::npos);
}

TEST(DieWithParent, RefusesAParentThatIsGone) {
  EXPECT_TRUE(DieWithParent(getppid(), 0).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(DieWithParent(getpid(), 0)));
}

TEST(DieWithParent, ChildEndsWhenItsParentIsKilled) {
  // parent -> child; both are this test's forks without threads, so that fork() is safe.
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const pid_t self = getpid();
    if (fork() == 0) {
      if (!DieWithParent(self, SIGKILL).ok()) _exit(1);
      [[maybe_unused]] const ssize_t ready = write(ends[1], "x", 1);
      alarm(20);  // whatever happens, nothing is left
      for (;;) pause();
    }
    alarm(20);
    for (;;) pause();
  }
  close(ends[1]);
  char byte = 0;
  ASSERT_EQ(read(ends[0], &byte, 1), 1);
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_EQ(read(ends[0], &byte, 1), 0) << "the child's end of the pipe closes when it dies";
  close(ends[0]);
}

TEST(ExecutableDirectory, IsThisProgramsFolder) {
  const absl::StatusOr<std::string> folder = ExecutableDirectory();
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(access((*folder + "/proto_unit_tests").c_str(), X_OK), 0);
}

}  // namespace
}  // namespace attnfleet
