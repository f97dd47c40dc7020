#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_TRACE_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_TRACE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attnfleet::trainer {

// An operator that a profiler saw on the host.
struct TracedOperator {
  std::string name;
  uint64_t id = 0;  // not 0
  uint64_t thread = 0;
  int64_t begin = 0, end = 0;  // nanoseconds
  bool attention = false;      // the scope around one call of the backend
  bool backward = false;       // a node of the backward pass
  int64_t sequence = -1;       // of a node: when the forward pass made it
};

// A kernel that it saw on the GPU.
struct TracedKernel {
  std::string name;
  uint64_t launched_by = 0;  // id of the innermost operator
  int64_t duration = 0;      // nanoseconds
};

// The nodes of the backward pass that one call of the backend made: their sequence numbers.
struct NodeRange {
  int64_t begin = 0, end = 0;
};

struct Trace {
  std::vector<TracedOperator> operators;
  std::vector<TracedKernel> kernels;
  std::vector<NodeRange> nodes;
};

// The kernels that the backend's forward calls and their backward nodes launched, by name, in short; the ones that took
// longest, all runs together, come first.
std::vector<std::string> AttentionKernels(const Trace& trace, size_t most);

// The same of the operators, each by the time spent in itself and not in another one: what there is on the CPU.
std::vector<std::string> AttentionOperators(const Trace& trace, size_t most);

// "void at::native::(anonymous namespace)::f<float, 4>(int, float*)" -> "f<float, 4>"; long names are cut short.
std::string ShortKernelName(std::string_view name);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_TRACE_H_
