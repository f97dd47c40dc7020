#include "worker/trainer/step/weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <set>

#include "worker/trainer/cuda/step_kernels.h"

namespace attnfleet::trainer {
namespace {

int64_t Aligned(int64_t count) { return (count + kStepAlignment - 1) / kStepAlignment * kStepAlignment; }

int64_t Bytes(const at::Tensor& tensor) { return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0; }

}  // namespace

// Where each parameter lies. Parameters of a group lie side by side without gaps.
class FusedWeights::Layout {
 public:
  using Group = std::vector<at::Tensor*>;

  void Add(Group group) {
    for (const at::Tensor* parameter : group) {
      seen_.insert(parameter);
      offsets_.push_back(count_);
      parameters_.push_back(const_cast<at::Tensor*>(parameter));
      count_ += parameter->numel();
    }
    count_ = Aligned(count_);
  }
  bool Has(const at::Tensor* parameter) const { return seen_.contains(parameter); }

  int64_t count() const { return count_; }
  const std::vector<at::Tensor*>& parameters() const { return parameters_; }
  const std::vector<int64_t>& offsets() const { return offsets_; }

 private:
  std::vector<at::Tensor*> parameters_;
  std::vector<int64_t> offsets_;
  std::set<const at::Tensor*> seen_;
  int64_t count_ = 0;
};

FusedWeights::FusedWeights(Model& model, at::ScalarType low) {
  const at::NoGradGuard no_gradient;
  const bool two_layers = model.config.two_layer_head();
  Linear& last = two_layers ? model.out_proj : model.classifier;
  Layout layout;
  for (EncoderLayer& layer : model.layers) {
    layout.Add({&layer.query.weight, &layer.key.weight, &layer.value.weight});
    for (Linear* linear : {&layer.attention_output, &layer.intermediate, &layer.output}) layout.Add({&linear->weight});
  }
  if (two_layers) layout.Add({&model.dense.weight});
  layout.Add({&last.weight});
  const int64_t low_gradients = layout.count();
  for (EncoderLayer& layer : model.layers) layout.Add({&layer.query.bias, &layer.key.bias, &layer.value.bias});
  if (two_layers) layout.Add({&model.dense.bias});
  layout.Add({&last.bias});
  low_count_ = layout.count();
  for (EncoderLayer& layer : model.layers) {
    for (Linear* linear : {&layer.attention_output, &layer.intermediate, &layer.output}) layout.Add({&linear->bias});
    for (LayerNorm* norm : {&layer.attention_norm, &layer.output_norm}) {
      layout.Add({&norm->weight});
      layout.Add({&norm->bias});
    }
  }
  const std::vector<at::Tensor*> tables = {&model.word_embeddings,       &model.token_type_embeddings,
                                           &model.position_embeddings,   &model.x_position_embeddings,
                                           &model.y_position_embeddings, &model.h_position_embeddings,
                                           &model.w_position_embeddings};
  for (at::Tensor* table : tables) layout.Add({table});
  std::vector<LayerNorm*> norms = {&model.embeddings_norm};
  if (model.config.image) norms.push_back(&model.visual.joint_norm);
  for (LayerNorm* norm : norms) {
    layout.Add({&norm->weight});
    layout.Add({&norm->bias});
  }
  const int64_t written = layout.count();
  VisitParameters(model, [&](const ParameterSpec&, at::Tensor& parameter) {
    if (parameter.requires_grad() && !layout.Has(&parameter)) layout.Add({&parameter});
  });

  const auto fp32 = at::TensorOptions(at::kFloat).device(model.word_embeddings.device());
  all_ = at::zeros({layout.count()}, fp32);
  low_gradients_ = at::zeros({low_gradients}, fp32.dtype(low));
  gradients_ = at::zeros({layout.count() - low_gradients}, fp32);
  added_up_ = gradients_.narrow(0, written - low_gradients, layout.count() - written);

  const auto gradient_at = [&](int64_t offset, at::IntArrayRef sizes, int64_t count) {
    return (offset < low_gradients ? low_gradients_.narrow(0, offset, count)
                                   : gradients_.narrow(0, offset - low_gradients, count))
        .view(sizes);
  };
  for (size_t i = 0; i < layout.parameters().size(); ++i) {
    at::Tensor& parameter = *layout.parameters()[i];
    const int64_t offset = layout.offsets()[i], count = parameter.numel();
    const at::Tensor place = all_.narrow(0, offset, count).view(parameter.sizes());
    place.copy_(parameter);
    parameter = place.detach().requires_grad_(true);
    places_.push_back({parameter, gradient_at(offset, parameter.sizes(), count)});
  }
  if (low != at::kFloat) low_ = all_.narrow(0, 0, low_count_).to(low);

  // What lies at the first of `parameters`, with the others behind it, of these sizes.
  const auto offset_of = [&](const at::Tensor* parameter) {
    size_t i = 0;
    while (layout.parameters()[i] != parameter) ++i;
    return layout.offsets()[i];
  };
  const auto weight_at = [&](const at::Tensor* parameter, at::IntArrayRef sizes, bool as_low) {
    const int64_t count = c10::multiply_integers(sizes);
    const at::Tensor& from = as_low && low_.defined() ? low_ : all_;
    return from.narrow(0, offset_of(parameter), count).view(sizes);
  };
  const auto gradient_of = [&](const at::Tensor* parameter, at::IntArrayRef sizes) {
    return gradient_at(offset_of(parameter), sizes, c10::multiply_integers(sizes));
  };
  const auto product = [&](const Linear& linear, int64_t times, bool low_bias) {
    const int64_t out = times * linear.weight.size(0), in = linear.weight.size(1);
    return StepProduct{weight_at(&linear.weight, {out, in}, true), weight_at(&linear.bias, {out}, low_bias),
                       gradient_of(&linear.weight, {out, in}), gradient_of(&linear.bias, {out})};
  };
  const auto norm_weights = [&](const LayerNorm& norm) {
    const at::IntArrayRef sizes = norm.weight.sizes();
    return StepNormWeights{weight_at(&norm.weight, sizes, false), weight_at(&norm.bias, sizes, false),
                           gradient_of(&norm.weight, sizes), gradient_of(&norm.bias, sizes)};
  };
  for (const EncoderLayer& layer : model.layers) {
    layers_.push_back({product(layer.query, 3, true), product(layer.attention_output, 1, false),
                       product(layer.intermediate, 1, false), product(layer.output, 1, false),
                       norm_weights(layer.attention_norm), norm_weights(layer.output_norm)});
  }
  if (two_layers) dense_ = product(model.dense, 1, true);
  classifier_ = product(last, 1, true);
  embeddings_norm_ = norm_weights(model.embeddings_norm);
  if (model.config.image) joint_norm_ = norm_weights(model.visual.joint_norm);
  for (const at::Tensor* table : tables) {
    tables_.push_back(weight_at(table, table->sizes(), false));
    table_gradients_.push_back(gradient_of(table, table->sizes()));
  }
}

void FusedWeights::BeginGradients() {
  for (Place& place : places_) place.parameter.mutable_grad() = place.gradient;
  added_up_.zero_();
}

int64_t FusedWeights::CopyBytes() const { return Bytes(low_); }

int64_t FusedWeights::GradientBytes() const { return Bytes(low_gradients_) + Bytes(gradients_); }

}  // namespace attnfleet::trainer
