#include "worker/trainer/attention_profile.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <kineto/ActivityType.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <exception>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "worker/trainer/attention_trace.h"
#include "worker/trainer/failure.h"

namespace attnfleet::trainer {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

constexpr size_t kMostNames = 16;
constexpr char kScope[] = "attnfleet::attention";

// A Backend is plain functions, so what the marking one needs lies here for the time of ProfileAttention().
const Backend* marked_backend = nullptr;
std::vector<NodeRange> marked_nodes;

at::Tensor MarkedForward(const AttentionInput& input) {
  NodeRange nodes;
  nodes.begin = static_cast<int64_t>(at::sequence_number::peek());
  at::Tensor output;
  {
    RECORD_USER_SCOPE(kScope);
    output = marked_backend->forward(input);
  }
  nodes.end = static_cast<int64_t>(at::sequence_number::peek());
  marked_nodes.push_back(nodes);
  return output;
}

Trace ToTrace(const std::vector<profiler::KinetoEvent>& events) {
  Trace trace;
  trace.nodes = marked_nodes;
  for (const profiler::KinetoEvent& event : events) {
    const auto type = static_cast<libkineto::ActivityType>(event.activityType());
    if (type == libkineto::ActivityType::CONCURRENT_KERNEL) {
      trace.kernels.push_back({event.name(), event.linkedCorrelationId(), static_cast<int64_t>(event.durationNs())});
    } else if (type == libkineto::ActivityType::CPU_OP || type == libkineto::ActivityType::USER_ANNOTATION) {
      TracedOperator op;
      op.name = event.name();
      op.id = event.correlationId();
      op.thread = event.startThreadId();
      op.begin = static_cast<int64_t>(event.startNs());
      op.end = static_cast<int64_t>(event.endNs());
      op.attention = op.name == kScope;
      op.backward = event.scope() == static_cast<uint8_t>(at::RecordScope::BACKWARD_FUNCTION);
      op.sequence = event.sequenceNr();
      trace.operators.push_back(std::move(op));
    }
  }
  return trace;
}

// The profiler, for a scope. It belongs to the thread and goes with autograd to its threads.
class Recording {
 public:
  explicit Recording(bool cuda) {
    std::set<ActivityType> activities = {ActivityType::CPU};
    if (cuda) activities.insert(ActivityType::CUDA);
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    profiler::prepareProfiler(config, activities);
    profiler::enableProfiler(config, activities);
  }
  ~Recording() {
    if (running_) Stop();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  std::unique_ptr<profiler::ProfilerResult> Stop() {
    running_ = false;
    return profiler::disableProfiler();
  }

 private:
  bool running_ = true;
};

AttentionProfile Profile(const Backend& backend, bool cuda, const std::function<void(const Backend&)>& pass) {
  marked_backend = &backend;
  marked_nodes.clear();
  Backend marking = backend;
  marking.forward = MarkedForward;
  Recording recording(cuda);
  pass(marking);
  const Trace trace = ToTrace(recording.Stop()->events());
  AttentionProfile profile;
  profile.kernels = cuda ? AttentionKernels(trace, kMostNames) : AttentionOperators(trace, kMostNames);
  if (!profile.kernels.empty()) return profile;
  if (cuda && trace.kernels.empty()) {
    profile.unknown = "the profiler saw no kernel on the GPU: CUPTI is missing or may not be used";
  } else {
    profile.unknown = absl::StrCat("none of the ", trace.kernels.size(), " kernels and ", trace.operators.size(),
                                   " operators that the profiler saw belongs to attention");
  }
  return profile;
}

}  // namespace

AttentionProfile ProfileAttention(const Backend& backend, bool cuda, const std::function<void(const Backend&)>& pass) {
  try {
    return Profile(backend, cuda, pass);
  } catch (const std::exception&) {
    return {{}, absl::StrCat("the profiled step failed: ", DescribeCurrentException().message)};
  }
}

}  // namespace attnfleet::trainer
