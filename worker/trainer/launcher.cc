// attnfleet-trainer: checks the flags, finds LibTorch, and becomes attnfleet-trainer-libtorch. It links no LibTorch, so
// that --help, a wrong flag and a missing or wrong LibTorch are plain messages and not the loader's.

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/support/process.h"
#include "worker/trainer/build_id.h"
#include "worker/trainer/config.h"
#include "worker/trainer/document_writer.h"
#include "worker/trainer/exit_code.h"
#include "worker/trainer/host_memory.h"
#include "worker/trainer/say.h"
#include "worker/trainer/torch_directory.h"

namespace attnfleet::trainer {
namespace {

int Fail(int code, const absl::Status& status) {
  Say(std::string(status.message()));
  return code;
}

// Installed it lies in lib/, in the build tree beside the launcher.
std::string FindProgram(const std::string& directory) {
  for (const char* folder : {"/lib/", "/"}) {
    const std::string path = absl::StrCat(directory, folder, "attnfleet-trainer-libtorch");
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return "";
}

int WriteData(const Config& config) {
  const absl::Status status = WriteDocuments(MakeSyntheticSpec(config), config.timed_steps, config.write_data);
  if (!status.ok())
    return Fail(kExitFailed,
                absl::Status(status.code(), absl::StrCat("--write-data: ", std::string(status.message()))));
  return kExitResult;
}

int Launch(int argc, char** argv) {
  const absl::StatusOr<Config> config = ParseCommandLine(argc, argv);
  if (!config.ok()) return Fail(kExitUsage, config.status());
  if (config->help) return std::fputs(UsageText().c_str(), stdout) >= 0 ? kExitResult : kExitFailed;
  if (config->version) {
    return std::printf("attnfleet-trainer " ATTNFLEET_VERSION " (%s)\n", BuildId()) >= 0 ? kExitResult : kExitFailed;
  }
  if (!config->write_data.empty()) return WriteData(*config);
  if (config->parent_pid != 0) {
    const absl::Status status = DieWithParent(config->parent_pid, SIGKILL);
    if (!status.ok()) return Fail(kExitFailed, status);
  }
  BeFirstToBeKilled();
  const absl::StatusOr<std::string> directory = ExecutableDirectory();
  if (!directory.ok()) return Fail(kExitFailed, directory.status());
  const std::string program = FindProgram(*directory);
  if (program.empty())
    return Fail(kExitFailed,
                absl::NotFoundError(absl::StrCat("attnfleet-trainer-libtorch is missing in ", *directory)));
  const absl::StatusOr<TorchDirectory> torch = FindTorch(config->torch, *directory);
  if (!torch.ok()) return Fail(kExitNoTorch, torch.status());
  Say(absl::StrCat("LibTorch ", torch->version, " in ", torch->path, " (from ", torch->source, ")"));

  const char* old = std::getenv("LD_LIBRARY_PATH");
  const std::string path = absl::StrCat(torch->path, "/lib", old == nullptr ? "" : ":", old == nullptr ? "" : old);
  setenv("LD_LIBRARY_PATH", path.c_str(), 1);
  setenv("ATTNFLEET_TORCH", torch->path.c_str(), 1);  // the program reports it
  argv[0] = const_cast<char*>(program.c_str());
  execv(program.c_str(), argv);
  return Fail(kExitFailed, absl::ErrnoToStatus(errno, absl::StrCat("cannot start ", program)));
}

}  // namespace
}  // namespace attnfleet::trainer

int main(int argc, char** argv) { return attnfleet::trainer::Launch(argc, argv); }
