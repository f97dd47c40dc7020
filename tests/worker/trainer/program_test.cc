// The programs themselves: the launcher's messages and exit codes, and real runs of the tiny model on the CPU.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "proto/support/process.h"
#include "worker/trainer/exit_code.h"

namespace attnfleet::trainer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class Program : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "trainer-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }

  void TearDown() override { fs::remove_all(folder_); }

  // Starts `program` with its standard output and error in files. `environment` over this process's own, without
  // ATTNFLEET_TORCH.
  pid_t Start(const std::string& program, std::vector<std::string> arguments, std::vector<std::string> environment = {},
              const std::string& output = "") {
    arguments.insert(arguments.begin(), program);
    environment.push_back("ATTNFLEET_TORCH=" + torch_);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
    const int out = open(output.empty() ? (folder_ / "out").c_str() : output.c_str(), flags, 0600);
    const int err = open((folder_ / "err").c_str(), flags, 0600);
    const absl::StatusOr<pid_t> child =
        Spawn(arguments, {.output = out, .error = err}, /*own_group=*/false, environment);
    close(out);
    close(err);
    return child.value();
  }

  int Wait(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  int Run(const std::string& program, std::vector<std::string> arguments, std::vector<std::string> environment = {},
          const std::string& output = "") {
    return Wait(Start(program, std::move(arguments), std::move(environment), output));
  }

  std::string Read(const char* name) const {
    std::ifstream stream(folder_ / name);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  std::vector<json> Events() const {
    std::vector<json> events;
    std::ifstream stream(folder_ / "out");
    for (std::string line; std::getline(stream, line);) events.push_back(json::parse(line));
    return events;
  }

  // A folder that looks like LibTorch of some version.
  std::string FakeTorch(const std::string& version) {
    const fs::path torch = folder_ / "fake" / "torch";
    fs::create_directories(torch / "lib");
    std::ofstream(torch / "lib/libtorch_cpu.so").put('\n');
    std::ofstream(torch / "version.py") << "__version__ = '" << version << "'\n";
    return torch.string();
  }

  // The launcher where no build tree tells it where LibTorch is.
  std::string InstalledLauncher() {
    const fs::path folder = folder_ / "installed";
    fs::create_directories(folder / "lib");
    fs::copy_file(ATTNFLEET_TRAINER, folder / "attnfleet-trainer");
    fs::create_symlink(fs::path(ATTNFLEET_TRAINER).parent_path() / "attnfleet-trainer-libtorch",
                       folder / "lib/attnfleet-trainer-libtorch");
    return (folder / "attnfleet-trainer").string();
  }

  // A python3 that runs `script`.
  std::string PathWithPython(const std::string& script) {
    const fs::path folder = folder_ / "bin";
    fs::create_directories(folder);
    std::ofstream(folder / "python3") << "#!/bin/sh\n" << script << "\n";
    fs::permissions(folder / "python3", fs::perms::owner_all);
    return "PATH=" + folder.string();
  }

  fs::path folder_;
  std::string torch_;  // of ATTNFLEET_TORCH; empty counts as unset
};

const std::vector<std::string> kTiny = {"--model=tiny", "--batch=2", "--sequence-length=32",
                                        "--device=cpu", "--steps=3", "--warmup=1"};

std::vector<std::string> Tiny(std::vector<std::string> more) {
  more.insert(more.begin(), kTiny.begin(), kTiny.end());
  return more;
}

TEST_F(Program, RunsEveryBackendFromStartedToResult) {
  for (const char* backend : {"eager", "sdpa"}) {
    ASSERT_EQ(Run(ATTNFLEET_TRAINER, Tiny({std::string("--backend=") + backend})), kExitResult) << Read("err");
    const std::vector<json> events = Events();
    ASSERT_GE(events.size(), 3u);
    EXPECT_TRUE(events.front().contains("started"));
    EXPECT_GT(events.front()["started"]["parameter_count"], 500'000);
    const json& result = events.back()["result"];
    EXPECT_EQ(result["outcome"], "OUTCOME_MEASURED");
    EXPECT_EQ(result["measurement"]["step_seconds"].size(), 3u);
    EXPECT_EQ(result["environment"]["device_kind"], "DEVICE_KIND_CPU");
    EXPECT_EQ(std::count_if(events.begin(), events.end(), [](const json& e) { return e.contains("result"); }), 1);
    EXPECT_THAT(Read("err"), HasSubstr("LibTorch 2.11"));
  }
}

TEST_F(Program, BothBackendsHaveTheSameLossWithoutDropout) {
  std::vector<double> losses;
  for (const char* backend : {"--backend=eager", "--backend=sdpa"}) {
    ASSERT_EQ(Run(ATTNFLEET_TRAINER, Tiny({backend, "--hidden-dropout=0", "--attention-dropout=0"})), kExitResult);
    losses.push_back(Events().back()["result"]["measurement"]["last_loss"]);
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-5);
}

TEST_F(Program, SigtermEndsWithACancelledResult) {
  const pid_t child = Start(ATTNFLEET_TRAINER, Tiny({"--steps=1000000"}));
  for (int i = 0; i < 600 && Read("out").find("PHASE_TIMED") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  kill(child, SIGTERM);
  EXPECT_EQ(Wait(child), kExitResult);
  EXPECT_EQ(Events().back()["result"]["outcome"], "OUTCOME_CANCELLED");
}

TEST_F(Program, FullDiskIsSaidAndEndsIt) {
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, kTiny, {}, "/dev/full"), kExitFailed);
  EXPECT_THAT(Read("err"), HasSubstr("cannot write to standard output"));
}

TEST_F(Program, VerifiesACaseAndSaysHowFarOffItIs) {
  const std::string golden = ATTNFLEET_GOLDEN "/image.safetensors";
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, {"--verify=" + golden, "--backend=eager"}), kExitResult) << Read("err");
  EXPECT_THAT(Read("out"), AllOf(HasSubstr("with an image"), HasSubstr("gradients"), HasSubstr("\nwithin the bound")));

  // Another loss.
  const std::string broken = (folder_ / "broken.safetensors").string();
  fs::copy_file(golden, broken);
  std::fstream stream(broken, std::ios::in | std::ios::out | std::ios::binary);
  uint64_t header_bytes = 0;
  stream.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes);
  std::string header(header_bytes, ' ');
  stream.read(header.data(), static_cast<std::streamsize>(header_bytes));
  const int64_t offset = json::parse(header)["loss"]["data_offsets"][0];
  stream.seekp(static_cast<std::streamoff>(sizeof header_bytes + header_bytes) + offset);
  const float wrong_loss = 1;
  stream.write(reinterpret_cast<const char*>(&wrong_loss), sizeof wrong_loss);
  stream.close();
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, {"--verify=" + broken}), kExitFailed);
  EXPECT_THAT(Read("out"), HasSubstr("NOT within"));

  fs::resize_file(broken, fs::file_size(broken) / 2);
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, {"--verify=" + broken}), kExitUsage);
  EXPECT_THAT(Read("err"), HasSubstr("tensors reach past its end"));
  EXPECT_EQ(Read("out"), "");
}

TEST_F(Program, SavesWeightsAndBeginsWithThemAgain) {
  const std::string path = (folder_ / "model.safetensors").string();
  const std::vector<std::string> flags = {"--image", "--train-bias-tables", "--hidden-dropout=0",
                                          "--attention-dropout=0"};
  const auto first_loss = [&](std::vector<std::string> more) {
    more.insert(more.end(), flags.begin(), flags.end());
    EXPECT_EQ(Run(ATTNFLEET_TRAINER, Tiny(std::move(more))), kExitResult) << Read("err");
    return Events().back()["result"]["measurement"]["first_loss"].get<double>();
  };
  const double random = first_loss({"--save=" + path, "--learning-rate=0.01", "--check"});
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 3);  // out, err and the file
  EXPECT_EQ(first_loss({}), random);
  // The same batch, but the weights of four steps later, not those of the check.
  EXPECT_NE(first_loss({"--weights=" + path}), random);

  EXPECT_EQ(Run(ATTNFLEET_TRAINER, Tiny({"--weights=" + path, "--labels=4", "--noimage"})), kExitFailed);
  EXPECT_THAT(Read("err"), AllOf(HasSubstr("--weights: "), HasSubstr("classifier.")));
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, Tiny({"--save=/nonexistent/model"})), kExitFailed);
  EXPECT_THAT(Read("err"), HasSubstr("--save: nothing can be written to /nonexistent/"));
}

TEST_F(Program, UnknownBackendIsAUsageError) {
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, {"--backend=egaer"}), kExitUsage);
  EXPECT_THAT(Read("err"), AllOf(HasSubstr("did you mean \"eager\""), HasSubstr("available: eager, ")));
}

TEST_F(Program, ListsBackendsAsJson) {
  ASSERT_EQ(Run(ATTNFLEET_TRAINER, {"--list-backends", "--json"}), kExitResult) << Read("err");
  const json capabilities = json::parse(Read("out"));
  EXPECT_EQ(capabilities["backends"][0]["name"], "eager");
  EXPECT_THAT(capabilities["libtorch_version"].get<std::string>(), HasSubstr("2.11"));
  EXPECT_NE(capabilities["libtorch_directory"], "");
  EXPECT_NE(capabilities["cuda_module"].get<bool>(), !capabilities["cuda_module_error"].get<std::string>().empty());
}

TEST_F(Program, DiesWhenItsParentIsGoneAlready) {
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, {"--parent-pid=1"}), getpid() == 1 ? kExitResult : kExitFailed);
  EXPECT_THAT(Read("err"), HasSubstr("parent process 1 is gone"));
}

// What follows needs no LibTorch: the launcher alone.

TEST_F(Program, HelpAndFlagErrorsNeedNoLibTorch) {
  const std::string launcher = InstalledLauncher();
  torch_ = "/nonexistent";
  EXPECT_EQ(Run(launcher, {"--help"}), kExitResult);
  EXPECT_THAT(Read("out"), HasSubstr("--sequence-length"));
  EXPECT_EQ(Run(launcher, {"--batch=0"}), kExitUsage);
  EXPECT_THAT(Read("err"), HasSubstr("--batch: 0"));
}

TEST_F(Program, WrongVersionNamesFolderAndBothVersions) {
  torch_ = FakeTorch("2.9.1+cu128");
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, kTiny), kExitNoTorch);
  EXPECT_THAT(Read("err"),
              AllOf(HasSubstr(torch_), HasSubstr("2.9.1"), HasSubstr("2.11"), HasSubstr("ATTNFLEET_TORCH")));
}

TEST_F(Program, VersionThatOnlyBeginsAlikeIsWrong) {
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, {"--torch=" + FakeTorch("2.110.0")}), kExitNoTorch);
}

TEST_F(Program, FlagGoesOverTheEnvironment) {
  torch_ = FakeTorch("2.9.1");
  EXPECT_EQ(Run(ATTNFLEET_TRAINER, {"--torch=/nonexistent"}), kExitNoTorch);
  EXPECT_THAT(Read("err"), AllOf(HasSubstr("/nonexistent"), HasSubstr("--torch")));
}

TEST_F(Program, AsksPythonLast) {
  const std::string launcher = InstalledLauncher();
  const std::string torch = FakeTorch("2.10.0");
  EXPECT_EQ(Run(launcher, {}, {PathWithPython("echo " + torch)}), kExitNoTorch);
  EXPECT_THAT(Read("err"), AllOf(HasSubstr("python3"), HasSubstr("2.10.0")));
}

TEST_F(Program, NoLibTorchAnywhereSaysWhatWasTried) {
  const std::string launcher = InstalledLauncher();
  EXPECT_EQ(Run(launcher, {}, {PathWithPython("echo")}), kExitNoTorch);
  EXPECT_THAT(Read("err"), AllOf(HasSubstr("has no torch"), HasSubstr("--torch"), HasSubstr("ATTNFLEET_TORCH")));
  EXPECT_EQ(Run(launcher, {}, {PathWithPython("exit 7")}), kExitNoTorch);
  EXPECT_THAT(Read("err"), HasSubstr("failed to look for torch"));
  EXPECT_EQ(Run(launcher, {}, {"PATH=/nonexistent"}), kExitNoTorch);
  EXPECT_THAT(Read("err"), HasSubstr("there is no python3"));
}

}  // namespace
}  // namespace attnfleet::trainer
