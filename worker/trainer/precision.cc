#include "worker/trainer/precision.h"

#include <ATen/Context.h>

namespace attnfleet::trainer {

Precision ResolvePrecision(Precision precision, bool cuda) {
  if (precision != Precision::kAuto) return precision;
  return cuda ? Precision::kBf16Mixed : Precision::kFp32;
}

const char* PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kAuto:
      return "auto";
    case Precision::kFp32:
      return "fp32";
    case Precision::kTf32:
      return "tf32";
    case Precision::kBf16Mixed:
      return "bf16-mixed";
    case Precision::kBf16:
      return "bf16";
  }
  return "unknown";
}

std::optional<std::string> RefusePrecision(Precision precision, bool cuda, int compute_capability) {
  if (precision != Precision::kTf32) return std::nullopt;
  if (!cuda) return "tf32: the CPU has no TF32; give precision fp32";
  if (compute_capability < 80) return "tf32: this GPU has no TF32 (compute capability 8.0 has); give precision fp32";
  return std::nullopt;
}

at::ScalarType WeightType(Precision precision) { return precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat; }

at::ScalarType ComputeType(Precision precision) {
  return precision == Precision::kBf16 || precision == Precision::kBf16Mixed ? at::kBFloat16 : at::kFloat;
}

void SetFp32Products(Precision precision) {
  const bool tf32 = precision == Precision::kTf32;
  at::globalContext().setAllowTF32CuBLAS(tf32);
  at::globalContext().setAllowTF32CuDNN(tf32);
}

}  // namespace attnfleet::trainer
