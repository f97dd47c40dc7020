// The fleet in virtual time, see fleet_simulation.h. A failure prints the seed; tests/bench/scheduler_simulation
// --seed=N replays it, and runs the same at any size.

#include <gtest/gtest.h>

#include "fleet_simulation.h"

namespace attnfleet::server {
namespace {

class SchedulerSimulation : public testing::TestWithParam<uint32_t> {};

TEST_P(SchedulerSimulation, NothingIsLostCountedTwiceUnfairOrStuck) {
  FleetSimulation::Options options;
  options.seed = GetParam();
  options.workers = 4 + static_cast<int>(GetParam() % 5);
  FleetSimulation simulation(options);
  ASSERT_EQ(simulation.Run(500), absl::OkStatus());
  ASSERT_EQ(simulation.Drain(2'000), absl::OkStatus());
}

TEST_P(SchedulerSimulation, NothingWaitsInAClosedFleet) {
  FleetSimulation::Options options;
  options.seed = GetParam();
  options.workers = 4 + static_cast<int>(GetParam() % 5);
  options.closed = true;
  FleetSimulation simulation(options);
  ASSERT_EQ(simulation.Run(500), absl::OkStatus());
  ASSERT_EQ(simulation.Drain(2'000), absl::OkStatus());
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerSimulation, testing::Range(1u, 17u));

TEST(SchedulerSimulation, EveryKindOfEventStrikes) {
  FleetSimulation::Options options;
  options.workers = 8;
  options.check_all_up_to = 100;
  FleetSimulation simulation(options);
  ASSERT_EQ(simulation.Run(6'000), absl::OkStatus());
  for (const char* event : {"submit", "cancel", "pause", "resume", "drain", "undrain", "join", "gone", "restart",
                            "progress", "report", "handed back", "heartbeat", "stream broke", "worker died",
                            "lease ended", "message twice", "message of a broken stream", "quarantine"}) {
    EXPECT_TRUE(simulation.events().contains(event)) << event;
  }
  EXPECT_GT(simulation.runs_counted(), 100u);
}

TEST(SchedulerSimulation, AFleetOfHundredsKeepsItsOrder) {
  FleetSimulation::Options options;
  options.workers = 500;
  options.jobs = 20'000;
  options.restart_one_in = 2'000;
  options.check_all_every = 1'000;
  FleetSimulation simulation(options);
  ASSERT_EQ(simulation.Run(4'000), absl::OkStatus());
}

}  // namespace
}  // namespace attnfleet::server
