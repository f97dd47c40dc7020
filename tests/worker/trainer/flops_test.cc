#include "worker/trainer/flops.h"

#include <gtest/gtest.h>

namespace attnfleet::trainer {
namespace {

TEST(Flops, BaseIsTheFormulaInTheHelp) {
  const double tokens = 32 * 512;
  const double expected = 6 * 85.5e6 * tokens + 144 * 512 * 768 * tokens;
  EXPECT_NEAR(ModelFlopsPerIteration(ModelConfig(), 32, 512) / expected, 1, 1e-3);
}

TEST(Flops, ImageAddsItsTokensToTheLayersAlone) {
  ModelConfig model;
  model.image = true;
  const double tokens = 2 * (128 + 197);
  const double layers = 6 * 12 * (4 * 768.0 * 768 + 2 * 768 * 3072) * tokens + 144 * 325.0 * 768 * tokens;
  const double head = 6 * (768.0 * 768 + 768 * 10) * 2 * 128;
  EXPECT_DOUBLE_EQ(ModelFlopsPerIteration(model, 2, 128), layers + head);
}

TEST(Flops, FewerThanTenLabelsHaveASmallerHead) {
  ModelConfig model;
  const double large = ModelFlopsPerIteration(model, 1, 1);
  model.labels = 7;
  EXPECT_DOUBLE_EQ(large - ModelFlopsPerIteration(model, 1, 1), 6.0 * (768 * 768 + 768 * 3));
}

TEST(Flops, PeakGoesByTheWholeName) {
  const auto bf16 = [](const char* name) { return PeakFlopsPerSecond(name, Precision::kBf16Mixed) / 1e12; };
  EXPECT_EQ(bf16("NVIDIA H100 80GB HBM3"), 989.4);
  EXPECT_EQ(bf16("NVIDIA H100 PCIe"), 756);
  EXPECT_EQ(bf16("NVIDIA H100 NVL"), 835.5);
  EXPECT_EQ(bf16("NVIDIA H200"), 989.4);
  EXPECT_EQ(bf16("NVIDIA GB200"), 2500);
  EXPECT_EQ(bf16("NVIDIA A100-SXM4-80GB"), 312);
  EXPECT_EQ(bf16("NVIDIA A10"), 125);
  EXPECT_EQ(bf16("NVIDIA A10G"), 70);
  EXPECT_EQ(bf16("NVIDIA L4"), 121);
  EXPECT_EQ(bf16("NVIDIA L40S"), 362);
  EXPECT_EQ(bf16("NVIDIA GeForce RTX 4090"), 165.2);
}

TEST(Flops, PeakGoesByThePrecision) {
  const char* const name = "NVIDIA H100 80GB HBM3";
  EXPECT_EQ(PeakFlopsPerSecond(name, Precision::kFp32), 67e12);
  EXPECT_EQ(PeakFlopsPerSecond(name, Precision::kTf32), 494.7e12);
  EXPECT_EQ(PeakFlopsPerSecond(name, Precision::kBf16), 989.4e12);
  EXPECT_EQ(PeakFlopsPerSecond("Tesla T4", Precision::kFp32), 8.1e12);
  EXPECT_EQ(PeakFlopsPerSecond("Tesla T4", Precision::kBf16), 0);
}

TEST(Flops, PeakOfAnythingElseIsUnknown) {
  for (const char* name : {"", "NVIDIA H1000", "NVIDIA XH100", "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
                           "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D", "AMD Instinct MI300X"}) {
    EXPECT_EQ(PeakFlopsPerSecond(name, Precision::kBf16), 0) << name;
  }
}

}  // namespace
}  // namespace attnfleet::trainer
