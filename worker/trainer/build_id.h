#ifndef ATTNFLEET_WORKER_TRAINER_BUILD_ID_H_
#define ATTNFLEET_WORKER_TRAINER_BUILD_ID_H_

namespace attnfleet::trainer {

// The commit that this was built from, "-dirty" with changes; "unknown" outside of git.
const char* BuildId();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_BUILD_ID_H_
