#include "worker/trainer/attention_trace.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

namespace attnfleet::trainer {
namespace {

constexpr size_t kLongestName = 120;

// When a thread was inside attention.
struct Span {
  uint64_t thread;
  int64_t begin, end;
};

std::vector<Span> AttentionSpans(const Trace& trace) {
  std::vector<Span> spans;
  for (const TracedOperator& op : trace.operators) {
    const auto made = [&](const NodeRange& nodes) { return nodes.begin <= op.sequence && op.sequence < nodes.end; };
    if (op.attention || (op.backward && std::any_of(trace.nodes.begin(), trace.nodes.end(), made))) {
      spans.push_back({op.thread, op.begin, op.end});
    }
  }
  return spans;
}

bool Inside(const TracedOperator& op, const std::vector<Span>& spans) {
  return std::any_of(spans.begin(), spans.end(), [&](const Span& span) {
    return span.thread == op.thread && span.begin <= op.begin && op.end <= span.end;
  });
}

std::vector<std::string> LongestFirst(const std::map<std::string, int64_t>& durations, size_t most) {
  std::vector<std::pair<int64_t, std::string>> sorted;
  for (const auto& [name, duration] : durations) sorted.emplace_back(-duration, name);
  std::sort(sorted.begin(), sorted.end());
  if (sorted.size() > most) sorted.resize(most);
  std::vector<std::string> names;
  for (const auto& [duration, name] : sorted) names.push_back(name);
  return names;
}

}  // namespace

std::vector<std::string> AttentionKernels(const Trace& trace, size_t most) {
  const std::vector<Span> spans = AttentionSpans(trace);
  std::unordered_map<uint64_t, bool> inside;
  for (const TracedOperator& op : trace.operators) inside[op.id] = Inside(op, spans);
  std::map<std::string, int64_t> durations;
  for (const TracedKernel& kernel : trace.kernels) {
    const auto launcher = inside.find(kernel.launched_by);
    if (launcher != inside.end() && launcher->second) durations[ShortKernelName(kernel.name)] += kernel.duration;
  }
  return LongestFirst(durations, most);
}

std::vector<std::string> AttentionOperators(const Trace& trace, size_t most) {
  const std::vector<Span> spans = AttentionSpans(trace);
  std::vector<const TracedOperator*> ops;
  for (const TracedOperator& op : trace.operators) {
    if (!op.attention && !op.backward && Inside(op, spans)) ops.push_back(&op);
  }
  // Outer before inner, thread by thread: the innermost operator that is still open is the caller of the next one.
  std::sort(ops.begin(), ops.end(), [](const TracedOperator* a, const TracedOperator* b) {
    if (a->thread != b->thread) return a->thread < b->thread;
    return a->begin != b->begin ? a->begin < b->begin : a->end > b->end;
  });
  std::map<std::string, int64_t> durations;
  std::vector<const TracedOperator*> open;
  for (const TracedOperator* op : ops) {
    while (!open.empty() && (open.back()->thread != op->thread || open.back()->end <= op->begin)) open.pop_back();
    if (!open.empty()) durations[open.back()->name] -= op->end - op->begin;
    durations[op->name] += op->end - op->begin;
    open.push_back(op);
  }
  return LongestFirst(durations, most);
}

std::string ShortKernelName(std::string_view given) {
  std::string name =
      absl::StrReplaceAll(absl::string_view(given.data(), given.size()),
                          {{"(anonymous namespace)::", ""}, {"at::native::", ""}, {"at_cuda_detail::", ""}});
  if (absl::StartsWith(name, "void ")) name.erase(0, 5);
  // The parameters begin at the first parenthesis outside of template arguments.
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0 && i > 0) {
      name.resize(i);
      break;
    }
  }
  if (name.size() > kLongestName) name = name.substr(0, kLongestName - 3) + "...";
  return name;
}

}  // namespace attnfleet::trainer
