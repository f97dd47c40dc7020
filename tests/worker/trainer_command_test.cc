#include "worker/trainer_command.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "support.h"

namespace attnfleet::worker {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;

const TrainerProgram kProgram{"/opt/attnfleet-trainer", "/opt/torch", 42, ""};

TEST(TrainerCommand, SaysEverythingAboutARun) {
  const auto command = MakeRunCommand(kProgram, MakeStart(1, 1, "cpu0", "sdpa"), CpuSlot("cpu0"), DoubleCapabilities());
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_THAT(
      command->argv,
      ElementsAre("/opt/attnfleet-trainer", "--torch=/opt/torch", "--parent-pid=42", "--backend=sdpa", "--batch=4",
                  "--sequence-length=64", "--model=tiny", "--device=cpu", "--warmup=5", "--steps=40", "--labels=10",
                  "--relative-bias=true", "--spatial-bias=false", "--hidden-dropout=0.10000000000000001",
                  "--attention-dropout=0", "--precision=auto", "--optimizer=adamw",
                  "--learning-rate=1.0000000000000001e-05", "--data-loader-threads=2", "--seed=7", "--boxes=random"));
  EXPECT_THAT(command->environment, ElementsAre("ATTNFLEET_REQUEST_ID="));
}

TEST(TrainerCommand, GpuIsChosenByUuid) {
  v1::Slot slot;
  slot.set_id("GPU-1234");
  slot.set_device_kind(v1::DEVICE_KIND_CUDA);
  const auto command = MakeRunCommand(kProgram, MakeStart(1, 1, "GPU-1234", "eager"), slot, DoubleCapabilities());
  ASSERT_TRUE(command.ok());
  EXPECT_THAT(command->argv, Contains("--device=cuda"));
  EXPECT_THAT(command->environment,
              ElementsAre("ATTNFLEET_REQUEST_ID=", "CUDA_VISIBLE_DEVICES=GPU-1234", "CUDA_DEVICE_ORDER=PCI_BUS_ID"));
}

TEST(TrainerCommand, TorchIsLeftToTheTrainerIfNotKnown) {
  EXPECT_THAT(MakeProbeCommand({"trainer", "", 42, ""}).argv,
              ElementsAre("trainer", "--parent-pid=42", "--list-backends", "--json"));
}

TEST(TrainerCommand, FilesAreThoseOfTheWorkersFolder) {
  TrainerProgram program = kProgram;
  program.files = testing::TempDir() + "files";
  std::filesystem::create_directories(program.files + "/folder");
  std::ofstream(program.files + "/train.jsonl") << "{}";
  std::ofstream(program.files + "/base.safetensors") << "";
  const auto make = [&](const std::string& data, const std::string& weights) {
    v1::StartRun start = MakeStart(1, 1, "cpu0", "sdpa");
    start.mutable_training()->set_data_file(data);
    start.mutable_training()->set_weights_file(weights);
    return MakeRunCommand(program, start, CpuSlot("cpu0"), DoubleCapabilities());
  };
  const auto both = make("train.jsonl", "base.safetensors");
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_THAT(both->argv, IsSupersetOf({"--data=" + program.files + "/train.jsonl",
                                        "--weights=" + program.files + "/base.safetensors"}));
  const auto refused = [&](const std::string& data, const std::string& weights) {
    return std::string(make(data, weights).status().message());
  };
  EXPECT_EQ(refused("dev.jsonl", ""),
            "training.data_file: there is no file \"dev.jsonl\" in this worker's " + program.files);
  EXPECT_THAT(refused("folder", ""), HasSubstr("there is no file \"folder\""));
  std::filesystem::remove(program.files + "/link.jsonl");
  std::filesystem::create_symlink("train.jsonl", program.files + "/link.jsonl");
  EXPECT_EQ(refused("link.jsonl", ""), "training.data_file: \"link.jsonl\" in this worker's " + program.files +
                                           " is a symbolic link; put the file itself there");
  EXPECT_THAT(refused("../files/train.jsonl", ""), HasSubstr("is no plain file name"));
  EXPECT_THAT(refused("..", ""), HasSubstr("is no plain file name"));
  EXPECT_THAT(refused("", "/etc/passwd"), HasSubstr("training.weights_file: \"/etc/passwd\" is no plain file name"));
  program.files = "";
  EXPECT_THAT(refused("train.jsonl", ""), HasSubstr("this worker has no files; start it with --files=DIR"));
}

TEST(TrainerCommand, RefusesWhatTheTrainerDoesNotHave) {
  const auto refused = [](const v1::StartRun& start) {
    return std::string(MakeRunCommand(kProgram, start, CpuSlot("cpu0"), DoubleCapabilities()).status().message());
  };
  EXPECT_THAT(refused(MakeStart(1, 1, "cpu0", "flsh2")), HasSubstr("did you mean \"flash2\""));
  EXPECT_THAT(refused(MakeStart(1, 1, "cpu0", "--torch=/evil")), HasSubstr("unknown backend"));
  v1::StartRun start = MakeStart(1, 1, "cpu0", "eager");
  start.mutable_training()->set_optimizer(static_cast<v1::Optimizer>(99));
  EXPECT_THAT(refused(start), HasSubstr("training.optimizer: this worker does not know value 99"));
  start = MakeStart(1, 1, "cpu0", "eager");
  start.mutable_training()->clear_precision();
  EXPECT_THAT(refused(start), HasSubstr("training.precision"));
  start = MakeStart(1, 1, "cpu0", "eager");
  start.mutable_shape()->set_batch(0);
  EXPECT_THAT(refused(start), HasSubstr("shape"));
}

TEST(TrainerCommand, CarriesTheRequestIdInItsEnvironmentUnlessItIsNone) {
  v1::StartRun start = MakeStart(1, 1, "cpu0", "sdpa");
  start.set_request_id("ci:42");
  EXPECT_THAT(MakeRunCommand(kProgram, start, CpuSlot("cpu0"), DoubleCapabilities())->environment,
              ElementsAre("ATTNFLEET_REQUEST_ID=ci:42"));
  start.set_request_id("not \n one");
  EXPECT_THAT(MakeRunCommand(kProgram, start, CpuSlot("cpu0"), DoubleCapabilities())->environment,
              ElementsAre("ATTNFLEET_REQUEST_ID="));
}

}  // namespace
}  // namespace attnfleet::worker
