#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_DENSE_MASK_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_DENSE_MASK_H_

#include <optional>

#include "worker/trainer/attention/contract.h"

namespace attnfleet::trainer {

// Whether a mask that is the same for every query is stored once, or once for each.
enum class MaskRows { kShared, kAll };

// What is added to the scores: (relative + spatial) / sqrt(D) + padding, of shape (B or 1, H or 1, S or 1, S), in q's
// type: a kernel that takes a mask may misread another one. Undefined where there is neither bias nor padding, so that
// the kernels that refuse every mask remain possible. Allocated once, each row at a multiple of 8 elements, as the
// kernels want it; the fp32 intermediates are bounded unless the tables train.
at::Tensor DenseMask(const AttentionProblem& problem, const BiasSource& source, MaskRows rows = MaskRows::kShared);

// The same seen as (B, H, S, S), for what does not broadcast. Takes no more memory.
at::Tensor ExpandedDenseMask(const AttentionProblem& problem, const BiasSource& source);

// The mask as ATen's operations take it: nothing where it is undefined.
std::optional<at::Tensor> MaskArgument(const AttentionInput& input);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_DENSE_MASK_H_
