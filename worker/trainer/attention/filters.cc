#include "worker/trainer/attention/filters.h"

#include <c10/core/ScalarType.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/trainer/cuda/fused_attention.h"
#include "worker/trainer/cuda/fused_random.h"

namespace attnfleet::trainer {
namespace {

bool Biased(const AttentionProblem& problem) { return problem.relative_bias || problem.spatial_bias; }

std::optional<std::string> HeadSizeUpTo(int64_t most, const AttentionProblem& problem) {
  if (problem.head_size <= most) return std::nullopt;
  return absl::StrCat("takes heads of at most ", most, ", not ", problem.head_size);
}

}  // namespace

std::optional<std::string> FirstRefusal(const char* backend, const AttentionProblem& problem,
                                        std::initializer_list<Filter> filters) {
  for (const Filter filter : filters) {
    if (const std::optional<std::string> reason = filter(problem)) return absl::StrCat(backend, ": ", *reason);
  }
  return std::nullopt;
}

std::optional<std::string> NoBias(const AttentionProblem& problem) {
  if (!Biased(problem)) return std::nullopt;
  return "Flash Attention v2 takes no bias; switch both biases off";
}

std::optional<std::string> NoPadding(const AttentionProblem& problem) {
  if (!problem.padded) return std::nullopt;
  return "Flash Attention v2 takes no padding mask; give sequences of equal length";
}

std::optional<std::string> NoBiasGradients(const AttentionProblem& problem) {
  if (!problem.bias_gradients) return std::nullopt;
  return "has no gradient of a bias, so the bias tables cannot train";
}

std::optional<std::string> Bf16Only(const AttentionProblem& problem) {
  if (problem.type == at::kBFloat16) return std::nullopt;
  return absl::StrCat("runs in bf16 alone, not in ", c10::toString(problem.type),
                      "; give precision bf16-mixed or bf16");
}

std::optional<std::string> Ampere(const AttentionProblem& problem) {
  if (!problem.cuda || problem.compute_capability == 0 || problem.compute_capability >= 80) return std::nullopt;
  return absl::StrCat("needs a GPU of compute capability 8.0 or later, this one has ", problem.compute_capability / 10,
                      ".", problem.compute_capability % 10);
}

std::optional<std::string> HeadSizeOf64(const AttentionProblem& problem) {
  if (problem.head_size == kFusedHeadSize) return std::nullopt;
  return absl::StrCat("takes heads of ", kFusedHeadSize, ", not ", problem.head_size);
}

std::optional<std::string> LengthOfFused(const AttentionProblem& problem) {
  if (problem.sequence_length <= kFusedLongest) return std::nullopt;
  return absl::StrCat("takes sequences of at most ", kFusedLongest, " tokens, not ", problem.sequence_length);
}

std::optional<std::string> DropoutOfFused(const AttentionProblem& problem) {
  if (problem.dropout <= kLargestFusedDropout) return std::nullopt;
  return absl::StrFormat("drops probabilities with at most %.5f, not %g", kLargestFusedDropout, problem.dropout);
}

std::optional<std::string> HeadSizeUpTo256(const AttentionProblem& problem) { return HeadSizeUpTo(256, problem); }

std::optional<std::string> HeadSizeOfCudnn(const AttentionProblem& problem) {
  return HeadSizeUpTo(problem.compute_capability == 90 ? 256 : 128, problem);
}

std::optional<std::string> HeadSizeInEights(const AttentionProblem& problem) {
  if (problem.head_size % 8 == 0) return std::nullopt;
  return absl::StrCat("takes heads of a multiple of 8, not ", problem.head_size);
}

std::optional<std::string> MoreThanOneToken(const AttentionProblem& problem) {
  if (problem.sequence_length > 1) return std::nullopt;
  return "takes no sequences of one token";
}

std::optional<std::string> NoMaskWithHalfATile(const AttentionProblem& problem) {
  if (problem.sequence_length % 128 != 64 || !(Biased(problem) || problem.padded)) return std::nullopt;
  return absl::StrCat("its dQ can be NaN with a bias or padding mask at length ", problem.sequence_length,
                      " (all with remainder 64 by 128)");
}

}  // namespace attnfleet::trainer
