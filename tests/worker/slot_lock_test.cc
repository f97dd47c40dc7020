#include "worker/slot_lock.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "support.h"

namespace attnfleet::worker {
namespace {

using testing::AllOf;
using testing::HasSubstr;

v1::Slot GpuSlot(const std::string& uuid) {
  v1::Slot slot = CpuSlot(uuid);
  slot.set_device_kind(v1::DEVICE_KIND_CUDA);
  slot.set_device_name("NVIDIA H100");
  return slot;
}

TEST(SlotLock, SecondWorkerOnACardIsToldWhoHoldsIt) {
  const ScratchDirectory scratch;
  const auto first = LockSlots({GpuSlot("GPU-1"), GpuSlot("GPU-2")}, scratch / "locks", "worker a");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(LockSlots({GpuSlot("GPU-3")}, scratch / "locks", "worker b").ok());
  const auto second = LockSlots({GpuSlot("GPU-2")}, scratch / "locks", "worker b");
  EXPECT_TRUE(absl::IsAlreadyExists(second.status()));
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr("NVIDIA H100 (GPU-2)"), HasSubstr(absl::StrCat(getpid())), HasSubstr("worker a")));
}

TEST(SlotLock, ACardIsFreeAgainWhenItsLocksAreGone) {
  const ScratchDirectory scratch;
  { const auto first = LockSlots({GpuSlot("GPU-1")}, scratch / "locks", "worker a"); }
  EXPECT_TRUE(LockSlots({GpuSlot("GPU-1")}, scratch / "locks", "worker b").ok());
}

TEST(SlotLock, CpuSlotsAreNotLocked) {
  const ScratchDirectory scratch;
  const auto first = LockSlots({CpuSlot("cpu0")}, scratch / "locks", "worker a");
  const auto second = LockSlots({CpuSlot("cpu0")}, scratch / "locks", "worker b");
  EXPECT_TRUE(second.ok());
  EXPECT_NE(access((scratch / "locks").c_str(), F_OK), 0);
}

TEST(SlotLock, EveryUserCanUseTheLocks) {
  const ScratchDirectory scratch;
  const mode_t mask = umask(0077);
  const auto locks = LockSlots({GpuSlot("GPU-1")}, scratch / "locks", "worker a");
  umask(mask);
  struct stat info {};
  ASSERT_EQ(stat((scratch / "locks").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 01777U);
  ASSERT_EQ(stat((scratch / "locks/GPU-1.lock").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0666U);
}

TEST(SlotLock, DirectoryThatCannotBeMadeIsNamed) {
  const auto locks = LockSlots({GpuSlot("GPU-1")}, "/proc/no/locks", "worker a");
  EXPECT_THAT(std::string(locks.status().message()), HasSubstr("/proc/no/locks"));
}

}  // namespace
}  // namespace attnfleet::worker
