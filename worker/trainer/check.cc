#include "worker/trainer/check.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/autocast.h"
#include "worker/trainer/failure.h"

namespace attnfleet::trainer {
namespace {

// A gradient that is smaller than this part of the model's largest is measured by that part: beside the others it moves
// nothing, and in bf16 it may be nothing but rounding (a key's bias has none at all, since softmax does not see what is
// added to all scores of a row; with equal boxes the weights of the first layers' keys have next to none).
constexpr double kSmallGradient = 1e-3;

double Largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

// The model without dropout. Its parameters are the same tensors.
Model WithoutDropout(const Model& model) {
  Model copy = model;
  copy.config.hidden_dropout = copy.config.attention_dropout = 0;
  return copy;
}

Model InDouble(const Model& model) {
  Model copy = WithoutDropout(model);
  const at::NoGradGuard no_gradient;
  VisitParameters(copy, [](const ParameterSpec&, at::Tensor& tensor) {
    const bool trains = tensor.requires_grad();
    tensor = tensor.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
    tensor.requires_grad_(trains);
  });
  return copy;
}

Batch FirstSamples(const Batch& batch, int64_t count) {
  Batch first = batch;
  for (at::Tensor* tensor : first.Tensors()) {
    *tensor = tensor->slice(0, 0, count);
  }
  if (batch.rows.defined()) first.rows = batch.rows.masked_select(batch.rows.lt(first.ids.numel()));
  return first;
}

struct Pass {
  at::Tensor logits, loss;
  std::vector<std::string> names;
  std::vector<at::Tensor> gradients;
};

Pass RunPass(Model& model, const Backend& backend, const Batch& batch, at::ScalarType type, bool mixed,
             FusedTrainingStep* fused = nullptr) {
  Pass pass;
  {
    const Autocast autocast(mixed, batch.ids.device().type());
    const ModelOutput output = fused != nullptr ? fused->Forward(model, backend, batch, /*training=*/true)
                                                : Forward(model, backend, batch, type, /*training=*/true);
    pass.logits = output.logits.detach();
    pass.loss = output.loss;
  }
  pass.loss.backward();
  pass.loss = pass.loss.detach();
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& tensor) {
    if (!tensor.requires_grad()) return;
    pass.names.push_back(spec.name);
    pass.gradients.push_back(tensor.grad());
    tensor.mutable_grad().reset();
  });
  return pass;
}

// What eager in fp64 needs for one sequence: in each layer two score matrices kept for the backward pass and about
// thirty hidden states, and in one layer at a time four score matrices more.
int64_t BytesPerSample(const ModelConfig& config, int64_t sequence_length) {
  const int64_t scores = config.heads * sequence_length * sequence_length;
  const int64_t states = 30 * sequence_length * config.hidden_size;
  return 8 * (config.layers * (2 * scores + states) + 4 * scores);
}

int64_t BytesOfWeights(const ModelConfig& config) { return 2 * 8 * CountParameters(config); }  // with gradients

NumericalCheck Compare(const CheckSubject& subject, int64_t samples) {
  const Batch batch = FirstSamples(subject.batch, samples);
  Pass exact;
  {
    Model model = InDouble(subject.model);
    exact = RunPass(model, *FindBackend("eager").value(), batch, at::kDouble, /*mixed=*/false);
  }
  Model model = WithoutDropout(subject.model);
  const Pass pass = RunPass(model, subject.backend, batch, subject.type, subject.mixed, subject.fused);

  NumericalCheck check;
  check.samples = static_cast<int>(samples);
  const at::Tensor real = batch.attention_mask.unsqueeze(-1).to(at::kBool);
  check.output_error = RelativeError(pass.logits.masked_select(real), exact.logits.masked_select(real));
  check.loss_error = RelativeError(pass.loss, exact.loss);
  double largest = 0;
  for (const at::Tensor& gradient : exact.gradients) largest = std::max(largest, Largest(gradient));
  for (size_t i = 0; i < exact.gradients.size(); ++i) {
    const double error = RelativeError(pass.gradients[i], exact.gradients[i], kSmallGradient * largest);
    // NaN is the worst of all, and the first one stays.
    if (i == 0 || (!std::isnan(check.gradient_error) && !(error <= check.gradient_error))) {
      check.gradient_error = error;
      check.gradient_worst = exact.names[i];
    }
  }
  return check;
}

void DropGradients(const Model& model) {
  Model copy = model;
  VisitParameters(copy, [](const ParameterSpec&, at::Tensor& tensor) {
    if (tensor.requires_grad()) tensor.mutable_grad().reset();
  });
}

NumericalCheck Skipped(std::string reason) {
  NumericalCheck check;
  check.skipped = reason.substr(0, reason.find('\n'));
  return check;
}

}  // namespace

double RelativeError(const at::Tensor& value, const at::Tensor& exact, double least) {
  if (exact.numel() == 0) return 0;
  const double difference = Largest(value.to(at::kDouble) - exact);
  return difference == 0 ? 0 : difference / std::max(Largest(exact), least);
}

NumericalCheck CheckAgainstEager(const CheckSubject& subject, const std::function<int64_t()>& free_bytes) {
  const ModelConfig& config = subject.model.config;
  const int64_t per_sample = BytesPerSample(config, subject.batch.ids.size(1) + config.visual_tokens());
  const int64_t room = (free_bytes() - BytesOfWeights(config)) / per_sample;
  for (int64_t samples = std::clamp<int64_t>(room, 1, subject.batch.ids.size(0));; samples /= 2) {
    Failure failure;
    try {
      return Compare(subject, samples);
    } catch (const std::exception&) {
      failure = DescribeCurrentException();
    }
    DropGradients(subject.model);
    if (!failure.out_of_memory) return Skipped(absl::StrCat("failed: ", failure.message));
    if (samples == 1) return Skipped(absl::StrCat("one sequence does not fit: ", failure.message));
    free_bytes();
  }
}

}  // namespace attnfleet::trainer
