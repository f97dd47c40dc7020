#include "worker/trainer/host_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace attnfleet::trainer {
namespace {

namespace fs = std::filesystem;

bool CanMap(int64_t bytes) {
  void* const place = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return false;
  munmap(place, static_cast<size_t>(bytes));
  return true;
}

// Files as the kernel shows them, below a root of their own.
class HostMemoryFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "host-memory-test-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    Write("proc/meminfo", "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:    9000000 kB\n");
    Write("proc/self/cgroup", "0::/a/b\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const fs::path file = fs::path(root_) / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  void WriteCgroup(const std::string& path, const std::string& limit, const std::string& used) {
    Write("sys/fs/cgroup/" + path + "/memory.max", limit + "\n");
    Write("sys/fs/cgroup/" + path + "/memory.current", used + "\n");
    Write("sys/fs/cgroup/" + path + "/memory.stat", "anon 5\ninactive_file 1000000\nactive_file 7\n");
  }

  std::string root_;
};

TEST_F(HostMemoryFiles, WithoutLimitsIsTheHosts) {
  WriteCgroup("a/b", "max", "5000000000");
  const HostMemory memory = ReadHostMemory(root_);
  EXPECT_EQ(memory.total_bytes, 16'000'000LL * 1024);
  EXPECT_EQ(memory.available_bytes, 9'000'000LL * 1024);
}

TEST_F(HostMemoryFiles, IsWhatTheTightestCgroupAllows) {
  WriteCgroup("a/b", "8000000000", "1000000000");
  WriteCgroup("a", "4000000000", "3000000000");
  const HostMemory memory = ReadHostMemory(root_);
  EXPECT_EQ(memory.total_bytes, 4'000'000'000);
  EXPECT_EQ(memory.available_bytes, 1'001'000'000) << "page cache that nobody uses can be had";
}

TEST_F(HostMemoryFiles, OfACgroupBeyondItsLimitIsNothing) {
  Write("proc/self/cgroup", "12:cpuset:/\n0::/\n");
  WriteCgroup("", "1000000", "3000000");
  EXPECT_EQ(ReadHostMemory(root_).available_bytes, 0);
}

// Whether a process that is bounded by these files can map a gigabyte, in a process of its own.
testing::AssertionResult CanMapBounded(const std::string& root) {
  const pid_t child = fork();
  if (child == 0) {
    LimitHostMemory(root);
    std::_Exit(CanMap(int64_t{1} << 30) ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return testing::AssertionFailure() << "no child";
  return status == 0 ? testing::AssertionSuccess() : testing::AssertionFailure();
}

TEST_F(HostMemoryFiles, OfACgroupAtItsLimitNothingMoreIsAllowed) {
  EXPECT_TRUE(CanMapBounded(root_));
  WriteCgroup("a/b", "4000000000", "5000000000");
  EXPECT_FALSE(CanMapBounded(root_));
}

TEST_F(HostMemoryFiles, UnknownMemoryIsNoBound) {
  fs::remove(fs::path(root_) / "proc/meminfo");
  EXPECT_TRUE(CanMapBounded(root_));
}

// In a process of its own, which keeps the bound. Nothing is touched, so no memory is used.
TEST(HostMemory, TheBoundIsBelowWhatTheHostHas) {
  EXPECT_EXIT(
      {
        const HostMemory memory = ReadHostMemory();
        LimitHostMemory();
        const int64_t free = LeastFreeHostBytes();
        const bool sane = free > 0 && free < memory.total_bytes && memory.available_bytes <= memory.total_bytes;
        std::_Exit(sane && CanMap(free / 2) && !CanMap(free + (int64_t{1} << 30)) ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(HostMemory, TheTrainerIsTheFirstToBeKilled) {
  EXPECT_EXIT(
      {
        BeFirstToBeKilled();
        std::ifstream stream("/proc/self/oom_score_adj");
        int score = 0;
        stream >> score;
        std::_Exit(score == 1000 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace attnfleet::trainer
