#ifndef ATTNFLEET_WORKER_TRAINER_FLOPS_H_
#define ATTNFLEET_WORKER_TRAINER_FLOPS_H_

#include <cstdint>
#include <string_view>

#include "worker/trainer/config.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {

// Floating-point operations that one training step needs whatever the attention backend does: two for each weight of a
// matrix product and token, two products of S x S x hidden for attention in each layer, and twice all of that for the
// backward pass:
//   6 x weights x tokens + 12 x layers x S x hidden x tokens,  tokens = batch x S, padding included
// The weights are those of the layers' linear maps and of the head (85.5 million in base). With an image S includes the
// 197 visual tokens, which the head does not see. Embeddings, norms and softmax are left out, as is usual.
double ModelFlopsPerIteration(const ModelConfig& model, int64_t batch, int64_t sequence_length);

// The GPU's dense peak for matrix products in this precision, by its vendor's data sheet; 0 where it is unknown.
// `device_name` is what CUDA calls it: "NVIDIA H100 80GB HBM3".
double PeakFlopsPerSecond(std::string_view device_name, Precision precision);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_FLOPS_H_
