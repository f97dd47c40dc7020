#include "support.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "proto/support/state_dir.h"

namespace attnfleet::worker {

ScratchDirectory::ScratchDirectory() : path_((std::filesystem::temp_directory_path() / "attnfleet-XXXXXX").string()) {
  if (mkdtemp(path_.data()) == nullptr) std::abort();
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

ScopedEnvironment::ScopedEnvironment(const char* name, const std::string& value) : name_(name) {
  setenv(name, value.c_str(), 1);
}

ScopedEnvironment::~ScopedEnvironment() { unsetenv(name_); }

bool RunUntil(EventLoop& loop, const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  constexpr std::chrono::milliseconds kInterval{1};
  const auto deadline = EventLoop::Clock::now() + limit;
  bool holds = false;
  std::function<void()> check;
  EventLoop::Id timer = 0;
  check = [&] {
    holds = condition();
    if (holds || EventLoop::Clock::now() >= deadline) {
      loop.Quit();
    } else {
      timer = loop.RunAfter(kInterval, check);
    }
  };
  timer = loop.RunAfter(std::chrono::milliseconds(0), check);
  loop.Run();
  loop.CancelTimer(timer);
  return holds;
}

TrainerProgram DoubleProgram() { return {ATTNFLEET_TRAINER_DOUBLE, "", getpid(), ""}; }

v1::TrainerCapabilities DoubleCapabilities() {
  v1::TrainerCapabilities capabilities;
  for (const char* name : {"eager", "sdpa", "flash2"}) capabilities.add_backends()->set_name(name);
  return capabilities;
}

v1::Slot CpuSlot(const std::string& id) {
  v1::Slot slot;
  slot.set_id(id);
  slot.set_device_kind(v1::DEVICE_KIND_CPU);
  slot.set_device_name("a processor");
  return slot;
}

v1::StartRun MakeStart(uint32_t job_index, uint32_t attempt, const std::string& slot, const std::string& backend) {
  v1::StartRun start;
  start.mutable_run()->set_benchmark_id(1);
  start.mutable_run()->set_job_index(job_index);
  start.set_attempt(attempt);
  start.set_slot(slot);
  start.set_backend(backend);
  start.mutable_shape()->set_batch(4);
  start.mutable_shape()->set_sequence_length(64);
  start.set_timeout_seconds(300);
  v1::TrainingSettings& training = *start.mutable_training();
  training.set_warmup_steps(5);
  training.set_timed_steps(40);
  training.set_model_size(v1::MODEL_SIZE_TINY);
  training.set_num_labels(10);
  training.set_relative_attention_bias(true);
  training.set_spatial_attention_bias(false);
  training.set_hidden_dropout(0.1);
  training.set_attention_dropout(0);
  training.set_precision(v1::PRECISION_AUTO);
  training.set_optimizer(v1::OPTIMIZER_ADAMW);
  training.set_learning_rate(1e-5);
  training.set_data_loader_threads(2);
  training.set_seed(7);
  training.set_boxes(v1::BOX_LAYOUT_RANDOM);
  return start;
}

std::vector<std::string> ReadLines(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

bool IsRunning(pid_t pid) {
  const absl::StatusOr<std::string> stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  if (!stat.ok()) return false;
  const size_t name_end = stat->rfind(')');
  return name_end != std::string::npos && name_end + 2 < stat->size() && (*stat)[name_end + 2] != 'Z';
}

}  // namespace attnfleet::worker
