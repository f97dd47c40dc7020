#include "worker/spool.h"

#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "support.h"

namespace attnfleet::worker {
namespace {

namespace fs = std::filesystem;

v1::RunReport MakeReport(uint32_t job_index, uint32_t attempt, const std::string& reason = "because") {
  v1::RunReport report;
  report.mutable_run()->set_benchmark_id(1);
  report.mutable_run()->set_job_index(job_index);
  report.set_attempt(attempt);
  report.set_slot("cpu0");
  report.mutable_result()->set_outcome(v1::OUTCOME_UNSUPPORTED);
  report.mutable_result()->set_reason(reason);
  return report;
}

std::unique_ptr<Spool> OpenSpool(const std::string& folder) {
  absl::StatusOr<std::unique_ptr<Spool>> spool = Spool::Open(folder);
  EXPECT_TRUE(spool.ok()) << spool.status();
  return *std::move(spool);
}

size_t FilesIn(const std::string& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(Spool, KeepsReportsAcrossProcesses) {
  const ScratchDirectory scratch;
  {
    const auto spool = OpenSpool(scratch / "spool");
    spool->Add(MakeReport(2, 1));
    spool->Add(MakeReport(1, 3, "why"));
    EXPECT_EQ(spool->reports().size(), 2U);
  }
  const auto spool = OpenSpool(scratch / "spool");
  ASSERT_EQ(spool->reports().size(), 2U);
  EXPECT_EQ(spool->reports().begin()->second.SerializeAsString(), MakeReport(1, 3, "why").SerializeAsString());
}

TEST(Spool, ForgetsWhatIsAcknowledged) {
  const ScratchDirectory scratch;
  const auto spool = OpenSpool(scratch / "spool");
  spool->Add(MakeReport(1, 1));
  spool->Add(MakeReport(1, 2));
  spool->Remove(MakeReport(1, 1).run(), 1);
  spool->Remove(MakeReport(9, 9).run(), 9);
  EXPECT_EQ(spool->reports().size(), 1U);
  EXPECT_EQ(FilesIn(scratch / "spool"), 1U);
  EXPECT_EQ(OpenSpool(scratch / "spool")->reports().size(), 1U);
}

TEST(Spool, SetsDamagedFilesAsideAndKeepsTheRest) {
  const ScratchDirectory scratch;
  const std::string folder = scratch / "spool";
  {
    const auto spool = OpenSpool(folder);
    for (uint32_t job = 1; job <= 4; ++job) spool->Add(MakeReport(job, 1));
  }
  fs::resize_file(folder + "/1-1-0-1.pb", 0);
  fs::resize_file(folder + "/1-2-0-1.pb", fs::file_size(folder + "/1-2-0-1.pb") - 3);
  std::ofstream(folder + "/1-3-0-1.pb") << "no protobuf \xff\xff";
  std::ofstream(folder + "/1-7-0-1.pb.tmp") << "half";
  const auto spool = OpenSpool(folder);
  ASSERT_EQ(spool->reports().size(), 1U);
  EXPECT_EQ(spool->reports().begin()->second.run().job_index(), 4U);
  for (const char* name : {"/1-1-0-1.pb", "/1-2-0-1.pb", "/1-3-0-1.pb"}) {
    EXPECT_FALSE(fs::exists(folder + name));
    EXPECT_TRUE(fs::exists(folder + name + ".corrupt")) << name;
  }
  EXPECT_FALSE(fs::exists(folder + "/1-7-0-1.pb.tmp"));
}

TEST(Spool, EveryTruncationIsNoticed) {
  const ScratchDirectory scratch;
  const std::string folder = scratch / "spool";
  const std::string whole = MakeReport(1, 1).SerializeAsString();
  for (size_t length = 0; length < whole.size(); ++length) {
    fs::create_directories(folder);
    std::ofstream(folder + "/1-1-0-1.pb") << whole.substr(0, length);
    EXPECT_TRUE(OpenSpool(folder)->reports().empty()) << length;
  }
}

TEST(Spool, FolderThatCannotBeMadeIsNamed) {
  const auto spool = Spool::Open("/proc/no/spool");
  EXPECT_THAT(std::string(spool.status().message()), testing::HasSubstr("/proc/no/spool"));
}

// In a child process with a mount namespace and a disk of 64 KiB of its own. Returns its exit status: 0 = as expected,
// 77 = such a mount is not allowed here.
int FillDisk(const std::string& folder) {
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=64k") != 0) {
      _exit(77);
    }
    absl::StatusOr<std::unique_ptr<Spool>> spool = Spool::Open(folder + "/spool");
    if (!spool.ok()) _exit(1);
    const std::string big(30'000, 'x');
    for (uint32_t job = 1; job <= 5; ++job) (*spool)->Add(MakeReport(job, 1, big));
    if ((*spool)->reports().size() != 5) _exit(2);
    const size_t on_disk = FilesIn(folder + "/spool");
    if (on_disk == 0 || on_disk == 5) _exit(3);
    for (uint32_t job = 1; job <= 5; ++job) (*spool)->Remove(MakeReport(job, 1).run(), 1);
    if (FilesIn(folder + "/spool") != 0) _exit(4);
    (*spool)->Add(MakeReport(6, 1, big));
    _exit(OpenSpool(folder + "/spool")->reports().size() == 1 ? 0 : 5);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Spool, KeepsInMemoryWhatAFullDiskRefuses) {
  const ScratchDirectory scratch;
  const int status = FillDisk(scratch.path());
  if (status == 77) GTEST_SKIP() << "no right to mount a small disk here";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace attnfleet::worker
