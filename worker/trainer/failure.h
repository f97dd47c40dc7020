#ifndef ATTNFLEET_WORKER_TRAINER_FAILURE_H_
#define ATTNFLEET_WORKER_TRAINER_FAILURE_H_

#include <string>

namespace attnfleet::trainer {

// What went wrong, whichever allocator or library threw.
struct Failure {
  bool out_of_memory = false;
  std::string message;  // without LibTorch's backtrace; may have several lines
};

// Describes the std::exception that is being handled: only within its catch.
Failure DescribeCurrentException();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_FAILURE_H_
