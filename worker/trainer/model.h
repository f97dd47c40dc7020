#ifndef ATTNFLEET_WORKER_TRAINER_MODEL_H_
#define ATTNFLEET_WORKER_TRAINER_MODEL_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {

// One batch of token classification; int64 but for the image.
struct Batch {
  at::Tensor ids;             // (B, S)
  at::Tensor boxes;           // (B, S, 4): x0, y0, x1, y1 in [0, 1023]
  at::Tensor labels;          // (B, S); -100 is ignored
  at::Tensor attention_mask;  // (B, S): 1, or 0 for padding
  bool padded = false;        // the mask holds a 0
  int64_t tokens = 0;         // that the mask does not hide
  at::Tensor image = {};      // (B, 3, size, size) fp32; undefined without
  // Which tokens the fused step computes, as indices into (B S): those that attention sees or that have a label.
  // Undefined: all. The reference step computes all.
  at::Tensor rows = {};

  // All of the above that are defined, but for `rows`.
  std::vector<at::Tensor*> Tensors();
};

struct Linear {
  at::Tensor weight;  // (out, in)
  at::Tensor bias;    // (out)
};

struct LayerNorm {
  at::Tensor weight;
  at::Tensor bias;
};

struct EncoderLayer {
  Linear query, key, value, attention_output;
  LayerNorm attention_norm;
  Linear intermediate, output;
  LayerNorm output_norm;
};

// What turns pixels into visual tokens, and the norm over text and image together.
struct VisualEmbedding {
  at::Tensor cls_token;  // (1, 1, hidden), the token for the whole image
  at::Tensor positions;  // (1, visual tokens, hidden)
  Linear patches;        // weight (hidden, 3, patch, patch): a convolution
  LayerNorm norm;        // of the visual tokens
  LayerNorm joint_norm;  // of text and visual tokens; without an image nothing stands in its place
};

// LayoutLMv3ForTokenClassification. Plain tensors; the names they have in a checkpoint come from VisitParameters.
struct Model {
  ModelConfig config;
  at::Tensor word_embeddings, token_type_embeddings, position_embeddings;  // (rows, hidden)
  at::Tensor x_position_embeddings, y_position_embeddings;                 // (1024, coordinate)
  at::Tensor h_position_embeddings, w_position_embeddings;                 // (1024, shape)
  LayerNorm embeddings_norm;
  VisualEmbedding visual;                                   // undefined without an image
  at::Tensor rel_pos_bias, rel_pos_x_bias, rel_pos_y_bias;  // (H, buckets); undefined where switched off
  std::vector<EncoderLayer> layers;
  Linear classifier;            // with fewer than ten labels
  Linear dense, out_proj;       // with ten or more
  at::Tensor relative_buckets;  // see BiasSource
  at::Tensor spatial_buckets;
  at::Tensor visual_boxes;      // (visual tokens, 4) int64
  at::Tensor visual_positions;  // (visual tokens) int64, of the 1-D bias
};

// What a parameter is, which decides its initial value and whether it trains.
enum class ParameterKind { kWeight, kPaddedEmbedding, kZero, kNormWeight, kBiasTable };

struct ParameterSpec {
  std::string name;  // as in the checkpoint of a head model: "layoutlmv3.encoder.layer.0.output.dense.weight"
  ParameterKind kind;
  std::vector<int64_t> shape;
};

// Calls `visit` for every parameter that the configuration has, in the checkpoint's order.
void VisitParameters(Model& model, const std::function<void(const ParameterSpec&, at::Tensor&)>& visit);

// Of a model of this configuration, frozen tables included. Allocates nothing.
int64_t CountParameters(const ModelConfig& config);

// A model with initial values as in Hugging Face's _init_weights, fp32, drawn on the CPU so that a seed gives the same
// weights on every device.
Model MakeModel(const ModelConfig& config, at::Device device, uint64_t seed);

struct ModelOutput {
  at::Tensor loss;    // scalar: cross-entropy, mean over the labels that are not -100
  at::Tensor logits;  // (B, S, labels), of the text
};

// What attention will be asked to do; `sequence_length` is the text's. `type` is what q, k and v will have: bf16 under
// autocast.
AttentionProblem MakeProblem(const ModelConfig& config, int64_t batch, int64_t sequence_length, bool cuda,
                             at::ScalarType type, bool padded, bool training);

// In training the configuration's dropouts are on.
ModelOutput Forward(const Model& model, const Backend& backend, const Batch& batch, at::ScalarType type, bool training);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_MODEL_H_
