#include "worker/trainer/step/reference.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace attnfleet::trainer {
namespace {

constexpr int64_t kGrain = 64;  // rows of a thread at least

template <typename Function>
void WithType(StepType type, const Function& function) {
  if (type == StepType::kFp32) {
    function(float());
  } else {
    function(c10::BFloat16());
  }
}

template <typename Function>
void ForRows(int64_t rows, const Function& function) {
  at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) function(row);
  });
}

// 0 where the element is dropped, else what keeps the mean.
class Factor {
 public:
  explicit Factor(const StepDropout& dropout)
      : dropout_(dropout), scale_(static_cast<float>(kStepKeepsAll) / static_cast<float>(dropout.threshold)) {}

  float operator()(int64_t element) {
    if (dropout_.threshold == kStepKeepsAll) return 1;
    if (element / 8 != group_) {
      group_ = element / 8;
      draw_ = StepDraw(dropout_.state->seed, dropout_.state->passes, dropout_.site, static_cast<uint32_t>(group_));
    }
    return StepBits(draw_, static_cast<uint32_t>(element % 8)) < dropout_.threshold ? scale_ : 0;
  }

 private:
  const StepDropout dropout_;
  const float scale_;
  int64_t group_ = -1;
  Random128 draw_{};
};

// As GPU and CPU both compute it: tanh's approximation is another function.
float Gelu(float x) { return 0.5F * x * (1 + std::erf(x * 0.70710678F)); }
float GeluSlope(float x) { return 0.5F * (1 + std::erf(x * 0.70710678F)) + x * 0.39894228F * std::exp(-0.5F * x * x); }

// An element of a matrix of this type.
float Get(StepType type, const void* matrix, int64_t element) {
  return type == StepType::kFp32 ? static_cast<const float*>(matrix)[element]
                                 : static_cast<float>(static_cast<const c10::BFloat16*>(matrix)[element]);
}
void Set(StepType type, void* matrix, int64_t element, float value) {
  if (type == StepType::kFp32) {
    static_cast<float*>(matrix)[element] = value;
  } else {
    static_cast<c10::BFloat16*>(matrix)[element] = value;
  }
}

void NormRow(const StepNorm& a, int64_t row) {
  const int64_t begin = row * a.columns;
  const bool has_input = a.input != nullptr;
  Factor in(a.input_dropout), out(a.output_dropout);
  std::vector<float> z(static_cast<size_t>(a.columns));
  const auto at = [&](int c) { return static_cast<size_t>(c); };
  double sum = 0, squares = 0;
  for (int c = 0; c < a.columns; ++c) {
    const int64_t element = begin + c;
    z[at(c)] = Get(has_input ? a.stream : StepType::kFp32, a.residual, element);
    if (has_input) z[at(c)] += (Get(a.type, a.input, element) + a.bias[c]) * in(element);
    sum += z[at(c)];
  }
  const double mean = sum / a.columns;
  for (const float value : z) squares += (value - mean) * (value - mean);
  a.inverse_deviation[row] = static_cast<float>(1 / std::sqrt(squares / a.columns + a.epsilon));
  for (int c = 0; c < a.columns; ++c) {
    const float normed = (z[at(c)] - static_cast<float>(mean)) * a.inverse_deviation[row];
    Set(a.type, a.normed, begin + c, normed);
    const float y = (normed * a.weight[c] + a.shift[c]) * out(begin + c);
    if (a.y != nullptr) Set(a.stream, a.y, begin + c, y);
    if (a.low_y != nullptr) Set(a.type, a.low_y, begin + c, y);
  }
}

// The columns' sums over the rows go to dweight, dshift and dbias, in the order of the rows.
void NormRowBackward(const StepNormBackward& a, int64_t row, std::vector<double>& sums) {
  const int64_t begin = row * a.columns;
  Factor in(a.input_dropout), out(a.output_dropout);
  const auto at = [&](int c) { return static_cast<size_t>(c); };
  const auto columns = static_cast<size_t>(a.columns);
  std::vector<float> g(columns), normed(columns);
  double mean = 0, product = 0;
  for (int c = 0; c < a.columns; ++c) {
    float dy = a.dy == nullptr ? 0 : Get(a.stream, a.dy, begin + c);
    if (a.low_dy != nullptr) dy += Get(a.type, a.low_dy, begin + c);
    dy *= out(begin + c);
    normed[at(c)] = Get(a.type, a.normed, begin + c);
    sums[at(c)] += dy * normed[at(c)];
    sums[columns + at(c)] += dy;
    g[at(c)] = dy * a.weight[c];
    mean += g[at(c)];
    product += g[at(c)] * normed[at(c)];
  }
  mean /= a.columns;
  product /= a.columns;
  for (int c = 0; c < a.columns; ++c) {
    const float dz =
        a.inverse_deviation[row] * (g[at(c)] - static_cast<float>(mean) - normed[at(c)] * static_cast<float>(product));
    Set(a.dinput == nullptr ? StepType::kFp32 : a.stream, a.dz, begin + c, dz);
    if (a.dinput == nullptr) {
      sums[2 * columns + at(c)] += dz;
      continue;
    }
    const float dinput = dz * in(begin + c);
    Set(a.type, a.dinput, begin + c, dinput);
    sums[2 * columns + at(c)] += dinput;
  }
}

void Store(const std::vector<double>& sums, size_t from, int columns, float* to) {
  if (to == nullptr) return;
  for (int c = 0; c < columns; ++c) to[c] = static_cast<float>(sums[from + static_cast<size_t>(c)]);
}

int32_t RowOf(const StepTables& tables, int table, int64_t row) {
  TORCH_CHECK_INDEX(row >= 0 && row < tables.rows[table], "an embedding has no row ", row);
  return static_cast<int32_t>(row);
}

class Reference : public StepKernels {
 public:
  void BeginPass(StepState* state) override { ++state->passes; }

  void BeginUpdate(StepState* state, double beta1, double beta2) override {
    const auto updates = static_cast<double>(++state->updates);
    state->average_correction = static_cast<float>(1 - std::pow(beta1, updates));
    state->square_correction = static_cast<float>(std::sqrt(1 - std::pow(beta2, updates)));
  }

  void Norm(const StepNorm& a) override {
    ForRows(a.rows, [&](int64_t row) { NormRow(a, row); });
  }

  void NormBackward(const StepNormBackward& a) override {
    const auto columns = static_cast<size_t>(a.columns);
    std::vector<double> sums(3 * columns);
    for (int64_t row = 0; row < a.rows; ++row) NormRowBackward(a, row, sums);
    Store(sums, 0, a.columns, a.dweight);
    Store(sums, columns, a.columns, a.dshift);
    Store(sums, 2 * columns, a.columns, a.dbias);
  }

  void Gelu(const StepGelu& a) override {
    WithType(a.type, [&](auto low) {
      using Low = decltype(low);
      ForRows(a.rows, [&](int64_t row) {
        for (int64_t c = 0, e = row * a.columns; c < a.columns; ++c, ++e) {
          const float x = static_cast<float>(static_cast<const Low*>(a.x)[e]) + a.bias[c];
          static_cast<Low*>(a.y)[e] = static_cast<Low>(trainer::Gelu(x));
        }
      });
    });
  }

  void GeluBackward(const StepGeluBackward& a) override {
    std::vector<double> sums(static_cast<size_t>(a.columns));
    WithType(a.type, [&](auto low) {
      using Low = decltype(low);
      for (int64_t row = 0; row < a.rows; ++row) {
        for (int64_t c = 0, e = row * a.columns; c < a.columns; ++c, ++e) {
          const float x = static_cast<float>(static_cast<const Low*>(a.x)[e]) + a.bias[c];
          static_cast<Low*>(a.y)[e] = static_cast<Low>(trainer::Gelu(x));
          const float dx = static_cast<float>(static_cast<const Low*>(a.dy)[e]) * GeluSlope(x);
          static_cast<Low*>(a.dx)[e] = static_cast<Low>(dx);
          sums[static_cast<size_t>(c)] += dx;
        }
      }
    });
    Store(sums, 0, a.columns, a.dbias);
  }

  void Drop(const StepDrop& a) override {
    WithType(a.from, [&](auto from) {
      WithType(a.to, [&](auto to) {
        Factor first(a.first), second(a.second);
        for (int64_t e = 0; e < a.count; ++e) {
          const auto x = static_cast<float>(static_cast<const decltype(from)*>(a.x)[e]);
          static_cast<decltype(to)*>(a.y)[e] = static_cast<decltype(to)>(x * first(e) * second(e));
        }
      });
    });
  }

  void ColumnSums(const StepColumnSums& a) override {
    std::vector<double> sums(static_cast<size_t>(a.columns));
    WithType(a.type, [&](auto type) {
      const auto* const x = static_cast<const decltype(type)*>(a.x);
      for (int64_t e = 0; e < a.rows * a.columns; ++e) {
        sums[static_cast<size_t>(e % a.columns)] += static_cast<double>(x[e]);
      }
    });
    Store(sums, 0, a.columns, a.sums);
  }

  void EmbeddingRows(const StepEmbeddingRows& a) override {
    const int64_t padding = a.tables.padding;
    for (int64_t b = 0; b < a.batch; ++b) {
      int64_t position = padding;  // of padding; that of others counts from the next one
      for (int64_t token = b * a.length; token < (b + 1) * a.length; ++token) {
        const int64_t id = a.ids[token];
        const int64_t* const box = a.boxes + 4 * token;
        position += id != padding;
        const auto side = [](int64_t length) { return std::clamp<int64_t>(length, 0, kStepLargestSide); };
        const int64_t rows[kStepLookups] = {id,
                                            id != padding ? position : padding,
                                            box[0],
                                            box[1],
                                            box[2],
                                            box[3],
                                            side(box[3] - box[1]),
                                            side(box[2] - box[0])};
        for (int lookup = 0; lookup < kStepLookups; ++lookup) {
          a.rows[token * kStepLookups + lookup] = RowOf(a.tables, StepTableOf(lookup), rows[lookup]);
        }
      }
    }
  }

  void EmbeddingSum(const StepEmbeddingSum& a) override {
    const StepTables& tables = a.tables;
    ForRows(a.tokens, [&](int64_t token) {
      float* const x = a.x + token * tables.columns;
      const auto row = [&](int lookup) {
        return tables.table[StepTableOf(lookup)] +
               int64_t{a.rows[token * kStepLookups + lookup]} * StepWidthOf(tables, lookup);
      };
      for (int c = 0; c < tables.columns; ++c) x[c] = row(0)[c] + tables.token_type[c] + row(1)[c];
      for (int lookup = 2; lookup < kStepLookups; ++lookup) {
        float* const part = x + StepColumnOf(tables, lookup);
        for (int c = 0; c < StepWidthOf(tables, lookup); ++c) part[c] += row(lookup)[c];
      }
    });
  }

  int64_t EmbeddingScratchBytes(const StepTables&, int64_t) override { return 0; }

  void EmbeddingGradient(const StepEmbeddingGradient& a) override {
    const StepTables& tables = a.gradients;
    for (int table = 0; table < kStepTables; ++table) {
      const int lookup = table < 4 ? table : table + 2;
      std::fill_n(tables.table[table], int64_t{tables.rows[table]} * StepWidthOf(tables, lookup), 0.F);
    }
    for (int lookup = 0; lookup < kStepLookups; ++lookup) {
      const int width = StepWidthOf(tables, lookup);
      for (int64_t token = 0; token < a.tokens; ++token) {
        const int64_t row = a.rows[token * kStepLookups + lookup];
        if (lookup < 2 && row == tables.padding) continue;
        float* const to = tables.table[StepTableOf(lookup)] + row * width;
        const float* const from = a.dx + token * tables.columns + StepColumnOf(tables, lookup);
        for (int c = 0; c < width; ++c) to[c] += from[c];
      }
    }
  }

  void Adam(const StepAdam& a) override {
    WithType(a.type, [&](auto low) {
      using Low = decltype(low);
      at::parallel_for(0, a.count, 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          float gradient = i < a.low_gradient_count ? static_cast<float>(static_cast<const Low*>(a.low_gradients)[i])
                                                    : a.gradients[i - a.low_gradient_count];
          float weight = a.weights[i];
          if (a.decoupled_decay) {
            weight -= a.learning_rate * a.weight_decay * weight;
          } else {
            gradient += a.weight_decay * weight;
          }
          a.averages[i] = a.beta1 * a.averages[i] + a.rest1 * gradient;
          a.squares[i] = a.beta2 * a.squares[i] + a.rest2 * gradient * gradient;
          const float root = std::sqrt(a.squares[i]) / a.state->square_correction + a.epsilon;
          weight -= a.learning_rate / a.state->average_correction * a.averages[i] / root;
          a.weights[i] = weight;
          if (a.low_weights != nullptr && i < a.low_count) {
            static_cast<Low*>(a.low_weights)[i] = static_cast<Low>(weight);
          }
        }
      });
    });
  }
};

}  // namespace

std::unique_ptr<StepKernels> MakeReferenceKernels() { return std::make_unique<Reference>(); }

}  // namespace attnfleet::trainer
