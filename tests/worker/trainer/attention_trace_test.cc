#include "worker/trainer/attention_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnfleet::trainer {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TracedOperator Operator(std::string name, uint64_t id, uint64_t thread, int64_t begin, int64_t end) {
  TracedOperator op;
  op.name = std::move(name);
  op.id = id;
  op.thread = thread;
  op.begin = begin;
  op.end = end;
  return op;
}

// Thread 1 goes forward: a linear map, then attention of two operators. Thread 2 goes backward: a node of attention,
// and the one of the linear map.
Trace Sample() {
  Trace trace;
  trace.nodes = {{10, 12}};
  trace.operators.push_back(Operator("aten::linear", 1, 1, 0, 50));
  trace.operators.push_back(Operator("attention", 2, 1, 100, 200));
  trace.operators.back().attention = true;
  trace.operators.push_back(Operator("aten::softmax", 3, 1, 110, 190));
  trace.operators.push_back(Operator("aten::_softmax", 4, 1, 115, 185));
  trace.operators.push_back(Operator("aten::mul", 5, 1, 191, 199));
  trace.operators.push_back(Operator("SoftmaxBackward0", 6, 2, 300, 400));
  trace.operators.back().backward = true;
  trace.operators.back().sequence = 11;
  trace.operators.push_back(Operator("aten::_softmax_backward_data", 7, 2, 310, 390));
  trace.operators.push_back(Operator("AddmmBackward0", 8, 2, 400, 500));
  trace.operators.back().backward = true;
  trace.operators.back().sequence = 12;
  trace.operators.push_back(Operator("aten::mm", 9, 2, 410, 490));
  // At the time of attention, on a thread that has nothing to do with it.
  trace.operators.push_back(Operator("aten::copy_", 10, 3, 120, 130));
  trace.kernels = {{"gemm", 1, 900},       {"void softmax_forward<float>(float*)", 4, 20},
                   {"multiply", 5, 10},    {"softmax_backward", 7, 25},
                   {"gemm", 9, 900},       {"copy", 10, 900},
                   {"from nowhere", 99, 1}};
  return trace;
}

TEST(AttentionTrace, KernelsAreThoseLaunchedInsideAttentionAndItsBackwardNodes) {
  EXPECT_THAT(AttentionKernels(Sample(), 8), ElementsAre("softmax_backward", "softmax_forward<float>", "multiply"));
}

TEST(AttentionTrace, KernelsOfOneNameCountTogether) {
  Trace trace = Sample();
  for (int i = 0; i < 3; ++i) trace.kernels.push_back({"multiply", 5, 10});
  EXPECT_THAT(AttentionKernels(trace, 2), ElementsAre("multiply", "softmax_backward"));
}

TEST(AttentionTrace, OperatorsCountWithoutThoseInsideThem) {
  EXPECT_THAT(AttentionOperators(Sample(), 8),
              ElementsAre("aten::_softmax_backward_data", "aten::_softmax", "aten::softmax", "aten::mul"));
}

TEST(AttentionTrace, NothingOfAttentionIsNoName) {
  Trace trace = Sample();
  trace.nodes.clear();
  trace.operators[1].attention = false;
  EXPECT_THAT(AttentionKernels(trace, 8), IsEmpty());
  EXPECT_THAT(AttentionOperators(trace, 8), IsEmpty());
}

TEST(AttentionTrace, NamesAreShort) {
  EXPECT_EQ(ShortKernelName("void at::native::(anonymous namespace)::cunn_SoftMaxForward<8, float, (bool)1>(float*)"),
            "cunn_SoftMaxForward<8, float, (bool)1>");
  EXPECT_EQ(ShortKernelName("void pytorch_flash::flash_fwd_kernel<T<64>, true>(Flash_fwd_params)"),
            "pytorch_flash::flash_fwd_kernel<T<64>, true>");
  EXPECT_EQ(ShortKernelName("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(AttentionKernel::Params)"),
            "fmha_cutlassF_bf16_aligned_64x64_rf_sm80");
  EXPECT_EQ(ShortKernelName("nvjet_hsh_128x256"), "nvjet_hsh_128x256");
  const std::string cut = ShortKernelName(std::string(500, 'x'));
  EXPECT_EQ(cut.size(), 120u);
  EXPECT_EQ(cut.substr(115), "xx...");
}

}  // namespace
}  // namespace attnfleet::trainer
