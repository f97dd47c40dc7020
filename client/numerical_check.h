#ifndef ATTNFLEET_CLIENT_NUMERICAL_CHECK_H_
#define ATTNFLEET_CLIENT_NUMERICAL_CHECK_H_

#include <string>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// How a job's results differ from eager attention in fp64 by more than rounding in its precision explains:
// "numerical check failed: gradient of NAME off by 0.31 (bf16-mixed: at most 0.1)". "" if they do not, or if there was
// no check.
std::string NumericalCheckFailure(const v1::Job& job);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_NUMERICAL_CHECK_H_
