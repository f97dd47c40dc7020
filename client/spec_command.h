#ifndef ATTNFLEET_CLIENT_SPEC_COMMAND_H_
#define ATTNFLEET_CLIENT_SPEC_COMMAND_H_

#include <string>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// The shortest `attnfleet run ...` that measures the same as a complete spec, and lets a run fail at the same limits:
// its preset, axes and whatever differs from the preset. What only says for whom and how urgent it was is left out.
// `where`: flags behind it, see ResultSource.
std::string SpecCommand(const v1::BenchmarkSpec& spec, const std::string& where = "");

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_SPEC_COMMAND_H_
