#ifndef ATTNFLEET_PROTO_REASON_H_
#define ATTNFLEET_PROTO_REASON_H_

#include <string>

#include "attnfleet/v1/trainer.pb.h"

namespace attnfleet {

// `OOM: asked for 24.0 GB with 3.1 of 79.2 GB free (backward)`, or the result's reason, in one line.
std::string ReasonLine(const v1::RunResult& result);

// The outcome and why: "failed: signal 11", "OOM: asked for ...". `reason` is a ReasonLine.
std::string OutcomeLine(v1::Outcome outcome, const std::string& reason);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_REASON_H_
