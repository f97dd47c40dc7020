#include "worker/trainer/step/fused_step.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/zeros.h>

#include <array>

#include "worker/trainer/cuda_module.h"
#include "worker/trainer/model_pass.h"
#include "worker/trainer/step/operations.h"
#include "worker/trainer/step/reference.h"

namespace attnfleet::trainer {
namespace {

// The places where something is dropped; those of layer i are kLayers + 4 i and the next ones.
constexpr uint32_t kEmbeddings = 0, kJoint = 1, kHead = 2, kInnerHead = 3, kBehindDense = 4, kLayers = 16;
constexpr uint32_t kAttended = 0, kProjected = 1, kFedForward = 2, kSitesOfALayer = 4;

std::unique_ptr<StepKernels> KernelsFor(at::Device device) {
  return device.is_cuda() ? OpenStepKernels() : MakeReferenceKernels();
}

at::Tensor MakeState(at::Device device, uint64_t seed) {
  StepState state{};
  state.seed = seed;
  return at::from_blob(&state, {sizeof state}, at::kByte).to(device, at::kByte, /*non_blocking=*/false, /*copy=*/true);
}

// One forward pass.
class FusedPass {
 public:
  FusedPass(const FusedTrainingStep& step, const Pass& pass)
      : step_(step),
        pass_(pass),
        context_{&step.kernels(), step.low(), step.stream(), static_cast<float>(pass.config().layer_norm_epsilon)},
        batch_(pass.batch.ids.size(0)),
        tokens_(batch_ * (pass.batch.ids.size(1) + pass.config().visual_tokens())) {}

  at::Tensor Logits(const at::Tensor& anchor, const AttentionProblem& problem) const {
    Stream stream = Embed(anchor);
    const StepTensors shared = PrepareAttention(pass_, problem);
    const std::vector<StepLayer>& layers = step_.weights().layers();
    for (size_t i = 0; i < layers.size(); ++i) stream = Encode(layers[i], LayerSite(i), shared, stream);
    return Classify(stream.y);
  }

 private:
  // Only some of the tokens have rows in the matrices; attention has them all.
  bool packed() const { return pass_.batch.rows.defined(); }

  static uint32_t LayerSite(size_t layer) { return kLayers + kSitesOfALayer * static_cast<uint32_t>(layer); }

  StepDropout Dropout(uint32_t site, double p) const {
    return {step_.state(), site, pass_.training ? StepThreshold(p) : kStepKeepsAll};
  }
  StepDropout Dropout(uint32_t site) const { return Dropout(site, pass_.config().hidden_dropout); }

  StepTables Tables() const {
    const ModelConfig& config = pass_.config();
    const std::vector<at::Tensor>& tables = step_.weights().tables();
    StepTables result{};
    result.columns = static_cast<int>(config.hidden_size);
    result.coordinate = static_cast<int>(config.coordinate_size);
    result.shape = static_cast<int>(config.shape_size);
    constexpr std::array<size_t, kStepTables> kOf = {0, 2, 3, 4, 5, 6};
    for (size_t table = 0; table < kOf.size(); ++table) {
      result.rows[table] = static_cast<int>(tables[kOf[table]].size(0));
      result.table[table] = tables[kOf[table]].mutable_data_ptr<float>();
    }
    result.token_type = tables[1].const_data_ptr<float>();
    result.padding = static_cast<int>(kPaddingId);
    return result;
  }

  Stream Embed(const at::Tensor& anchor) const {
    const at::Tensor ids = pass_.batch.ids.contiguous(), boxes = pass_.batch.boxes.contiguous();
    const StepTables tables = Tables();
    at::Tensor rows = at::empty({ids.numel(), kStepLookups}, ids.options().dtype(at::kInt));
    step_.kernels().EmbeddingRows({tables, ids.size(0), ids.size(1), ids.const_data_ptr<int64_t>(),
                                   boxes.const_data_ptr<int64_t>(), rows.mutable_data_ptr<int32_t>()});
    if (packed()) rows = rows.index_select(0, pass_.batch.rows);
    const FusedWeights& weights = step_.weights();
    Stream text = EmbedTokens(context_, anchor, rows, tables, weights, Dropout(kEmbeddings));
    if (!pass_.config().image) return text;
    const at::Tensor image = EmbedImage(pass_).to(at::kFloat);
    const at::Tensor all = at::cat({text.y.to(at::kFloat).view({batch_, -1, tables.columns}), image}, 1);
    return NormAndDrop(context_, all.view({-1, tables.columns}), weights.joint_norm(), Dropout(kJoint));
  }

  Stream Encode(const StepLayer& layer, uint32_t site, const StepTensors& shared, const Stream& stream) const {
    const at::Tensor attended = Attend(layer, site, shared, stream.low_y);
    const Stream middle = ProjectAndAdd(context_, attended, stream.y, layer.attention_output, layer.attention_norm,
                                        Dropout(site + kProjected));
    return FeedForward(context_, middle.low_y, middle.y, layer, Dropout(site + kFedForward));
  }

  at::Tensor Attend(const StepLayer& layer, uint32_t site, const StepTensors& shared, const at::Tensor& low_x) const {
    const ModelConfig& config = pass_.config();
    const auto [q, k, v] = ProjectQkv(context_, low_x, layer.qkv, {batch_, config.heads, tokens_, pass_.batch.rows});
    const bool drop_output = config.dropout_placement == DropoutPlacement::kOutput;
    const AttentionInput input{q, k, v, shared, pass_.training && !drop_output ? config.attention_dropout : 0.0};
    at::Tensor output =
        pass_.backend.forward(input).transpose(1, 2).reshape({tokens_, config.hidden_size}).to(step_.low());
    if (packed()) output = TakeRows(output, pass_.batch.rows);
    return drop_output ? Drop(context_, output, Dropout(site + kAttended, config.attention_dropout), {}) : output;
  }

  at::Tensor Classify(const at::Tensor& encoded) const {
    const ModelConfig& config = pass_.config();
    const FusedWeights& weights = step_.weights();
    const int64_t columns = config.hidden_size;
    const at::Tensor text =
        config.image ? encoded.view({batch_, -1, columns}).narrow(1, 0, pass_.batch.ids.size(1)).reshape({-1, columns})
                     : encoded;
    if (!config.two_layer_head()) {
      return Multiply(context_, Drop(context_, text, Dropout(kHead), {}), weights.classifier());
    }
    const at::Tensor dropped = Drop(context_, text, Dropout(kHead), Dropout(kInnerHead));
    const at::Tensor inner = Tanh(Multiply(context_, dropped, weights.dense()));
    return Multiply(context_, Drop(context_, inner, Dropout(kBehindDense), {}), weights.classifier());
  }

  const FusedTrainingStep& step_;
  const Pass& pass_;
  const StepContext context_;
  const int64_t batch_;
  const int64_t tokens_;  // that attention has, with padding
};

}  // namespace

std::optional<std::string> RefuseStep(StepKind step, Precision precision) {
  if (step == StepKind::kFused && precision == Precision::kBf16) {
    return "fused step: it keeps weights and residual stream in fp32; give precision bf16-mixed or fp32, or step "
           "reference";
  }
  if (step == StepKind::kFusedBf16Stream && precision != Precision::kBf16Mixed) {
    return "fused-bf16-stream step: it keeps the residual stream in bf16 and weights in fp32; give precision "
           "bf16-mixed (auto is fp32 on the CPU), or step fused";
  }
  return std::nullopt;
}

at::Tensor TokensThatMatter(const Batch& batch) {
  if (!batch.padded || batch.image.defined()) return {};
  const at::Tensor matters = batch.attention_mask.ne(0).logical_or(batch.labels.ne(kIgnoredLabel));
  return at::nonzero(matters.view(-1)).view(-1);
}

FusedTrainingStep::FusedTrainingStep(Model& model, at::ScalarType low, at::ScalarType stream, uint64_t seed)
    : low_(low),
      stream_(stream),
      weights_(model, low),
      kernels_(KernelsFor(model.word_embeddings.device())),
      state_(MakeState(model.word_embeddings.device(), seed)),
      anchor_(at::empty({0}, weights_.all().options()).requires_grad_()) {}

ModelOutput FusedTrainingStep::Forward(const Model& model, const Backend& backend, const Batch& batch, bool training) {
  weights_.BeginGradients();
  kernels_->BeginPass(state());
  const Pass pass{model, backend, batch, training};
  const int64_t sequences = batch.ids.size(0), length = batch.ids.size(1);
  const AttentionProblem problem =
      MakeProblem(model.config, sequences, length, batch.ids.is_cuda(), low_, batch.padded, training);
  ModelOutput output;
  const at::Tensor logits = FusedPass(*this, pass).Logits(anchor_, problem);
  if (batch.rows.defined()) {
    output.loss = Loss(logits, batch.labels.view(-1).index_select(0, batch.rows));
    const at::Tensor all = at::zeros({sequences * length, model.config.labels}, logits.options().requires_grad(false));
    output.logits = all.index_copy_(0, batch.rows, logits.detach()).view({sequences, length, -1});
    return output;
  }
  output.loss = Loss(logits, batch.labels);
  output.logits = logits.view({sequences, length, model.config.labels});
  return output;
}

}  // namespace attnfleet::trainer
