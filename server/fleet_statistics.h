#ifndef ATTNFLEET_SERVER_FLEET_STATISTICS_H_
#define ATTNFLEET_SERVER_FLEET_STATISTICS_H_

#include <vector>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// Fewer nodes cannot tell which of them is the odd one.
inline constexpr int kLeastNodes = 3;
// A robust z-score this low is slow. The usual bound for the score of Iglewicz and Hoaglin (1993).
inline constexpr double kSlowZScore = -3.5;

// Fills in what the nodes of a benchmark with PLACEMENT_EVERY say about each other, from the summaries of its jobs
// (Summarize comes first); others are left without. For each cell (device name, shape, backend) that at least
// kLeastNodes nodes measured, a node's score is
//   (it/s - median) / max(1.4826 x MAD, 0.5 % of the median)
// where the lower bound keeps nodes that agree to a hair from calling a hair's difference slow. A node's own score is
// the median over its cells, so that one bad cell does not make a slow node. A node whose every run of a cell was
// contaminated has not measured it. Pure.
void SummarizeFleet(v1::Benchmark& benchmark);

// The nodes that are slow; empty without a FleetSummary.
std::vector<v1::NodeSummary> SlowNodes(const v1::Benchmark& benchmark);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_FLEET_STATISTICS_H_
