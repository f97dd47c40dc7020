#ifndef ATTNFLEET_CLIENT_CELL_NAME_H_
#define ATTNFLEET_CLIENT_CELL_NAME_H_

#include <string>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// "node7 GPU-7a": worker and slot.
std::string NodeName(const v1::Node& node);

// "sdpa 4x128"; with placement every, where each node has one: "sdpa 4x128 on node7 GPU-7a".
std::string CellName(const v1::Job& job);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_CELL_NAME_H_
