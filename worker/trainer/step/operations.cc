#include "worker/trainer/step/operations.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace attnfleet::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// What is no tensor of autograd's, from the forward pass for the backward one.
template <class Value>
struct Held : torch::CustomClassHolder {
  explicit Held(Value v) : value(std::move(v)) {}
  Value value;
};

template <class Value>
void Hold(AutogradContext* context, Value value) {
  context->saved_data["held"] = c10::IValue::make_capsule(c10::make_intrusive<Held<Value>>(std::move(value)));
}
template <class Value>
Value HeldBy(AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<Held<Value>>(context->saved_data["held"].toCapsule())->value;
}

const float* Floats(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }
float* FloatsOf(const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr; }
const void* Data(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }
void* DataOf(const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; }
int Columns(const at::Tensor& tensor) { return static_cast<int>(tensor.size(-1)); }
StepType TypeOf(const at::Tensor& tensor) { return StepTypeOf(tensor.scalar_type()); }

at::Tensor Scratch(const at::Tensor& like, int64_t columns) {
  return at::empty({StepScratchBytes(columns) / 4}, like.options().dtype(at::kFloat));
}

at::Tensor Contiguous(const at::Tensor& gradient) { return gradient.defined() ? gradient.contiguous() : gradient; }

// A norm with what comes before and behind it.
struct NormPart {
  StepContext context;
  StepNormWeights norm;
  at::Tensor bias, bias_gradient;  // of the input; without an input the gradient alone, or neither
  StepDropout input_dropout, output_dropout;
};

struct NormOutput {
  at::Tensor normed, inverse_deviation, y, low_y;
};

NormOutput RunNorm(const NormPart& part, const at::Tensor& input, const at::Tensor& residual) {
  const int64_t rows = residual.size(0);
  const bool one = part.context.stream == part.context.low;
  NormOutput output;
  output.normed = at::empty(residual.sizes(), residual.options().dtype(part.context.low));
  output.inverse_deviation = at::empty({rows}, residual.options().dtype(at::kFloat));
  output.low_y = at::empty_like(output.normed);
  // Not a view that autograd follows.
  const at::AutoDispatchBelowADInplaceOrView plain;
  output.y = one ? output.low_y.alias() : at::empty(residual.sizes(), residual.options().dtype(part.context.stream));
  StepNorm norm{};
  norm.type = StepTypeOf(part.context.low);
  norm.stream = StepTypeOf(part.context.stream);
  norm.rows = rows;
  norm.columns = Columns(residual);
  norm.epsilon = part.context.epsilon;
  norm.input = Data(input);
  norm.bias = Floats(part.bias);
  norm.residual = Data(residual);
  norm.input_dropout = part.input_dropout;
  norm.output_dropout = part.output_dropout;
  norm.weight = Floats(part.norm.weight);
  norm.shift = Floats(part.norm.shift);
  norm.normed = DataOf(output.normed);
  norm.inverse_deviation = FloatsOf(output.inverse_deviation);
  norm.y = one ? nullptr : DataOf(output.y);
  norm.low_y = DataOf(output.low_y);
  part.context.kernels->Norm(norm);
  return output;
}

struct NormGradients {
  at::Tensor dz, dinput;
};

NormGradients RunNormBackward(const NormPart& part, bool has_input, const at::Tensor& normed,
                              const at::Tensor& inverse_deviation, const variable_list& of_outputs) {
  const at::Tensor dy = Contiguous(of_outputs[0]), low_dy = Contiguous(of_outputs[1]);
  const at::Tensor scratch = Scratch(normed, normed.size(1));
  NormGradients gradients;
  gradients.dz = at::empty(normed.sizes(), normed.options().dtype(has_input ? part.context.stream : at::kFloat));
  if (has_input) gradients.dinput = at::empty_like(normed);
  StepNormBackward norm{};
  norm.type = StepTypeOf(part.context.low);
  norm.stream = StepTypeOf(part.context.stream);
  norm.rows = normed.size(0);
  norm.columns = Columns(normed);
  norm.input_dropout = part.input_dropout;
  norm.output_dropout = part.output_dropout;
  norm.weight = Floats(part.norm.weight);
  norm.normed = Data(normed);
  norm.inverse_deviation = Floats(inverse_deviation);
  norm.dy = Data(dy);
  norm.low_dy = Data(low_dy);
  norm.dz = DataOf(gradients.dz);
  norm.dinput = DataOf(gradients.dinput);
  norm.dbias = FloatsOf(part.bias_gradient);
  norm.dweight = FloatsOf(part.norm.weight_gradient);
  norm.dshift = FloatsOf(part.norm.shift_gradient);
  norm.scratch = FloatsOf(scratch);
  part.context.kernels->NormBackward(norm);
  return gradients;
}

// The end of a forward pass that ends in a norm: what its backward pass reads are these tensors, what the norm kept,
// and `kept`. Of y and low_y either may get no gradient.
template <class Kept>
variable_list EndInNorm(AutogradContext* context, variable_list saved, const NormOutput& output, const Kept& kept) {
  saved.insert(saved.end(), {output.normed, output.inverse_deviation});
  context->save_for_backward(std::move(saved));
  context->set_materialize_grads(false);
  Hold(context, kept);
  return {output.y, output.low_y};
}

void SumColumns(const StepContext& context, const at::Tensor& x, const at::Tensor& sums) {
  const at::Tensor scratch = Scratch(x, x.size(1));
  context.kernels->ColumnSums({TypeOf(x), x.size(0), Columns(x), Data(x), FloatsOf(sums), FloatsOf(scratch)});
}

// y = x W^T: the weight's gradient goes to its place, that of x is returned.
void WeightGradient(const StepProduct& product, const at::Tensor& low_x, const at::Tensor& dy) {
  at::Tensor place = product.weight_gradient;
  at::mm_out(place, dy.t(), low_x);
}
at::Tensor InputGradient(const StepProduct& product, const at::Tensor& dy) { return at::mm(dy, product.weight); }
at::Tensor ProductBackward(const StepProduct& product, const at::Tensor& low_x, const at::Tensor& dy) {
  WeightGradient(product, low_x, dy);
  return InputGradient(product, dy);
}

// The rows of x at these places of a matrix of `count` rows that is 0 elsewhere.
at::Tensor PutRows(const at::Tensor& x, const at::Tensor& rows, int64_t count) {
  return at::zeros({count, x.size(1)}, x.options()).index_copy_(0, rows, x);
}

class EmbedFunction : public torch::autograd::Function<EmbedFunction> {
 public:
  struct Kept {
    NormPart part;
    StepTables gradients;
  };

  static variable_list forward(AutogradContext* context, const Variable&, const Variable& rows,
                               const StepTables& tables, const Kept& kept) {
    const at::Tensor x = at::empty({rows.size(0), tables.columns}, rows.options().dtype(at::kFloat));
    kept.part.context.kernels->EmbeddingSum({tables, rows.size(0), rows.const_data_ptr<int32_t>(), FloatsOf(x)});
    const NormOutput output = RunNorm(kept.part, {}, x);
    return EndInNorm(context, {rows}, output, kept);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto kept = HeldBy<Kept>(context);
    StepKernels& kernels = *kept.part.context.kernels;
    const at::Tensor& rows = saved[0];
    const at::Tensor dx = RunNormBackward(kept.part, false, saved[1], saved[2], gradients).dz;
    const int64_t bytes = kernels.EmbeddingScratchBytes(kept.gradients, rows.size(0));
    const at::Tensor scratch = at::empty({bytes}, rows.options().dtype(at::kByte));
    kernels.EmbeddingGradient(
        {kept.gradients, rows.size(0), rows.const_data_ptr<int32_t>(), Floats(dx), DataOf(scratch), bytes});
    return {Variable(), Variable(), Variable(), Variable()};
  }
};

class NormFunction : public torch::autograd::Function<NormFunction> {
 public:
  static variable_list forward(AutogradContext* context, const Variable& given_x, const NormPart& part) {
    const NormOutput output = RunNorm(part, {}, given_x.contiguous());
    return EndInNorm(context, {}, output, part);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto part = HeldBy<NormPart>(context);
    return {RunNormBackward(part, false, saved[0], saved[1], gradients).dz, Variable()};
  }
};

class QkvFunction : public torch::autograd::Function<QkvFunction> {
 public:
  struct Kept {
    StepContext context;
    StepProduct product;
    AttentionTokens tokens;
  };

  static variable_list forward(AutogradContext* context, const Variable& low_x, const Kept& kept) {
    const StepProduct& product = kept.product;
    context->save_for_backward({low_x});
    Hold(context, kept);
    // Plain tensors, not views that autograd follows: what it is to know is this function.
    const at::AutoDispatchBelowADInplaceOrView plain;
    const auto& [batch, heads, count, rows] = kept.tokens;
    at::Tensor packed = at::addmm(product.bias, low_x, product.weight.t());
    if (rows.defined()) packed = PutRows(packed, rows, count);
    packed = packed.view({batch, count / batch, 3, heads, low_x.size(1) / heads});
    variable_list parts;
    for (int64_t i = 0; i < 3; ++i) parts.push_back(packed.select(2, i).transpose(1, 2));
    return parts;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto kept = HeldBy<Kept>(context);
    const at::Tensor& low_x = saved[0];
    at::Tensor packed = Pack(gradients).view({kept.tokens.count, kept.product.weight.size(0)});
    if (kept.tokens.rows.defined()) packed = packed.index_select(0, kept.tokens.rows);
    SumColumns(kept.context, packed, kept.product.bias_gradient);
    return {ProductBackward(kept.product, low_x, packed), Variable()};
  }

 private:
  // dq, dk and dv (B, H, S, D) as one (B, S, 3, H, D): without a copy where they are views of such a one already.
  static at::Tensor Pack(const variable_list& parts) {
    const at::Tensor& dq = parts[0];
    const int64_t batch = dq.size(0), heads = dq.size(1), length = dq.size(2), size = dq.size(3);
    const int64_t columns = heads * size;
    const std::vector<int64_t> strides = {length * 3 * columns, size, 3 * columns, 1};
    bool packed = true;
    for (int64_t i = 0; i < 3; ++i) {
      const at::Tensor& part = parts[static_cast<size_t>(i)];
      packed = packed && part.is_alias_of(dq) && part.strides() == strides &&
               part.storage_offset() == dq.storage_offset() + i * columns;
    }
    const std::vector<int64_t> sizes = {batch, length, 3, heads, size};
    if (packed) return dq.as_strided(sizes, {length * 3 * columns, 3 * columns, columns, size, 1});
    const at::Tensor copy = at::empty(sizes, dq.options());
    for (int64_t i = 0; i < 3; ++i) copy.select(2, i).copy_(parts[static_cast<size_t>(i)].transpose(1, 2));
    return copy;
  }
};

// Not index_select of autograd, whose backward pass adds up, with atomics on a GPU.
class TakeRowsFunction : public torch::autograd::Function<TakeRowsFunction> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, const Variable& rows) {
    context->save_for_backward({rows});
    Hold(context, x.size(0));
    return x.index_select(0, rows);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {PutRows(gradients[0].contiguous(), saved[0], HeldBy<int64_t>(context)), Variable()};
  }
};

class AddFunction : public torch::autograd::Function<AddFunction> {
 public:
  struct Kept {
    NormPart part;
    StepProduct product;
  };

  static variable_list forward(AutogradContext* context, const Variable& low_x, const Variable& residual,
                               const Kept& kept) {
    const NormOutput output = RunNorm(kept.part, at::mm(low_x, kept.product.weight.t()), residual);
    return EndInNorm(context, {low_x}, output, kept);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto kept = HeldBy<Kept>(context);
    const NormGradients norm = RunNormBackward(kept.part, true, saved[1], saved[2], gradients);
    return {ProductBackward(kept.product, saved[0], norm.dinput), norm.dz, Variable()};
  }
};

class FeedForwardFunction : public torch::autograd::Function<FeedForwardFunction> {
 public:
  struct Kept {
    NormPart part;
    StepProduct first, second;
  };

  static variable_list forward(AutogradContext* context, const Variable& low_x, const Variable& residual,
                               const Kept& kept) {
    const at::Tensor inner = at::mm(low_x, kept.first.weight.t()), active = at::empty_like(inner);
    const StepContext& step = kept.part.context;
    step.kernels->Gelu(
        {StepTypeOf(step.low), inner.size(0), Columns(inner), Data(inner), Floats(kept.first.bias), DataOf(active)});
    const NormOutput output = RunNorm(kept.part, at::mm(active, kept.second.weight.t()), residual);
    // Not `active`, the largest of all: gelu's backward pass reads what it is made of, and makes it once more.
    return EndInNorm(context, {low_x, inner}, output, kept);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto kept = HeldBy<Kept>(context);
    const StepContext& step = kept.part.context;
    const at::Tensor &low_x = saved[0], &inner = saved[1];
    const NormGradients norm = RunNormBackward(kept.part, true, saved[2], saved[3], gradients);
    const at::Tensor dactive = InputGradient(kept.second, norm.dinput);
    // Both in place: the kernel reads an element before it writes there. A pass has one backward pass.
    const at::Tensor &active = inner, &dinner = dactive;
    const at::Tensor scratch = Scratch(inner, inner.size(1));
    step.kernels->GeluBackward({StepTypeOf(step.low), inner.size(0), Columns(inner), Data(inner),
                                Floats(kept.first.bias), Data(dactive), DataOf(active), DataOf(dinner),
                                FloatsOf(kept.first.bias_gradient), FloatsOf(scratch)});
    WeightGradient(kept.second, active, norm.dinput);
    return {ProductBackward(kept.first, low_x, dinner), norm.dz, Variable()};
  }
};

class ProductFunction : public torch::autograd::Function<ProductFunction> {
 public:
  struct Kept {
    StepContext context;
    StepProduct product;
  };

  static Variable forward(AutogradContext* context, const Variable& low_x, const Kept& kept) {
    context->save_for_backward({low_x});
    Hold(context, kept);
    return at::addmm(kept.product.bias, low_x, kept.product.weight.t());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto kept = HeldBy<Kept>(context);
    const at::Tensor dy = gradients[0].contiguous();
    SumColumns(kept.context, dy, kept.product.bias_gradient);
    return {ProductBackward(kept.product, saved[0], dy), Variable()};
  }
};

class DropFunction : public torch::autograd::Function<DropFunction> {
 public:
  struct Kept {
    StepContext context;
    StepDropout first, second;
    at::ScalarType from;
  };

  static Variable forward(AutogradContext* context, const Variable& x, const Kept& kept) {
    Hold(context, kept);
    return Run(kept, x.contiguous(), kept.context.low);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto kept = HeldBy<Kept>(context);
    return {Run(kept, gradients[0].contiguous(), kept.from), Variable()};
  }

 private:
  static at::Tensor Run(const Kept& kept, const at::Tensor& x, at::ScalarType to) {
    const at::Tensor y = at::empty(x.sizes(), x.options().dtype(to));
    kept.context.kernels->Drop({TypeOf(x), TypeOf(y), x.numel(), Data(x), DataOf(y), kept.first, kept.second});
    return y;
  }
};

Stream AsStream(const variable_list& outputs) { return {outputs[0], outputs[1]}; }

}  // namespace

Stream EmbedTokens(const StepContext& context, const at::Tensor& anchor, const at::Tensor& rows,
                   const StepTables& tables, const FusedWeights& weights, const StepDropout& dropout) {
  EmbedFunction::Kept kept{};
  kept.part.context = context;
  kept.part.norm = weights.embeddings_norm();
  // All tokens look up row 0 of the token types: its gradient is the sum over them.
  kept.part.bias_gradient = weights.table_gradients()[1].select(0, 0);
  kept.part.output_dropout = dropout;
  kept.gradients = tables;
  constexpr std::array<size_t, kStepTables> kOf = {0, 2, 3, 4, 5, 6};
  for (size_t table = 0; table < kOf.size(); ++table) {
    kept.gradients.table[table] = FloatsOf(weights.table_gradients()[kOf[table]]);
  }
  return AsStream(EmbedFunction::apply(anchor, rows, tables, kept));
}

Stream NormAndDrop(const StepContext& context, const at::Tensor& x, const StepNormWeights& norm,
                   const StepDropout& dropout) {
  return AsStream(NormFunction::apply(x, NormPart{context, norm, {}, {}, {}, dropout}));
}

std::array<at::Tensor, 3> ProjectQkv(const StepContext& context, const at::Tensor& low_x, const StepProduct& product,
                                     const AttentionTokens& tokens) {
  const variable_list parts = QkvFunction::apply(low_x, QkvFunction::Kept{context, product, tokens});
  return {parts[0], parts[1], parts[2]};
}

at::Tensor TakeRows(const at::Tensor& x, const at::Tensor& rows) { return TakeRowsFunction::apply(x, rows); }

Stream ProjectAndAdd(const StepContext& context, const at::Tensor& low_x, const at::Tensor& residual,
                     const StepProduct& product, const StepNormWeights& norm, const StepDropout& dropout) {
  const NormPart part{context, norm, product.bias, product.bias_gradient, dropout, {}};
  return AsStream(AddFunction::apply(low_x, residual, AddFunction::Kept{part, product}));
}

Stream FeedForward(const StepContext& context, const at::Tensor& low_x, const at::Tensor& residual,
                   const StepLayer& layer, const StepDropout& dropout) {
  const NormPart part{context, layer.output_norm, layer.output.bias, layer.output.bias_gradient, dropout, {}};
  return AsStream(
      FeedForwardFunction::apply(low_x, residual, FeedForwardFunction::Kept{part, layer.intermediate, layer.output}));
}

at::Tensor Multiply(const StepContext& context, const at::Tensor& low_x, const StepProduct& product) {
  return ProductFunction::apply(low_x, ProductFunction::Kept{context, product});
}

at::Tensor Drop(const StepContext& context, const at::Tensor& x, const StepDropout& first, const StepDropout& second) {
  return DropFunction::apply(x, DropFunction::Kept{context, first, second, x.scalar_type()});
}

}  // namespace attnfleet::trainer
