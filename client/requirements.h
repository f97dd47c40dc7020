#ifndef ATTNFLEET_CLIENT_REQUIREMENTS_H_
#define ATTNFLEET_CLIENT_REQUIREMENTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "attnfleet/v1/service.pb.h"

namespace attnfleet::client {

// A private fleet has one worker: what it does not offer never comes. INVALID_ARGUMENT names the field and what there
// is. Pure.
absl::Status CheckRequirements(const v1::SlotRequirements& requirements, const v1::ListWorkersResponse& fleet);

// INVALID_ARGUMENT if all slots that fit are CPUs and the step cannot be computed with the precision that `auto` is
// there, which would else be found out run by run. Pure.
absl::Status CheckStep(const v1::BenchmarkSpec& spec, const v1::ListWorkersResponse& fleet);

// With placement every, which takes the slots that are to be had when it starts: "w3 (drained)" for each worker that is
// not, and has a slot that fits or has not told what it has since the server started. Nobody while no slot is to be
// had, for then it waits for one. Pure.
std::vector<std::string> LeftOut(const v1::SlotRequirements& requirements, const v1::ListWorkersResponse& fleet);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_REQUIREMENTS_H_
