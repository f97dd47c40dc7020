#include "worker/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/spec.h"
#include "proto/support/log.h"
#include "proto/support/state_dir.h"

namespace attnfleet::worker {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".pb";
constexpr char kTemporarySuffix[] = ".tmp";
constexpr char kCorruptSuffix[] = ".corrupt";

// Like WriteFileAtomically, without the sync (see the class), and with no path for the kernel to walk.
absl::Status Write(int folder, const std::string& name, const std::string& contents) {
  const std::string temporary = name + kTemporarySuffix;
  const int descriptor = openat(folder, temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", temporary));
  absl::Status status = WriteAll(descriptor, contents, temporary);
  close(descriptor);
  if (status.ok() && renameat(folder, temporary.c_str(), folder, name.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("cannot replace ", name));
  }
  if (!status.ok()) unlinkat(folder, temporary.c_str(), 0);
  return status;
}

}  // namespace

Spool::Key Spool::KeyOf(const v1::RunKey& run, uint32_t attempt) {
  return {run.benchmark_id(), run.job_index(), run.repetition(), attempt};
}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& folder) {
  if (absl::Status status = PrepareStateDirectory(folder); !status.ok()) return status;
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", folder));
  std::unique_ptr<Spool> spool(new Spool(folder, descriptor));
  if (absl::Status status = spool->Load(); !status.ok()) return status;
  return spool;
}

Spool::Spool(std::string folder, int descriptor) : folder_(std::move(folder)), descriptor_(descriptor) {}

Spool::~Spool() { close(descriptor_); }

std::string Spool::NameOf(const Key& key) {
  const auto& [benchmark, job, repetition, attempt] = key;
  return absl::StrCat(benchmark, "-", job, "-", repetition, "-", attempt, kSuffix);
}

absl::Status Spool::Load() {
  std::error_code error;
  std::vector<std::string> paths;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
    paths.push_back(entry->path().string());
  }
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot list ", folder_));
  for (const std::string& path : paths) {
    if (absl::EndsWith(path, kTemporarySuffix)) unlink(path.c_str());  // its report was never sent
    if (!absl::EndsWith(path, kSuffix)) continue;
    const absl::StatusOr<std::string> contents = ReadFile(path);
    v1::RunReport report;
    const bool parsed = contents.ok() && report.ParseFromString(*contents);
    const Key key = KeyOf(report.run(), report.attempt());
    // The name is checked too: it tells a cut-off file that still parses, and which file to delete later.
    if (parsed && report.has_result() && fs::path(path).filename() == NameOf(key)) {
      reports_.emplace(key, std::move(report));
      continue;
    }
    const std::string aside = path + kCorruptSuffix;
    const bool moved = std::rename(path.c_str(), aside.c_str()) == 0;
    LogWarning(absl::StrCat("the unacknowledged result ", path, " is damaged; its run will be repeated",
                            moved ? absl::StrCat("; set aside as ", aside) : ""));
  }
  return absl::OkStatus();
}

void Spool::Add(const v1::RunReport& report) {
  const Key key = KeyOf(report.run(), report.attempt());
  const absl::Status status = Write(descriptor_, NameOf(key), report.SerializeAsString());
  if (!status.ok()) {
    LogWarning(absl::StrCat("the result of run ", FormatRunKey(report.run()),
                            " is kept in memory alone until the coordinator has it: ", folder_, ": ",
                            std::string(status.message())));
  }
  reports_.insert_or_assign(key, report);
}

void Spool::Remove(const v1::RunKey& run, uint32_t attempt) {
  const Key key = KeyOf(run, attempt);
  if (reports_.erase(key) > 0) unlinkat(descriptor_, NameOf(key).c_str(), 0);
}

}  // namespace attnfleet::worker
