#include "worker/trainer/verify.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "worker/trainer/attention/backends.h"

namespace attnfleet::trainer {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

const char* const kGolden = ATTNFLEET_GOLDEN "/both_biases_one_layer_head.safetensors";

// What Parse says of the file with its header changed.
std::string ErrorOf(const std::function<void(json& header)>& change) {
  const SafetensorsFile golden = SafetensorsFile::Read(kGolden).value();
  json header = json::object();
  header["__metadata__"] = golden.metadata();
  std::string elements;
  for (const auto& [name, entry] : golden.entries()) {
    header[name] = {{"dtype", Name(entry.type)},
                    {"shape", entry.shape},
                    {"data_offsets", {elements.size(), elements.size() + entry.bytes.size()}}};
    elements += entry.bytes;
  }
  change(header);
  const std::string text = header.dump();
  const uint64_t size = text.size();
  const std::string whole = std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + elements;
  return std::string(ModelCase::Parse("f", SafetensorsFile::Parse("f", whole).value()).status().message());
}

TEST(Verify, OneErrorListsMissingSurplusAndUnlikeTensors) {
  EXPECT_EQ(ErrorOf([](json&) {}), "");
  const std::string message = ErrorOf([](json& header) {
    header.erase("weight.classifier.bias");
    header.erase("input.labels");
    header["weight.extra"] = header["loss"];
    header["logits"]["shape"] = {2, 7, 40};
  });
  EXPECT_THAT(message, AllOf(HasSubstr("2 missing: input.labels, weight.classifier.bias"),
                             HasSubstr("1 surplus: weight.extra"), HasSubstr("logits is [2, 7, 40], not [2, 40, 7]")));
}

TEST(Verify, MetadataIsChecked) {
  EXPECT_THAT(ErrorOf([](json& header) { header["__metadata__"].erase("num_labels"); }),
              HasSubstr("num_labels is missing"));
  EXPECT_THAT(ErrorOf([](json& header) { header["__metadata__"]["num_hidden_layers"] = "many"; }),
              HasSubstr("num_hidden_layers is \"many\""));
  EXPECT_THAT(ErrorOf([](json& header) { header["__metadata__"]["num_attention_heads"] = "5"; }),
              HasSubstr("multiple of num_attention_heads"));
  EXPECT_THAT(ErrorOf([](json& header) { header["__metadata__"]["hidden_size"] = "100000000000"; }),
              HasSubstr("hidden_size is"));
}

TEST(Verify, FrozenTablesMustHaveNoGradient) {
  EXPECT_THAT(ErrorOf([](json& header) { header["__metadata__"]["train_bias_tables"] = "1"; }),
              HasSubstr("3 missing: gradient.layoutlmv3.encoder.rel_pos_bias.weight"));
}

TEST(Verify, AWrongWeightIsOutsideTheBoundAndNamed) {
  const ModelCase golden = ModelCase::Read(kGolden).value();
  Model model = golden.MakeModel(at::kCPU);
  {
    const at::NoGradGuard no_gradient;
    model.classifier.bias.add_(0.1);
  }
  const CaseError error = golden.Compare(model, *Backends().front()).value();
  EXPECT_FALSE(error.Within(kVerifyBound));
  EXPECT_GT(error.logits, 0.001);
  EXPECT_THAT(Report("f", golden.config(), error), AllOf(HasSubstr("NOT within"), HasSubstr(error.worst_parameter)));
}

TEST(Verify, NanIsOutsideTheBound) {
  const ModelCase golden = ModelCase::Read(kGolden).value();
  Model model = golden.MakeModel(at::kCPU);
  {
    const at::NoGradGuard no_gradient;
    model.layers[0].query.weight[0][0].fill_(NAN);
  }
  EXPECT_FALSE(golden.Compare(model, *Backends().front()).value().Within(kVerifyBound));
}

}  // namespace
}  // namespace attnfleet::trainer
