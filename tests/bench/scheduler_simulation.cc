// The scheduler in virtual time at any size (tests/server/fleet_simulation.h), and what it costs:
//   scheduler_simulation --seed=N [--workers=N --jobs=N --steps=N]    replay or explore; exits 1 at what is wrong
//   scheduler_simulation --cost [--workers=N --steps=N]               ns per event at 1e3 to 1e6 queued jobs
//   scheduler_simulation --memory [--jobs=N]                          bytes per queued job

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "fleet_fixture.h"
#include "fleet_simulation.h"

ABSL_FLAG(uint32_t, seed, 1, "of the random numbers");
ABSL_FLAG(int, workers, 5000, "simulated workers, of one to three slots");
ABSL_FLAG(uint64_t, jobs, 1'000'000, "jobs that are submitted first");
ABSL_FLAG(int, steps, 200'000, "random steps");
ABSL_FLAG(bool, cost, false, "measure the cost of an event at 1e3, 1e4, 1e5 and 1e6 queued jobs");
ABSL_FLAG(bool, uniform, false, "with --cost: benchmarks that differ in their submitters alone");
ABSL_FLAG(bool, memory, false, "measure the memory of a queued job");

namespace attnfleet::server {
namespace {

double Seconds(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Resident now, in bytes.
uint64_t Resident() {
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  file >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

int Simulate() {
  FleetSimulation::Options options;
  options.seed = absl::GetFlag(FLAGS_seed);
  options.workers = absl::GetFlag(FLAGS_workers);
  options.jobs = absl::GetFlag(FLAGS_jobs);
  options.restart_one_in = options.jobs > options.check_all_up_to ? 50'000 : 100;
  FleetSimulation simulation(options);
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = simulation.Run(absl::GetFlag(FLAGS_steps));
  absl::PrintF("%d workers, %d jobs, %d steps, seed %d: %s\n", options.workers, simulation.jobs(),
               absl::GetFlag(FLAGS_steps), options.seed, status.ok() ? "nothing wrong" : std::string(status.message()));
  absl::PrintF("%.1f s; %d runs ended, %d wait, %d are on %d slots of %d connected workers\n", Seconds(start),
               simulation.runs_counted(), simulation.scheduler().counts().queued(),
               simulation.scheduler().counts().active(), simulation.scheduler().counts().slots,
               simulation.scheduler().counts().workers_connected);
  for (const auto& [event, count] : simulation.events()) absl::PrintF("  %s: %d\n", event, count);
  return status.ok() ? 0 : 1;
}

void PrintCosts(uint64_t queued, const std::string& kind, std::vector<uint32_t> costs) {
  std::sort(costs.begin(), costs.end());
  const double mean = std::accumulate(costs.begin(), costs.end(), 0.0) / static_cast<double>(costs.size());
  absl::PrintF("%9d %-12s %8d %9.0f %9d %9d %9.0f\n", queued, kind, costs.size(), mean, costs[costs.size() / 2],
               costs[costs.size() * 99 / 100], costs.back() / 1e3);
}

int MeasureCost() {
  absl::PrintF("%9s %-12s %8s %9s %9s %9s %9s\n", "queued", "event", "events", "mean ns", "p50 ns", "p99 ns", "max us");
  for (const uint64_t queued : {1'000u, 10'000u, 100'000u, 1'000'000u}) {
    FleetSimulation::Options options;
    options.seed = absl::GetFlag(FLAGS_seed);
    options.workers = absl::GetFlag(FLAGS_workers);
    options.jobs = queued;
    options.keep_queued = queued;
    options.submit_one_in = 0;
    options.restart_one_in = 0;
    options.checks = false;
    options.uniform = absl::GetFlag(FLAGS_uniform);
    options.uneven = false;
    FleetSimulation simulation(options);
    // The fleet fills up first.
    if (const absl::Status status = simulation.Run(20 * options.workers); !status.ok()) return 1;
    simulation.TakeCosts();
    if (const absl::Status status = simulation.Run(absl::GetFlag(FLAGS_steps)); !status.ok()) return 1;
    std::vector<uint32_t> all;
    for (const auto& [kind, costs] : simulation.TakeCosts()) {
      PrintCosts(simulation.scheduler().counts().queued(), kind, costs);
      all.insert(all.end(), costs.begin(), costs.end());
    }
    PrintCosts(simulation.scheduler().counts().queued(), "all", std::move(all));
  }
  return 0;
}

int MeasureMemory() {
  const uint64_t jobs = absl::GetFlag(FLAGS_jobs);
  absl::PrintF("%18s %9s %14s %14s\n", "jobs per benchmark", "jobs", "bytes per job", "submit us/job");
  for (const int shapes : {100, 10, 1}) {
    malloc_trim(0);
    const uint64_t before = Resident();
    Scheduler scheduler(15'000);
    v1::BenchmarkSpec spec = MakeSpec({"eager"}, shapes, 3);
    const auto start = std::chrono::steady_clock::now();
    for (uint64_t done = 0; done < jobs; done += static_cast<uint64_t>(shapes)) {
      spec.set_submitter(absl::StrCat("user", done % 16, "@example"));
      Effects effects;
      scheduler.Submit(spec, 1'000, effects);
    }
    const double seconds = Seconds(start);
    absl::PrintF("%18d %9d %14.0f %14.2f\n", shapes, jobs,
                 static_cast<double>(Resident() - before) / static_cast<double>(jobs),
                 seconds * 1e6 / static_cast<double>(jobs));
  }
  return 0;
}

}  // namespace
}  // namespace attnfleet::server

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_memory)) return attnfleet::server::MeasureMemory();
  return absl::GetFlag(FLAGS_cost) ? attnfleet::server::MeasureCost() : attnfleet::server::Simulate();
}
