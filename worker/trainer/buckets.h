#ifndef ATTNFLEET_WORKER_TRAINER_BUCKETS_H_
#define ATTNFLEET_WORKER_TRAINER_BUCKETS_H_

#include <cstdint>
#include <vector>

namespace attnfleet::trainer {

// The bucket of a relative position p[j] - p[i]: Hugging Face's LayoutLMv3Encoder.relative_position_bucket, with the
// same operations in the same precision, since 16, 32, 64 and 128 sit exactly on a step. Below half of its side's
// buckets a distance has a bucket of its own, above it they widen with the logarithm, and the last takes everything
// further.
int64_t RelativePositionBucket(int64_t relative_position, int buckets, int max_distance);

// The buckets of -max_relative .. max_relative, at index relative_position + max_relative.
std::vector<int64_t> BucketTable(int64_t max_relative, int buckets, int max_distance);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_BUCKETS_H_
