#include "worker/trainer/model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <array>

#include "worker/trainer/buckets.h"
#include "worker/trainer/image.h"
#include "worker/trainer/model_pass.h"

namespace attnfleet::trainer {
namespace {

using Visitor = std::function<void(const ParameterSpec&, at::Tensor&)>;

void VisitLinear(const Visitor& visit, const std::string& name, int64_t in, int64_t out, Linear& linear) {
  visit({name + ".weight", ParameterKind::kWeight, {out, in}}, linear.weight);
  visit({name + ".bias", ParameterKind::kZero, {out}}, linear.bias);
}

void VisitNorm(const Visitor& visit, const std::string& name, int64_t size, LayerNorm& norm) {
  visit({name + ".weight", ParameterKind::kNormWeight, {size}}, norm.weight);
  visit({name + ".bias", ParameterKind::kZero, {size}}, norm.bias);
}

void VisitEmbeddings(const Visitor& visit, Model& model) {
  const ModelConfig& config = model.config;
  const std::string prefix = "layoutlmv3.embeddings.";
  const auto table = [&](const char* name, ParameterKind kind, int64_t rows, int64_t width, at::Tensor& tensor) {
    visit({prefix + name + ".weight", kind, {rows, width}}, tensor);
  };
  const int64_t hidden = config.hidden_size;
  const int64_t rows = config.max_2d_positions;
  table("word_embeddings", ParameterKind::kPaddedEmbedding, config.vocabulary, hidden, model.word_embeddings);
  table("token_type_embeddings", ParameterKind::kWeight, config.type_vocabulary, hidden, model.token_type_embeddings);
  VisitNorm(visit, prefix + "LayerNorm", hidden, model.embeddings_norm);
  table("position_embeddings", ParameterKind::kPaddedEmbedding, config.max_positions, hidden,
        model.position_embeddings);
  table("x_position_embeddings", ParameterKind::kWeight, rows, config.coordinate_size, model.x_position_embeddings);
  table("y_position_embeddings", ParameterKind::kWeight, rows, config.coordinate_size, model.y_position_embeddings);
  table("h_position_embeddings", ParameterKind::kWeight, rows, config.shape_size, model.h_position_embeddings);
  table("w_position_embeddings", ParameterKind::kWeight, rows, config.shape_size, model.w_position_embeddings);
}

void VisitVisualTokens(const Visitor& visit, const ModelConfig& config, VisualEmbedding& visual) {
  visit({"layoutlmv3.cls_token", ParameterKind::kZero, {1, 1, config.hidden_size}}, visual.cls_token);
  visit({"layoutlmv3.pos_embed", ParameterKind::kZero, {1, config.visual_tokens(), config.hidden_size}},
        visual.positions);
}

void VisitPatches(const Visitor& visit, const ModelConfig& config, VisualEmbedding& visual) {
  const int64_t hidden = config.hidden_size;
  const std::string name = "layoutlmv3.patch_embed.proj";
  visit({name + ".weight", ParameterKind::kWeight, {hidden, kImageChannels, config.patch_size, config.patch_size}},
        visual.patches.weight);
  visit({name + ".bias", ParameterKind::kZero, {hidden}}, visual.patches.bias);
  VisitNorm(visit, "layoutlmv3.LayerNorm", hidden, visual.joint_norm);
  VisitNorm(visit, "layoutlmv3.norm", hidden, visual.norm);
}

void VisitLayer(const Visitor& visit, const std::string& prefix, const ModelConfig& config, EncoderLayer& layer) {
  const int64_t hidden = config.hidden_size;
  VisitLinear(visit, prefix + "attention.self.query", hidden, hidden, layer.query);
  VisitLinear(visit, prefix + "attention.self.key", hidden, hidden, layer.key);
  VisitLinear(visit, prefix + "attention.self.value", hidden, hidden, layer.value);
  VisitLinear(visit, prefix + "attention.output.dense", hidden, hidden, layer.attention_output);
  VisitNorm(visit, prefix + "attention.output.LayerNorm", hidden, layer.attention_norm);
  VisitLinear(visit, prefix + "intermediate.dense", hidden, config.intermediate_size, layer.intermediate);
  VisitLinear(visit, prefix + "output.dense", config.intermediate_size, hidden, layer.output);
  VisitNorm(visit, prefix + "output.LayerNorm", hidden, layer.output_norm);
}

at::Tensor Apply(const Linear& linear, const at::Tensor& x) { return at::linear(x, linear.weight, linear.bias); }

at::Tensor Dropout(const Pass& pass, const at::Tensor& x) {
  return at::dropout(x, pass.config().hidden_dropout, pass.training);
}

at::Tensor Norm(const Pass& pass, const LayerNorm& norm, const at::Tensor& x, double epsilon) {
  return at::layer_norm(x, {pass.config().hidden_size}, norm.weight, norm.bias, epsilon);
}
at::Tensor Norm(const Pass& pass, const LayerNorm& norm, const at::Tensor& x) {
  return Norm(pass, norm, x, pass.config().layer_norm_epsilon);
}

// Hugging Face's LayoutLMv3TextEmbeddings: (B, S, hidden).
at::Tensor EmbedText(const Pass& pass) {
  const Model& model = pass.model;
  const Batch& batch = pass.batch;
  // Padding keeps position 1, the others count from 2.
  const at::Tensor real = batch.ids.ne(kPaddingId).to(at::kLong);
  const at::Tensor positions = at::cumsum(real, 1) * real + kPaddingId;
  at::Tensor sum = at::embedding(model.word_embeddings, batch.ids, kPaddingId) +
                   at::embedding(model.token_type_embeddings, at::zeros_like(batch.ids));
  sum += at::embedding(model.position_embeddings, positions, kPaddingId);
  const at::Tensor x0 = batch.boxes.select(-1, 0), y0 = batch.boxes.select(-1, 1);
  const at::Tensor x1 = batch.boxes.select(-1, 2), y1 = batch.boxes.select(-1, 3);
  const at::Tensor spatial =
      at::cat({at::embedding(model.x_position_embeddings, x0), at::embedding(model.y_position_embeddings, y0),
               at::embedding(model.x_position_embeddings, x1), at::embedding(model.y_position_embeddings, y1),
               at::embedding(model.h_position_embeddings, (y1 - y0).clamp(0, 1023)),
               at::embedding(model.w_position_embeddings, (x1 - x0).clamp(0, 1023))},
              -1);
  return Dropout(pass, Norm(pass, model.embeddings_norm, sum + spatial));
}

// (B, text and visual tokens, hidden).
at::Tensor Embed(const Pass& pass) {
  at::Tensor text = EmbedText(pass);
  if (!pass.config().image) return text;
  return Dropout(pass, Norm(pass, pass.model.visual.joint_norm, at::cat({text, EmbedImage(pass)}, 1)));
}

// What is known of the text's tokens, with the same of the visual ones behind it.
void AddVisualTokens(const Model& model, BiasSource& source) {
  const int64_t batch = source.boxes.size(0), tokens = model.config.visual_tokens();
  source.positions = at::cat({source.positions, model.visual_positions});
  source.boxes = at::cat({source.boxes, model.visual_boxes.expand({batch, -1, -1})}, 1);
  source.attention_mask =
      at::cat({source.attention_mask, at::ones({batch, tokens}, source.attention_mask.options())}, 1);
}

// Hugging Face's LayoutLMv3SelfAttention: (B, S, hidden) -> (B, S, hidden).
at::Tensor SelfAttention(const Pass& pass, const EncoderLayer& layer, const StepTensors& step, const at::Tensor& x) {
  const ModelConfig& config = pass.config();
  const auto heads = [&](const Linear& linear) {
    return Apply(linear, x).view({x.size(0), x.size(1), config.heads, config.head_size()}).transpose(1, 2);
  };
  const bool drop_output = config.dropout_placement == DropoutPlacement::kOutput;
  const AttentionInput input{heads(layer.query), heads(layer.key), heads(layer.value), step,
                             pass.training && !drop_output ? config.attention_dropout : 0.0};
  const at::Tensor output =
      pass.backend.forward(input).transpose(1, 2).reshape({x.size(0), x.size(1), config.hidden_size});
  return drop_output ? at::dropout(output, config.attention_dropout, pass.training) : output;
}

at::Tensor Encode(const Pass& pass, const EncoderLayer& layer, const StepTensors& step, const at::Tensor& x) {
  const at::Tensor attended = Apply(layer.attention_output, SelfAttention(pass, layer, step, x));
  const at::Tensor middle = Norm(pass, layer.attention_norm, Dropout(pass, attended) + x);
  const at::Tensor output = Apply(layer.output, at::gelu(Apply(layer.intermediate, middle)));
  return Norm(pass, layer.output_norm, Dropout(pass, output) + middle);
}

at::Tensor Classify(const Pass& pass, const at::Tensor& encoded) {
  const at::Tensor x = Dropout(pass, pass.config().image ? encoded.narrow(1, 0, pass.batch.ids.size(1)) : encoded);
  if (!pass.config().two_layer_head()) return Apply(pass.model.classifier, x);
  return Apply(pass.model.out_proj, Dropout(pass, Tanh(Apply(pass.model.dense, Dropout(pass, x)))));
}

}  // namespace

at::Tensor EmbedImage(const Pass& pass) {
  const VisualEmbedding& visual = pass.model.visual;
  const int64_t patch = pass.config().patch_size;
  const at::Tensor pixels = pass.batch.image.to(visual.patches.weight.scalar_type());
  const at::Tensor patches = at::conv2d(pixels, visual.patches.weight, visual.patches.bias, {patch, patch});
  const at::Tensor cls = visual.cls_token.expand({pixels.size(0), -1, -1});
  const at::Tensor tokens = at::cat({cls, patches.flatten(2).transpose(1, 2)}, 1);
  return Norm(pass, visual.norm, tokens + visual.positions, kVisualNormEpsilon);
}

StepTensors PrepareAttention(const Pass& pass, const AttentionProblem& problem) {
  const at::AutoGradMode gradients(problem.bias_gradients);
  const Model& model = pass.model;
  BiasSource source;
  source.relative_table = model.rel_pos_bias;
  source.x_table = model.rel_pos_x_bias;
  source.y_table = model.rel_pos_y_bias;
  source.relative_buckets = model.relative_buckets;
  source.spatial_buckets = model.spatial_buckets;
  source.positions = at::arange(pass.batch.ids.size(1), model.relative_buckets.options());
  source.boxes = pass.batch.boxes;
  source.attention_mask = pass.batch.attention_mask;
  if (model.config.image) AddVisualTokens(model, source);
  return pass.backend.prepare(problem, source);
}

at::Tensor Tanh(const at::Tensor& x) {
  // Too small to be shared between threads. Each type has a function of its own.
  [[maybe_unused]] static const std::array<at::Tensor, 2> first = {at::tanh(at::zeros({1}, at::kFloat)),
                                                                   at::tanh(at::zeros({1}, at::kDouble))};
  return at::tanh(x);
}

at::Tensor Loss(const at::Tensor& logits, const at::Tensor& labels) {
  // The loss of a model that is all bf16 is fp32, as in Hugging Face.
  const at::Tensor exact = logits.scalar_type() == at::kBFloat16 ? logits.to(at::kFloat) : logits;
  return at::cross_entropy_loss(exact, labels.view(-1), {}, at::Reduction::Mean, kIgnoredLabel);
}

std::vector<at::Tensor*> Batch::Tensors() {
  std::vector<at::Tensor*> tensors = {&ids, &boxes, &labels, &attention_mask};
  if (image.defined()) tensors.push_back(&image);
  return tensors;
}

void VisitParameters(Model& model, const Visitor& visit) {
  const ModelConfig& config = model.config;
  if (config.image) VisitVisualTokens(visit, config, model.visual);
  VisitEmbeddings(visit, model);
  if (config.image) VisitPatches(visit, config, model.visual);
  model.layers.resize(static_cast<size_t>(config.layers));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    VisitLayer(visit, "layoutlmv3.encoder.layer." + std::to_string(i) + ".", config, model.layers[i]);
  }
  const auto table = [&](const char* name, int64_t buckets, at::Tensor& tensor) {
    const std::string path = std::string("layoutlmv3.encoder.") + name + ".weight";
    visit({path, ParameterKind::kBiasTable, {config.heads, buckets}}, tensor);
  };
  if (config.relative_bias) table("rel_pos_bias", kRelativeBuckets, model.rel_pos_bias);
  if (config.spatial_bias) {
    table("rel_pos_x_bias", kSpatialBuckets, model.rel_pos_x_bias);
    table("rel_pos_y_bias", kSpatialBuckets, model.rel_pos_y_bias);
  }
  if (config.two_layer_head()) {
    VisitLinear(visit, "classifier.dense", config.hidden_size, config.hidden_size, model.dense);
    VisitLinear(visit, "classifier.out_proj", config.hidden_size, config.labels, model.out_proj);
  } else {
    VisitLinear(visit, "classifier", config.hidden_size, config.labels, model.classifier);
  }
}

int64_t CountParameters(const ModelConfig& config) {
  Model model;
  model.config = config;
  int64_t count = 0;
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor&) { count += c10::multiply_integers(spec.shape); });
  return count;
}

Model MakeModel(const ModelConfig& config, at::Device device, uint64_t seed) {
  Model model;
  model.config = config;
  const at::NoGradGuard no_gradient;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& tensor) {
    tensor = at::empty(spec.shape, at::kFloat);
    switch (spec.kind) {
      case ParameterKind::kZero:
        tensor.zero_();
        break;
      case ParameterKind::kNormWeight:
        tensor.fill_(1);
        break;
      default:
        tensor.normal_(0, kInitialDeviation, generator);
    }
    if (spec.kind == ParameterKind::kPaddedEmbedding) tensor[kPaddingId].zero_();
    tensor = tensor.to(device);
    tensor.requires_grad_(spec.kind != ParameterKind::kBiasTable || config.train_bias_tables);
  });
  const auto buckets = [&](int64_t largest, int count, int max_distance) {
    return at::tensor(at::ArrayRef<int64_t>(BucketTable(largest, count, max_distance)), at::kLong).to(device);
  };
  model.relative_buckets =
      buckets(std::max(config.max_positions, config.visual_tokens()), kRelativeBuckets, kRelativeMaxDistance);
  model.spatial_buckets = buckets(config.max_2d_positions, kSpatialBuckets, kSpatialMaxDistance);
  if (config.image) {
    const std::vector<std::array<int64_t, 4>> boxes = VisualBoxes(config.patches_per_side());
    model.visual_boxes = at::tensor(at::ArrayRef<int64_t>(boxes.front().data(), 4 * boxes.size()), at::kLong)
                             .view({config.visual_tokens(), 4})
                             .to(device);
    model.visual_positions = at::arange(config.visual_tokens(), model.relative_buckets.options());
  }
  return model;
}

AttentionProblem MakeProblem(const ModelConfig& config, int64_t batch, int64_t sequence_length, bool cuda,
                             at::ScalarType type, bool padded, bool training) {
  AttentionProblem problem;
  problem.cuda = cuda;
  problem.type = type;
  problem.batch = batch;
  problem.heads = config.heads;
  problem.sequence_length = sequence_length + config.visual_tokens();
  problem.head_size = config.head_size();
  problem.relative_bias = config.relative_bias;
  problem.spatial_bias = config.spatial_bias;
  problem.padded = padded;
  problem.bias_gradients = config.train_bias_tables && (config.relative_bias || config.spatial_bias);
  const bool drops = training && config.dropout_placement == DropoutPlacement::kProbabilities;
  problem.dropout = drops ? config.attention_dropout : 0.0;
  return problem;
}

ModelOutput Forward(const Model& model, const Backend& backend, const Batch& batch, at::ScalarType type,
                    bool training) {
  const Pass pass{model, backend, batch, training};
  const ModelConfig& config = model.config;
  const AttentionProblem problem =
      MakeProblem(config, batch.ids.size(0), batch.ids.size(1), batch.ids.is_cuda(), type, batch.padded, training);
  at::Tensor x = Embed(pass);
  const StepTensors step = PrepareAttention(pass, problem);
  for (const EncoderLayer& layer : model.layers) x = Encode(pass, layer, step, x);
  ModelOutput output;
  output.logits = Classify(pass, x);
  output.loss = Loss(output.logits.view({-1, config.labels}), batch.labels);
  return output;
}

}  // namespace attnfleet::trainer
