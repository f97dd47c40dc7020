#include "worker/slots.h"

#include <gmock/gmock.h>

namespace attnfleet::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class FakeLister final : public GpuLister {
 public:
  explicit FakeLister(absl::StatusOr<std::vector<Gpu>> answer) : answer_(std::move(answer)) {}
  absl::StatusOr<std::vector<Gpu>> List() override { return answer_; }

 private:
  const absl::StatusOr<std::vector<Gpu>> answer_;
};

std::vector<Gpu> ThreeGpus() {
  return {{"GPU-aaaa-1", "NVIDIA H100", 80'000'000'000, false, {}},
          {"GPU-aabb-2", "NVIDIA H100", 80'000'000'000, false, {}},
          {"GPU-cccc-3", "NVIDIA A100", 40'000'000'000, false, {}}};
}

std::vector<Gpu> OnePartitioned() {
  std::vector<Gpu> gpus = ThreeGpus();
  gpus[1].mig_enabled = true;
  gpus[1].instances = {{"MIG-1111", "NVIDIA H100 MIG 1g.10gb", 10'000'000'000},
                       {"MIG-2222", "NVIDIA H100 MIG 2g.20gb", 20'000'000'000}};
  return gpus;
}

std::vector<std::string> Ids(const std::vector<v1::Slot>& slots) {
  std::vector<std::string> ids;
  ids.reserve(slots.size());
  for (const v1::Slot& slot : slots) ids.push_back(slot.id());
  return ids;
}

std::vector<std::string> Visible(const std::optional<std::string>& variable) {
  return Ids(VisibleGpus(ThreeGpus(), variable));
}

absl::StatusOr<std::vector<std::string>> Discover(const SlotOptions& options,
                                                  absl::StatusOr<std::vector<Gpu>> gpus = ThreeGpus()) {
  FakeLister lister(std::move(gpus));
  const absl::StatusOr<std::vector<v1::Slot>> slots = DiscoverSlots(options, lister);
  if (!slots.ok()) return slots.status();
  return Ids(*slots);
}

std::string Error(const SlotOptions& options, absl::StatusOr<std::vector<Gpu>> gpus = ThreeGpus()) {
  return std::string(Discover(options, std::move(gpus)).status().message());
}

TEST(VisibleGpus, AbsentVariableShowsAll) {
  EXPECT_THAT(Visible(std::nullopt), ElementsAre("GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3"));
}

TEST(VisibleGpus, EmptyVariableShowsNone) { EXPECT_THAT(Visible(""), IsEmpty()); }

TEST(VisibleGpus, IndexesAndUuidsInTheirOwnOrder) {
  EXPECT_THAT(Visible("2,0"), ElementsAre("GPU-cccc-3", "GPU-aaaa-1"));
  EXPECT_THAT(Visible("GPU-cccc-3, 1"), ElementsAre("GPU-cccc-3", "GPU-aabb-2"));
}

TEST(VisibleGpus, UniqueBeginningOfAUuidIsEnough) {
  EXPECT_THAT(Visible("GPU-c"), ElementsAre("GPU-cccc-3"));
  EXPECT_THAT(Visible("GPU-aab"), ElementsAre("GPU-aabb-2"));
  EXPECT_THAT(Visible("GPU-aa"), IsEmpty());
}

TEST(VisibleGpus, InvalidEntryHidesItselfAndAllAfterIt) {
  EXPECT_THAT(Visible("0,-1,1"), ElementsAre("GPU-aaaa-1"));
  EXPECT_THAT(Visible("0,3,1"), ElementsAre("GPU-aaaa-1"));
  EXPECT_THAT(Visible("1,GPU-ffff,0"), ElementsAre("GPU-aabb-2"));
  EXPECT_THAT(Visible("NoDevFiles"), IsEmpty());
}

TEST(VisibleGpus, DeviceNamedTwiceHidesAll) {
  EXPECT_THAT(Visible("0,1,0"), IsEmpty());
  EXPECT_THAT(Visible("0,GPU-aaaa-1"), IsEmpty());
}

TEST(VisibleGpus, PartitionedGpuIsItsInstances) {
  const std::vector<v1::Slot> all = VisibleGpus(OnePartitioned(), std::nullopt);
  EXPECT_THAT(Ids(all), ElementsAre("GPU-aaaa-1", "MIG-1111", "MIG-2222", "GPU-cccc-3"));
  EXPECT_EQ(all[2].device_name(), "NVIDIA H100 MIG 2g.20gb");
  EXPECT_EQ(all[2].memory_bytes(), 20'000'000'000);
  EXPECT_EQ(all[2].device_kind(), v1::DEVICE_KIND_CUDA);
}

TEST(VisibleGpus, InstancesByUuidAndThePartitionedGpuAsItsFirst) {
  EXPECT_THAT(Ids(VisibleGpus(OnePartitioned(), "MIG-2222,0")), ElementsAre("MIG-2222", "GPU-aaaa-1"));
  EXPECT_THAT(Ids(VisibleGpus(OnePartitioned(), "1")), ElementsAre("MIG-1111"));
  EXPECT_THAT(Ids(VisibleGpus(OnePartitioned(), "GPU-aabb")), ElementsAre("MIG-1111"));
  EXPECT_THAT(Ids(VisibleGpus(OnePartitioned(), "MIG-")), IsEmpty());
}

TEST(VisibleGpus, PartitionedGpuWithoutInstancesIsNone) {
  std::vector<Gpu> gpus = OnePartitioned();
  gpus[1].instances.clear();
  EXPECT_THAT(Ids(VisibleGpus(gpus, std::nullopt)), ElementsAre("GPU-aaaa-1", "GPU-cccc-3"));
  EXPECT_THAT(Ids(VisibleGpus(gpus, "1,0")), IsEmpty());
}

TEST(DiscoverSlots, AutoTakesEveryVisibleGpu) {
  EXPECT_THAT(*Discover({.slots = "auto", .cuda_visible_devices = "1,2", .cuda_device_order = "PCI_BUS_ID"}),
              ElementsAre("GPU-aabb-2", "GPU-cccc-3"));
}

TEST(DiscoverSlots, NumbersThatCudaWouldReadInAnotherOrderAreAnError) {
  EXPECT_THAT(Error({.cuda_visible_devices = "GPU-c,1"}),
              HasSubstr("CUDA_VISIBLE_DEVICES=GPU-c,1: the GPUs of this host differ (NVIDIA A100, NVIDIA H100)"));
  EXPECT_THAT(Error({.cuda_visible_devices = "1", .cuda_device_order = "FASTEST_FIRST"}), HasSubstr("PCI_BUS_ID"));
  EXPECT_THAT(*Discover({.cuda_visible_devices = "GPU-c"}), ElementsAre("GPU-cccc-3"));
  EXPECT_THAT(*Discover({.cuda_visible_devices = "-1"}), ElementsAre("cpu0"));
  std::vector<Gpu> alike = ThreeGpus();
  alike[2].name = alike[0].name;
  EXPECT_THAT(*Discover({.cuda_visible_devices = "2"}, alike), ElementsAre("GPU-cccc-3"));
}

TEST(DiscoverSlots, AutoTakesTheCpuWhereNoGpuIs) {
  EXPECT_THAT(*Discover({}, absl::NotFoundError("no driver")), ElementsAre("cpu0"));
  EXPECT_THAT(*Discover({}, std::vector<Gpu>{}), ElementsAre("cpu0"));
  EXPECT_THAT(*Discover({.cuda_visible_devices = ""}), ElementsAre("cpu0"));
}

TEST(DiscoverSlots, AutoTakesTheCpuWhereTheTrainerHasNoCuda) {
  EXPECT_THAT(*Discover({.cuda_works = false, .cuda_error = "no module"}), ElementsAre("cpu0"));
}

TEST(DiscoverSlots, GpusAskedForWithoutCudaAreAnError) {
  EXPECT_THAT(Error({.slots = "gpu", .cuda_works = false, .cuda_error = "no module"}), HasSubstr("no module"));
  EXPECT_THAT(Error({.slots = "gpu"}, absl::NotFoundError("no driver")), HasSubstr("--slots=gpu: no driver"));
  EXPECT_THAT(Error({.slots = "gpu", .cuda_visible_devices = ""}), HasSubstr("CUDA_VISIBLE_DEVICES="));
}

TEST(DiscoverSlots, CpuSlotsAreNumbered) {
  EXPECT_THAT(*Discover({.slots = "cpu"}), ElementsAre("cpu0"));
  EXPECT_THAT(*Discover({.slots = "cpu:3"}), ElementsAre("cpu0", "cpu1", "cpu2"));
  for (const char* bad : {"cpu:0", "cpu:", "cpu:x", "cpu:100000"}) {
    EXPECT_THAT(Error({.slots = bad}), HasSubstr("cpu:N")) << bad;
  }
}

TEST(DiscoverSlots, ListIsOfVisibleGpus) {
  EXPECT_THAT(*Discover({.slots = "1", .cuda_visible_devices = "2,0", .cuda_device_order = "PCI_BUS_ID"}),
              ElementsAre("GPU-aaaa-1"));
  EXPECT_THAT(*Discover({.slots = "GPU-c, 0"}), ElementsAre("GPU-cccc-3", "GPU-aaaa-1"));
  EXPECT_THAT(*Discover({.slots = "MIG-2"}, OnePartitioned()), ElementsAre("MIG-2222"));
}

TEST(DiscoverSlots, ErrorsNameTheEntryAndWhatThereIs) {
  EXPECT_THAT(Error({.slots = "3"}), HasSubstr("no GPU \"3\"; visible here: 0 = GPU-aaaa-1"));
  EXPECT_THAT(Error({.slots = "GPU-a"}), HasSubstr("several GPUs match \"GPU-a\""));
  EXPECT_THAT(Error({.slots = "gpus"}), HasSubstr("\"gpus\" is no slot"));
  EXPECT_THAT(Error({.slots = "0,0"}), HasSubstr("GPU-aaaa-1 is named twice"));
  EXPECT_THAT(Error({.slots = ""}), HasSubstr("is no slot"));
}

TEST(ProcessorName, IsTheModelName) {
  EXPECT_EQ(ProcessorName("processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags: x\n"), "AMD EPYC 7B13");
  EXPECT_EQ(ProcessorName("Hardware: something\n"), "CPU");
  EXPECT_EQ(ProcessorName(""), "CPU");
}

}  // namespace
}  // namespace attnfleet::worker
