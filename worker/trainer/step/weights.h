#ifndef ATTNFLEET_WORKER_TRAINER_STEP_WEIGHTS_H_
#define ATTNFLEET_WORKER_TRAINER_STEP_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "worker/trainer/cuda/step_kernels.h"
#include "worker/trainer/model.h"

namespace attnfleet::trainer {

// As the kernels call fp32 or bf16.
inline StepType StepTypeOf(at::ScalarType type) { return type == at::kFloat ? StepType::kFp32 : StepType::kBf16; }

// A product's weight and bias as the fused step uses them. Weight and, where the product itself adds it, bias are low;
// the weight's gradient is low, the bias's fp32.
struct StepProduct {
  at::Tensor weight;  // (out, in)
  at::Tensor bias;    // (out)
  at::Tensor weight_gradient, bias_gradient;
};

struct StepNormWeights {
  at::Tensor weight, shift;
  at::Tensor weight_gradient, shift_gradient;
};

struct StepLayer {
  StepProduct qkv;                                     // (3 hidden, hidden)
  StepProduct attention_output, intermediate, output;  // with an fp32 bias, which the kernel after the product adds
  StepNormWeights attention_norm, output_norm;
};

// All trained parameters of a model in one piece of memory each: weights, their low copies, gradients. In this order:
//   weights of the products, whose gradients are low, as the products give them;
//   biases that products add, which have a low copy too;
//   all others;
//   those whose gradients autograd adds up: the image's and the bias tables.
// So that Adam is one pass over three or four arrays, and a gradient is written where it will be read.
class FusedWeights {
 public:
  // Makes the model's trained parameters views of that memory. `low` fp32: there are no copies.
  FusedWeights(Model& model, at::ScalarType low);

  // Lets every parameter's grad() be its gradient, of its own type, and makes those that add up 0.
  void BeginGradients();

  const std::vector<StepLayer>& layers() const { return layers_; }
  const StepProduct& dense() const { return dense_; }            // of a two-layer head
  const StepProduct& classifier() const { return classifier_; }  // the last product
  const StepNormWeights& embeddings_norm() const { return embeddings_norm_; }
  const StepNormWeights& joint_norm() const { return joint_norm_; }
  // Words, token types, positions, x, y, heights, widths.
  const std::vector<at::Tensor>& tables() const { return tables_; }
  const std::vector<at::Tensor>& table_gradients() const { return table_gradients_; }

  const at::Tensor& all() const { return all_; }
  const at::Tensor& low() const { return low_; }  // of the first ones; undefined without copies
  const at::Tensor& low_gradients() const { return low_gradients_; }
  const at::Tensor& gradients() const { return gradients_; }
  int64_t low_count() const { return low_count_; }
  int64_t CopyBytes() const;
  int64_t GradientBytes() const;

 private:
  struct Place {
    at::Tensor parameter;  // a leaf of autograd
    at::Tensor gradient;
  };
  class Layout;

  std::vector<StepLayer> layers_;
  StepProduct dense_, classifier_;
  StepNormWeights embeddings_norm_, joint_norm_;
  std::vector<at::Tensor> tables_, table_gradients_;
  at::Tensor all_, low_, low_gradients_, gradients_, added_up_;
  int64_t low_count_ = 0;
  std::vector<Place> places_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_STEP_WEIGHTS_H_
