// The project's own kernels (../cuda/): flash attention with LayoutLMv3's biases looked up inside, so that neither
// scores nor biases nor a mask of S x S are ever in memory.

#include "worker/trainer/attention/fused.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <utility>

#include "worker/trainer/attention/filters.h"
#include "worker/trainer/cuda_module.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kRowAlignment = 8;  // elements of bf16 in 16 bytes

std::optional<std::string> Refuse(const AttentionProblem& problem) {
  return FirstRefusal("fused", problem, {Bf16Only, HeadSizeOf64, LengthOfFused, DropoutOfFused, Ampere});
}

// Hands out parts of a piece of memory, or, without one, counts how much it takes.
class Parts {
 public:
  explicit Parts(uint8_t* memory) : memory_(memory) {}

  template <class T>
  T* Take(int64_t count) {
    constexpr int64_t kAlignment = 256;
    T* const part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  }
  int64_t used() const { return used_; }

 private:
  uint8_t* const memory_;
  int64_t used_ = 0;
};

FusedStep Divide(const FusedShape& shape, Parts& parts) {
  const int64_t tiles = FusedPadded(shape.length) / kFusedTile;
  FusedStep step{};
  step.tables = parts.Take<float>(int64_t{shape.heads} * kFusedTables);
  step.keys = parts.Take<FusedTokens>(shape.batch * tiles);
  step.queries = parts.Take<FusedTokens>(shape.batch * tiles);
  step.key_tiles = parts.Take<int32_t>(shape.batch);
  return step;
}

// As the kernels read it: elements of a row side by side, rows at multiples of 16 bytes.
at::Tensor Readable(const at::Tensor& tensor) {
  const bool aligned = tensor.stride(3) == 1 && tensor.stride(0) % kRowAlignment == 0 &&
                       tensor.stride(1) % kRowAlignment == 0 && tensor.stride(2) % kRowAlignment == 0 &&
                       reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
  return aligned ? tensor : tensor.contiguous();
}

FusedMatrix Matrix(const at::Tensor& tensor) {
  return {tensor.data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// (B, H, S, D) that lies in memory as (B, S, H, D), as the model wants it.
at::Tensor EmptyLike(const at::Tensor& tensor) {
  return at::empty({tensor.size(0), tensor.size(2), tensor.size(1), tensor.size(3)}, tensor.options()).transpose(1, 2);
}

// Gradients of q, k and v: parts of one (B, S, 3, H, D) where those are, so that what made them of one product gets the
// product's gradient in one piece.
std::array<at::Tensor, 3> EmptyGradients(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t columns = q.size(1) * q.size(3);
  const auto follows = [&](const at::Tensor& tensor, int64_t parts) {
    return tensor.is_alias_of(q) && tensor.strides() == q.strides() &&
           tensor.storage_offset() == q.storage_offset() + parts * columns;
  };
  const bool packed = q.stride(2) == 3 * columns && q.stride(1) == q.size(3) && follows(k, 1) && follows(v, 2);
  if (!packed) return {EmptyLike(q), EmptyLike(q), EmptyLike(q)};
  const at::Tensor all = at::empty({q.size(0), q.size(2), 3, q.size(1), q.size(3)}, q.options());
  const auto part = [&](int64_t i) { return all.select(2, i).transpose(1, 2); };
  return {part(0), part(1), part(2)};
}

at::Tensor EmptyRows(const FusedShape& shape, const at::Tensor& like) {
  return at::empty({shape.batch, shape.heads, FusedPadded(shape.length)}, like.options().dtype(at::kFloat));
}

// Gradients of the tables that train, and what their kernels need; of the others, undefined tensors.
struct TableGradients {
  explicit TableGradients(const FusedState& state) {
    const auto fill = [](const at::Tensor& table, at::Tensor& gradient) -> float* {
      if (!table.defined()) return nullptr;
      gradient = at::empty(table.sizes(), table.options().requires_grad(false));
      return gradient.mutable_data_ptr<float>();
    };
    arguments.relative = fill(state.relative_table, relative);
    arguments.x = fill(state.x_table, x);
    arguments.y = fill(state.y_table, y);
    if (!state.relative_buckets.defined()) return;
    arguments.relative_buckets = state.relative_buckets.const_data_ptr<int64_t>();
    arguments.relative_largest = static_cast<int>(state.relative_buckets.size(0) / 2);
    arguments.spatial_buckets = state.spatial_buckets.const_data_ptr<int64_t>();
    arguments.spatial_largest = static_cast<int>(state.spatial_buckets.size(0) / 2);
    partial = at::empty({state.shape.heads, FusedTableGroups(state.shape), kFusedTables},
                        state.memory.options().dtype(at::kFloat));
    arguments.partial = partial.mutable_data_ptr<float>();
  }

  at::Tensor relative, x, y;
  FusedTableGradients arguments{};

 private:
  at::Tensor partial;  // until the kernels are queued
};

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;
using OptionalVariable = std::optional<Variable>;
using StatePointer = std::shared_ptr<const FusedState>;

class Function : public torch::autograd::Function<Function> {
 public:
  // The tables are in the state already, as the kernels want them; here they are for autograd alone.
  static Variable forward(AutogradContext* context, const Variable& given_q, const Variable& given_k,
                          const Variable& given_v, const OptionalVariable& /*relative_table*/,
                          const OptionalVariable& /*x_table*/, const OptionalVariable& /*y_table*/,
                          const StatePointer& state, const FusedDropout& dropout) {
    const Variable q = Readable(given_q), k = Readable(given_k), v = Readable(given_v);
    const Variable out = EmptyLike(q), lse = EmptyRows(state->shape, q);
    state->kernels->Forward(Arguments(*state, dropout, q, k, v, out, lse));
    context->save_for_backward({q, k, v, out, lse});
    context->saved_data["state"] = c10::IValue::make_capsule(c10::make_intrusive<Saved>(state, dropout));
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto kept = c10::dynamic_intrusive_pointer_cast<Saved>(context->saved_data["state"].toCapsule());
    const Variable &q = saved[0], &out = saved[3], &lse = saved[4];
    const Variable dout = Readable(gradients[0]);
    const auto [dq, dk, dv] = EmptyGradients(q, saved[1], saved[2]);
    const Variable delta = at::empty_like(lse);
    FusedBackwardArguments arguments;
    arguments.forward = Arguments(*kept->state, kept->dropout, q, saved[1], saved[2], out, lse);
    arguments.dout = Matrix(dout);
    arguments.dq = Matrix(dq);
    arguments.dk = Matrix(dk);
    arguments.dv = Matrix(dv);
    arguments.delta = delta.mutable_data_ptr<float>();
    const TableGradients tables(*kept->state);
    arguments.tables = tables.arguments;
    kept->state->kernels->Backward(arguments);
    return {dq, dk, dv, tables.relative, tables.x, tables.y, Variable(), Variable()};
  }

 private:
  struct Saved : torch::CustomClassHolder {
    Saved(StatePointer s, const FusedDropout& d) : state(std::move(s)), dropout(d) {}
    StatePointer state;
    FusedDropout dropout;
  };

  static FusedForwardArguments Arguments(const FusedState& state, const FusedDropout& dropout, const Variable& q,
                                         const Variable& k, const Variable& v, const Variable& out,
                                         const Variable& lse) {
    return {state.shape, state.step, dropout,     Matrix(q),
            Matrix(k),   Matrix(v),  Matrix(out), lse.mutable_data_ptr<float>()};
  }
};

StepTensors Prepare(const AttentionProblem& problem, const BiasSource& source) {
  StepTensors step;
  step.fused = PrepareFused(OpenFusedAttention(), problem, source);
  return step;
}

at::Tensor Forward(const AttentionInput& input) {
  return ForwardFused(input.q, input.k, input.v, input.step.fused, input.step.fused->kernels->Draw(input.dropout));
}

}  // namespace

std::shared_ptr<const FusedState> PrepareFused(std::shared_ptr<FusedAttention> kernels, const AttentionProblem& problem,
                                               const BiasSource& source) {
  auto state = std::make_shared<FusedState>();
  state->kernels = std::move(kernels);
  state->shape = {static_cast<int>(problem.batch), static_cast<int>(problem.heads),
                  static_cast<int>(problem.sequence_length), problem.relative_bias || problem.spatial_bias};
  Parts count(nullptr);
  Divide(state->shape, count);
  state->memory = at::empty({count.used()}, source.attention_mask.options().dtype(at::kByte));
  Parts parts(state->memory.mutable_data_ptr<uint8_t>());
  state->step = Divide(state->shape, parts);

  // Kept until the kernels are queued; what is freed then is not used before they have run.
  std::vector<at::Tensor> read;
  const auto table = [&](const at::Tensor& tensor, at::Tensor& trained) -> const float* {
    if (!tensor.defined()) return nullptr;
    const at::Tensor exact = tensor.to(at::kFloat).contiguous();
    if (problem.bias_gradients) trained = exact;
    read.push_back(exact);
    return read.back().const_data_ptr<float>();
  };
  const auto integers = [&](const at::Tensor& tensor) {
    read.push_back(tensor.contiguous());
    return read.back().const_data_ptr<int64_t>();
  };
  FusedSource from{};
  if (problem.relative_bias) from.relative_table = table(source.relative_table, state->relative_table);
  if (problem.spatial_bias) {
    from.x_table = table(source.x_table, state->x_table);
    from.y_table = table(source.y_table, state->y_table);
  }
  if (problem.bias_gradients) {
    state->relative_buckets = source.relative_buckets.contiguous();
    state->spatial_buckets = source.spatial_buckets.contiguous();
  }
  from.relative_buckets = integers(source.relative_buckets);
  from.relative_largest = static_cast<int>(source.relative_buckets.size(0) / 2);
  from.spatial_buckets = integers(source.spatial_buckets);
  from.spatial_largest = static_cast<int>(source.spatial_buckets.size(0) / 2);
  from.positions = integers(source.positions);
  from.boxes = integers(source.boxes);
  from.mask = integers(source.attention_mask);
  state->kernels->Prepare(state->shape, from, state->step);
  return state;
}

at::Tensor ForwardFused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const std::shared_ptr<const FusedState>& state, const FusedDropout& dropout) {
  return Function::apply(q, k, v, OptionalVariable(state->relative_table), OptionalVariable(state->x_table),
                         OptionalVariable(state->y_table), state, dropout);
}

extern const Backend kFused;
const Backend kFused = {"fused", "own kernels: flash attention with the biases looked up inside, nothing of S x S",
                        false,   true,
                        Refuse,  Prepare,
                        Forward};

}  // namespace attnfleet::trainer
