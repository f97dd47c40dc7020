#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_FILTERS_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_FILTERS_H_

// What a kernel cannot do, each as a small function that says why. A backend's `refuse` is a list of them.

#include <initializer_list>
#include <optional>
#include <string>

#include "worker/trainer/attention/contract.h"

namespace attnfleet::trainer {

// The reason without the backend's name, or nothing.
using Filter = std::optional<std::string> (*)(const AttentionProblem& problem);

// The first reason among them, after the backend's name.
std::optional<std::string> FirstRefusal(const char* backend, const AttentionProblem& problem,
                                        std::initializer_list<Filter> filters);

std::optional<std::string> NoBias(const AttentionProblem& problem);
std::optional<std::string> NoPadding(const AttentionProblem& problem);
std::optional<std::string> NoBiasGradients(const AttentionProblem& problem);
std::optional<std::string> Bf16Only(const AttentionProblem& problem);
std::optional<std::string> Ampere(const AttentionProblem& problem);  // sm_80 and later
std::optional<std::string> HeadSizeUpTo256(const AttentionProblem& problem);
std::optional<std::string> HeadSizeOfCudnn(const AttentionProblem& problem);
std::optional<std::string> HeadSizeInEights(const AttentionProblem& problem);
std::optional<std::string> HeadSizeOf64(const AttentionProblem& problem);
std::optional<std::string> LengthOfFused(const AttentionProblem& problem);
std::optional<std::string> DropoutOfFused(const AttentionProblem& problem);
std::optional<std::string> MoreThanOneToken(const AttentionProblem& problem);

// cuDNN's backward pass scores the unused half of the last tile of 128 keys 0 instead of -inf: with a mask or bias, dQ
// is NaN in rows whose scores are all low, as those of a sequence that is all padding.
std::optional<std::string> NoMaskWithHalfATile(const AttentionProblem& problem);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_FILTERS_H_
