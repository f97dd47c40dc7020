#include "client/commands/benchmark_flags.h"

#include <pwd.h>
#include <unistd.h>

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/commands/flags.h"
#include "client/output.h"
#include "client/requirements.h"
#include "client/text.h"
#include "proto/counted.h"
#include "proto/name_list.h"
#include "proto/request_id.h"
#include "proto/spec.h"
#include "proto/spec_text.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

constexpr size_t kMostLeftOut = 6;  // workers that are named

// "user@host"
std::string Submitter() {
  const passwd* user = getpwuid(getuid());
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return absl::StrCat(user != nullptr ? std::string(user->pw_name) : absl::StrCat(getuid()), "@", host.data());
}

absl::StatusOr<int> ShowJobs(const v1::BenchmarkSpec& spec, const OutputFlags& output) {
  v1::Benchmark benchmark;
  *benchmark.mutable_spec() = spec;
  Grid grid;
  grid.columns = {{"Job", true}, {"Shape"}, {"Backend"}, {"Runs", true}};
  for (v1::Job& job : ExpandJobs(0, spec)) {
    grid.rows.push_back(
        {{absl::StrCat(job.index())}, {FormatShape(job.shape())}, {job.backend()}, {absl::StrCat(job.runs_size())}});
    benchmark.set_runs_total(benchmark.runs_total() + static_cast<uint32_t>(job.runs_size()));
    *benchmark.add_jobs() = std::move(job);
  }
  absl::Status status;
  if (output.format == Format::kTable) {
    status = WriteOutput(output.path, absl::StrCat(GridText(grid, false), "\n", Counted(grid.rows.size(), "job"), ", ",
                                                   Counted(benchmark.runs_total(), "run"),
                                                   ". The spec, as --spec takes it:\n\n", FormatSpecText(spec)));
  } else {
    status = ShowList(grid, benchmark, output);
  }
  if (!status.ok()) return status;
  return kExitOk;
}

}  // namespace

std::vector<Flag> BenchmarkFlags::Flags() {
  return Join({spec.Flags(),
               {{"dry-run", "", "print the jobs and the complete spec, and start nothing", SetBool(dry_run)},
                {"request-id", "ID",
                 "name of this submit in all logs; again with the same one is the same benchmark; default random",
                 [this](const std::string& text) {
                   if (!IsRequestId(text) || text.empty()) {
                     return absl::InvalidArgumentError("give 1 to 64 letters, digits and -._:");
                   }
                   request_id = text;
                   return absl::OkStatus();
                 }}}});
}

absl::StatusOr<v1::BenchmarkSpec> BenchmarkFlags::Read() const {
  const absl::StatusOr<std::optional<std::string>> text = ReadSpecFile(spec.file());
  if (!text.ok()) return text.status();
  absl::StatusOr<v1::BenchmarkSpec> result = spec.Spec(*text, {});
  if (result.ok() && result->submitter().empty()) result->set_submitter(Submitter());
  return result;
}

absl::StatusOr<int> BenchmarkFlags::DryRun(const v1::BenchmarkSpec& checked, const ConnectionFlags& connection,
                                           const OutputFlags& output, StopSignals& signals) const {
  if (const absl::Status status = CheckOutput(output.path); !status.ok()) return status;
  if (connection.local()) {
    PrintNote("nothing is started, so whether this machine has these backends is not known");
    return ShowJobs(checked, output);
  }
  const auto opened = Connection::Open(connection, "attnfleet --dry-run", signals);
  if (!opened.ok()) return opened.status();
  if (const absl::Status status = CheckBackends((*opened)->server(), checked); !status.ok()) return status;
  return ShowJobs(checked, output);
}

absl::Status BenchmarkFlags::CheckBackends(Server& server, const v1::BenchmarkSpec& checked) const {
  const absl::StatusOr<v1::ListBackendsResponse> backends = server.ListBackends();
  if (!backends.ok()) return backends.status();
  if (backends->backends().empty()) {
    PrintNote(absl::StrCat("no worker is connected yet; the benchmark waits until one offers ",
                           absl::StrJoin(checked.backends(), ", ")));
  }
  return CheckBackends(*backends, checked);
}

absl::Status BenchmarkFlags::WarnOfFleet(Server& server, const v1::BenchmarkSpec& checked) const {
  const bool every = checked.placement() == v1::PLACEMENT_EVERY;
  if (!every && CheckStepOnCpu(checked.training()).ok()) return absl::OkStatus();
  const absl::StatusOr<v1::ListWorkersResponse> workers = server.ListWorkers();
  if (!workers.ok()) return absl::IsCancelled(workers.status()) ? workers.status() : absl::OkStatus();
  if (const absl::Status status = CheckStep(checked, *workers); !status.ok()) {
    PrintNote(absl::StrCat("warning: every slot that fits is a CPU: ", std::string(spec.NameFlag(status).message())));
  }
  if (!every) return absl::OkStatus();
  const std::vector<std::string> left_out = LeftOut(checked.requirements(), *workers);
  if (!left_out.empty()) {
    PrintNote(
        absl::StrCat("warning: placement every takes the slots that are to be had when it starts: as things are, "
                     "none of ",
                     Printable(NameList(left_out, kMostLeftOut))));
  }
  return absl::OkStatus();
}

absl::Status BenchmarkFlags::CheckBackends(const v1::ListBackendsResponse& known,
                                           const v1::BenchmarkSpec& checked) const {
  std::vector<std::string> names;
  for (const v1::Backend& backend : known.backends()) names.push_back(backend.name());
  return spec.NameFlag(ValidateSpec(checked, names));
}

}  // namespace attnfleet::client
