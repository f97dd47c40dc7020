#include "client/follow.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/progress.h"
#include "client/progress_display.h"
#include "client/terminal.h"
#include "client/watcher.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

constexpr absl::Duration kContactPatience = absl::Seconds(60);
constexpr absl::Duration kCancelPatience = absl::Seconds(10);  // for a cancelled benchmark to end
constexpr absl::Duration kSilenceToTell = absl::Seconds(2);
constexpr absl::Duration kAskAgain = absl::Seconds(5);
constexpr absl::Duration kExplainPatience = absl::Seconds(10);  // a server whose store fails takes some
constexpr int kTickMs = 100;

// Tells once when contact is lost for a while, and once when it is back.
class ContactNotes {
 public:
  void Update(const std::string& problem, ProgressDisplay& display) {
    if (problem.empty()) {
      if (told_) display.Note("there is news from the server again");
      lost_.reset();
      told_ = false;
      return;
    }
    if (!lost_.has_value()) lost_ = absl::Now();
    if (told_ || absl::Now() - *lost_ < kSilenceToTell) return;
    display.Note(absl::StrCat("no news from the server (", problem, "); trying again"));
    told_ = true;
  }

 private:
  std::optional<absl::Time> lost_;
  bool told_ = false;
};

// Why nothing runs, or nothing is heard of what runs: asked of the server once that has lasted a while, and now and
// then as long as it lasts.
class WaitReason {
 public:
  // `quiet`: nothing was heard for a while. CANCELLED if a stop signal came meanwhile.
  absl::Status Update(Server& server, const v1::Benchmark& benchmark, bool quiet, ProgressDisplay& display) {
    const bool active = AnyRunActive(benchmark);
    if (HasEnded(benchmark) || (active && !quiet)) {
      ask_at_.reset();
      display.Waits("");
      return absl::OkStatus();
    }
    const absl::Time now = absl::Now();
    if (!ask_at_.has_value()) ask_at_ = active ? now : now + kSilenceToTell;
    if (now < *ask_at_) return absl::OkStatus();
    const absl::StatusOr<v1::ExplainResponse> answer = server.Explain(benchmark.id(), kExplainPatience);
    ask_at_ = absl::Now() + kAskAgain;
    if (absl::IsCancelled(answer.status())) return answer.status();
    // Of what runs, only that is news: its other runs may well wait.
    if (answer.ok()) display.Waits(active && answer->stalled().empty() ? "" : WaitText(*answer));
    return absl::OkStatus();
  }

 private:
  std::optional<absl::Time> ask_at_;
};

void WaitForNews(StopSignals& signals, const Watcher& watcher) {
  std::array<pollfd, 2> waits{pollfd{signals.descriptor(), POLLIN, 0}, pollfd{watcher.descriptor(), POLLIN, 0}};
  poll(waits.data(), waits.size(), kTickMs);
}

}  // namespace

absl::StatusOr<FollowResult> Follow(Server& server, uint64_t id, const FollowOptions& options, StopSignals& signals) {
  FollowResult result;
  ProgressDisplay display(DescribeTerminal(STDERR_FILENO));
  const auto note = [&display](const std::string& text) { display.Note(text); };
  ContactNotes contact;
  WaitReason waits;
  v1::WatchRequest request;
  request.set_id(id);
  request.set_include_contaminated(options.include_contaminated);
  Watcher watcher(server.leader(), request, kContactPatience);
  absl::Time cancel_deadline = absl::InfiniteFuture();
  absl::Time last_update = absl::Now();
  for (;;) {
    WaitForNews(signals, watcher);
    const std::optional<absl::Status> end = watcher.End();  // before Take(), so that no update behind it is missed
    std::vector<Change> changes;
    for (const v1::WatchResponse& update : watcher.Take()) {
      last_update = absl::Now();
      for (Change& change : ApplyUpdate(result.benchmark, update)) changes.push_back(std::move(change));
    }
    if (result.benchmark.id() != 0) display.Update(result.benchmark, changes);
    if (end.has_value()) {
      if (!end->ok()) return *end;
      return result;
    }
    contact.Update(watcher.Disconnected(), display);
    absl::Status asked;
    if (result.benchmark.id() != 0 && watcher.Disconnected().empty()) {
      asked = waits.Update(server, result.benchmark, absl::Now() - last_update >= options.quiet, display);
    }
    if (options.fleet != nullptr) {
      if (const absl::Status status = options.fleet->Tend(note); !status.ok()) return status;
    }
    if (absl::Now() > cancel_deadline) return result;
    if (asked.ok() && signals.Wait(std::chrono::milliseconds(0)) == 0) continue;
    const bool again = result.interrupted;
    result.interrupted = true;
    if (again || !options.cancel_on_stop) return result;
    display.Note("stopping; once more to stop at once");
    cancel_deadline = absl::Now() + kCancelPatience;
    const absl::StatusOr<v1::Benchmark> cancelled = server.Cancel(id, "interrupted by its user");
    if (absl::IsCancelled(cancelled.status())) return result;
    if (!cancelled.ok()) {
      display.Note(absl::StrCat("cannot cancel benchmark ", id, ": ", std::string(cancelled.status().message())));
      return result;
    }
  }
}

}  // namespace attnfleet::client
