#include "worker/trainer/flops.h"

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace attnfleet::trainer {
namespace {

// TFLOP/s without sparsity; 0: the card has no such units, or its figure is unknown.
struct Card {
  const char* name;  // part of the name that CUDA reports
  double fp32, tf32, bf16;
};

// NVIDIA's data sheets; where one gives a figure with sparsity alone, half of it. The first row that fits counts.
constexpr Card kCards[] = {
    {"GB200", 80, 1250, 2500},             //
    {"B200", 75, 1100, 2250},              //
    {"GH200", 67, 494.7, 989.4},           //
    {"H200 NVL", 60, 417.5, 835.5},        //
    {"H200", 67, 494.7, 989.4},            //
    {"H100 NVL", 60, 417.5, 835.5},        //
    {"H100 PCIe", 51, 378, 756},           //
    {"H100", 67, 494.7, 989.4},            //
    {"H20", 44, 74, 148},                  //
    {"A100", 19.5, 156, 312},              //
    {"A800", 19.5, 156, 312},              //
    {"A30", 10.3, 82, 165},                //
    {"A10G", 31.5, 35, 70},                //
    {"A10", 31.2, 62.5, 125},              //
    {"A40", 37.4, 74.8, 149.7},            //
    {"RTX A6000", 38.7, 77.4, 154.8},      //
    {"RTX 6000 Ada", 91.1, 182.1, 364.2},  //
    {"L40S", 91.6, 183, 362},              //
    {"L40", 90.5, 90.5, 181},              //
    {"L4", 30.3, 60, 121},                 //
    {"RTX 5090", 104.8, 104.8, 209.5},     //
    {"RTX 4090 D", 0, 0, 0},               //
    {"RTX 4090", 82.6, 82.6, 165.2},       //
    {"RTX 3090", 35.6, 35.6, 71},          //
    {"V100-PCIE", 14, 0, 0},               //
    {"V100", 15.7, 0, 0},                  //
    {"T4", 8.1, 0, 0},                     //
};

// Whether `name` stands in `text` as whole words: "L4" is no part of "L40S".
bool Names(absl::string_view text, absl::string_view name) {
  for (size_t at = text.find(name); at != absl::string_view::npos; at = text.find(name, at + 1)) {
    const size_t end = at + name.size();
    const auto ends_word = [&](size_t i) { return i >= text.size() || text[i] == ' ' || text[i] == '-'; };
    if ((at == 0 || ends_word(at - 1)) && ends_word(end)) return true;
  }
  return false;
}

}  // namespace

double ModelFlopsPerIteration(const ModelConfig& model, int64_t batch, int64_t sequence_length) {
  const double hidden = static_cast<double>(model.hidden_size);
  const double layers = static_cast<double>(model.layers);
  const double labels = static_cast<double>(model.labels);
  const double length = static_cast<double>(sequence_length + model.visual_tokens());
  const double tokens = static_cast<double>(batch) * length;
  const double text_tokens = static_cast<double>(batch * sequence_length);
  const double layer_weights = 4 * hidden * hidden + 2 * hidden * static_cast<double>(model.intermediate_size);
  const double head_weights = (model.two_layer_head() ? hidden * hidden : 0) + hidden * labels;
  return 6 * (layers * layer_weights * tokens + head_weights * text_tokens) + 12 * layers * length * hidden * tokens;
}

double PeakFlopsPerSecond(std::string_view device_name, Precision precision) {
  const absl::string_view name(device_name.data(), device_name.size());
  // A part of a card, or a card of lower power under the same name.
  if (absl::StrContains(name, " MIG ") || absl::StrContains(name, "Laptop")) return 0;
  for (const Card& card : kCards) {
    if (!Names(name, card.name)) continue;
    switch (precision) {
      case Precision::kFp32:
        return card.fp32 * 1e12;
      case Precision::kTf32:
        return card.tf32 * 1e12;
      case Precision::kBf16Mixed:
      case Precision::kBf16:
        return card.bf16 * 1e12;
      case Precision::kAuto:
        return 0;
    }
  }
  return 0;
}

}  // namespace attnfleet::trainer
