#ifndef ATTNFLEET_TESTS_WORKER_TRAINER_SMALL_MODEL_H_
#define ATTNFLEET_TESTS_WORKER_TRAINER_SMALL_MODEL_H_

#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {

// Large enough to have every part, small enough to train in milliseconds.
inline ModelConfig SmallModel() {
  ModelConfig config;
  config.hidden_size = 24;
  config.layers = 1;
  config.heads = 2;
  config.intermediate_size = 32;
  config.vocabulary = 60;
  config.coordinate_size = config.shape_size = 4;
  return config;
}

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_TESTS_WORKER_TRAINER_SMALL_MODEL_H_
