#ifndef ATTNFLEET_WORKER_TRAINER_SAY_H_
#define ATTNFLEET_WORKER_TRAINER_SAY_H_

#include <string>

namespace attnfleet::trainer {

// Of the run, from ATTNFLEET_REQUEST_ID; empty if there is none, or no request id in it.
std::string RequestId();

// One line for people on standard error, with the request id if there is one.
void Say(const std::string& text);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_SAY_H_
