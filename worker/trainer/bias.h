#ifndef ATTNFLEET_WORKER_TRAINER_BIAS_H_
#define ATTNFLEET_WORKER_TRAINER_BIAS_H_

#include "worker/trainer/attention/contract.h"

namespace attnfleet::trainer {

// The dense biases, unscaled, fp32, fresh memory (Hugging Face's _cal_1d_pos_emb and _cal_2d_pos_emb).
at::Tensor RelativeBias(const BiasSource& source);  // (1, H, S, S)
at::Tensor SpatialBias(const BiasSource& source);   // (B, H, S, S)

// (B, 1, 1, S) fp32: 0 for a key to attend to, the lowest float for padding.
at::Tensor AdditiveMask(const BiasSource& source);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_BIAS_H_
