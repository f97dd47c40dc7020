#include "client/estimate.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace attnfleet::client {
namespace {

// The mean of what was added.
struct Mean {
  void Add(double value) {
    sum += value;
    ++count;
  }
  double value() const { return sum / count; }

  double sum = 0;
  int count = 0;
};

double Tokens(const v1::Job& job) {
  return static_cast<double>(job.shape().batch()) * static_cast<double>(job.shape().sequence_length());
}

// How long a run of each job takes, as far as anything is known.
class RunSeconds {
 public:
  void Add(const v1::Job& job, double seconds) {
    of_job_[job.index()].Add(seconds);
    of_group_[job.group()].Add(seconds);
    per_token_.Add(seconds / std::max(Tokens(job), 1.0));
  }

  bool empty() const { return per_token_.count == 0; }

  // Of the same job if one is known, else of another backend at the same shape, else by the work in it.
  double For(const v1::Job& job) const {
    if (const auto found = of_job_.find(job.index()); found != of_job_.end()) return found->second.value();
    if (const auto found = of_group_.find(job.group()); found != of_group_.end()) return found->second.value();
    return per_token_.value() * Tokens(job);
  }

 private:
  std::map<uint32_t, Mean> of_job_;
  std::map<uint32_t, Mean> of_group_;
  Mean per_token_;
};

bool IsActive(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_ASSIGNED || run.state() == v1::RUN_STATE_RUNNING;
}

}  // namespace

std::optional<double> EstimateSecondsLeft(const v1::Benchmark& benchmark) {
  RunSeconds seconds;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      const bool measured = run.result().outcome() == v1::OUTCOME_MEASURED;
      if (run.state() == v1::RUN_STATE_ENDED && measured && run.ended_unix_ms() > run.started_unix_ms()) {
        seconds.Add(job, static_cast<double>(run.ended_unix_ms() - run.started_unix_ms()) / 1e3);
      } else if (run.state() == v1::RUN_STATE_RUNNING && run.progress().remaining_seconds() > 0) {
        seconds.Add(job, run.progress().elapsed_seconds() + run.progress().remaining_seconds());
      }
    }
  }
  if (seconds.empty()) return std::nullopt;

  double total = 0;
  double longest = 0;
  std::set<std::pair<std::string, std::string>> slots;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      if (run.state() == v1::RUN_STATE_ENDED) continue;
      double left = seconds.For(job);
      if (IsActive(run)) {
        slots.emplace(run.worker(), run.slot());
        const v1::TrainerProgress& progress = run.progress();
        left = progress.remaining_seconds() > 0 ? progress.remaining_seconds()
                                                : std::max(0.0, left - progress.elapsed_seconds());
      }
      total += left;
      longest = std::max(longest, left);
    }
  }
  // The slots at work share what is left; no run is shared.
  const double parallel = slots.empty() ? 1.0 : static_cast<double>(slots.size());
  return std::max(longest, total / parallel);
}

}  // namespace attnfleet::client
