#include "server/admin_commands.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "proto/counted.h"
#include "proto/suggest.h"
#include "proto/support/exit_code.h"
#include "server/store_backup.h"
#include "server/store_check.h"

namespace attnfleet::server {
namespace {

std::string Contents(uint64_t benchmarks, uint64_t runs, uint64_t settings) {
  return absl::StrCat(Counted(benchmarks, "benchmark"), ", ", Counted(runs, "run"), " given out, ",
                      Counted(settings, "setting"));
}

absl::StatusOr<int> Check(const StoreAccess& access) {
  absl::StatusOr<std::unique_ptr<JobStore>> store = access.read();
  if (!store.ok()) return store.status();
  const absl::StatusOr<StoreReport> report = CheckStore(**store);
  if (!report.ok()) return report.status();
  for (const std::string& problem : report->problems) std::printf("%s\n", problem.c_str());
  if (report->found > report->problems.size()) {
    std::printf("... and %s\n", Counted(report->found - report->problems.size(), "further problem").c_str());
  }
  const std::string verdict = report->found == 0 ? "consistent" : Counted(report->found, "problem");
  std::printf("%s: %s (%s)\n", (*store)->name().c_str(), verdict.c_str(),
              Contents(report->benchmarks, report->runs, report->settings).c_str());
  return report->found == 0 ? kExitOk : kExitFailed;
}

using Transfer = absl::StatusOr<v1::BackupEnd> (*)(JobStore& store, const std::string& path);

absl::StatusOr<int> Move(absl::StatusOr<std::unique_ptr<JobStore>> store, Transfer transfer, const char* done,
                         const std::string& path) {
  if (!store.ok()) return store.status();
  const absl::StatusOr<v1::BackupEnd> moved = transfer(**store, path);
  if (!moved.ok()) return moved.status();
  std::printf("%s %s: %s\n", done, path.c_str(),
              Contents(moved->benchmarks(), moved->runs(), moved->settings()).c_str());
  return kExitOk;
}

}  // namespace

absl::StatusOr<int> RunAdminCommand(const std::vector<std::string>& words, const StoreAccess& access) {
  const std::string& command = words.front();
  if (command != "check" && command != "backup" && command != "restore") {
    return absl::InvalidArgumentError(UnknownName("command", command, {"check", "backup", "restore"}));
  }
  const size_t wanted = command == "check" ? 1 : 2;
  if (words.size() != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(command, wanted == 1 ? ": takes no argument" : ": give one FILE"));
  }
  if (command == "check") return Check(access);
  if (command == "backup") return Move(access.read(), WriteBackup, "wrote", words[1]);
  return Move(access.write(), RestoreBackup, "restored", words[1]);
}

}  // namespace attnfleet::server
