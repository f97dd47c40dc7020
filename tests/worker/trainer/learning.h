#ifndef ATTNFLEET_TESTS_WORKER_TRAINER_LEARNING_H_
#define ATTNFLEET_TESTS_WORKER_TRAINER_LEARNING_H_

// A task that can be learnt, and whether the fused steps learn it as the reference step does.

#include <cstdint>
#include <vector>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/config.h"
#include "worker/trainer/model.h"

namespace attnfleet::trainer {

// A batch, on the host, whose labels follow from ids and boxes; the last tokens of the second sequence are padding.
Batch LearnableBatch(const ModelConfig& config, uint64_t seed, int64_t sequences = 3, int64_t length = 13);

struct LearningTask {
  ModelConfig model;
  at::Device device;
  bool mixed;  // bf16-mixed; else fp32
  int64_t sequences, length;
  double learning_rate;
  const Backend* reference_attention;
  const Backend* fused_attention;
};

// 200 steps for each seed with the reference step and with each of `kinds`: the mean loss of the last ten is below half
// of that of the first ten, and its mean over the seeds is the reference's but for the spread of its seeds. Prints all.
void ExpectLearnsWhatTheReferenceLearns(const LearningTask& task, const std::vector<uint64_t>& seeds,
                                        const std::vector<StepKind>& kinds);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_TESTS_WORKER_TRAINER_LEARNING_H_
