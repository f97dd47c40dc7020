#include "client/spec_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec.h"

namespace attnfleet::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class SpecFlagsTest : public testing::Test {
 protected:
  absl::StatusOr<v1::BenchmarkSpec> Spec(const std::vector<std::string>& arguments,
                                         const std::optional<std::string>& file = std::nullopt,
                                         const std::vector<std::string>& backends = {}) {
    flags_ = SpecFlags();
    const absl::StatusOr<std::vector<std::string>> rest = ParseArguments(arguments, flags_.Flags());
    if (!rest.ok()) return rest.status();
    return flags_.Spec(file, backends);
  }
  std::string Error(const std::vector<std::string>& arguments, const std::optional<std::string>& file = std::nullopt,
                    const std::vector<std::string>& backends = {}) {
    return std::string(Spec(arguments, file, backends).status().message());
  }
  static std::vector<std::string> Shapes(const v1::BenchmarkSpec& spec) {
    std::vector<std::string> shapes;
    for (const v1::Shape& shape : spec.shapes()) shapes.push_back(FormatShape(shape));
    return shapes;
  }

  SpecFlags flags_;
};

TEST_F(SpecFlagsTest, SizeIsTheModel) {
  const absl::StatusOr<v1::BenchmarkSpec> spec = Spec({"--preset=published", "--size=large"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->training().model_size(), v1::MODEL_SIZE_LARGE);
}

TEST_F(SpecFlagsTest, EveryFlagReachesItsField) {
  const absl::StatusOr<v1::BenchmarkSpec> spec = Spec({"--backends=eager,flash2",
                                                       "--batch=1,2",
                                                       "--seq=8",
                                                       "--repetitions=5",
                                                       "--steps=7",
                                                       "--warmup=0",
                                                       "--model=large",
                                                       "--labels=3",
                                                       "--biases=off",
                                                       "--spatial-bias=on",
                                                       "--hidden-dropout=0",
                                                       "--attention-dropout=0.2",
                                                       "--precision=fp32",
                                                       "--optimizer=adam",
                                                       "--step=fused",
                                                       "--learning-rate=0.02",
                                                       "--data-loader-threads=0",
                                                       "--seed=18446744073709551615",
                                                       "--boxes=unit",
                                                       "--device=cuda",
                                                       "--device-name=H100",
                                                       "--min-memory=80",
                                                       "--label=rack=a=3",
                                                       "--run-timeout=5m",
                                                       "--max-attempts=1",
                                                       "--data-file=d.jsonl",
                                                       "--weights-file=w",
                                                       "--name=mine"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->backends(), ElementsAre("eager", "flash2"));
  EXPECT_THAT(Shapes(*spec), ElementsAre("1x8", "2x8"));
  EXPECT_EQ(spec->repetitions(), 5);
  const v1::TrainingSettings& training = spec->training();
  EXPECT_EQ(training.timed_steps(), 7);
  EXPECT_EQ(training.warmup_steps(), 0);
  EXPECT_EQ(training.model_size(), v1::MODEL_SIZE_LARGE);
  EXPECT_EQ(training.num_labels(), 3);
  EXPECT_FALSE(training.relative_attention_bias());
  EXPECT_TRUE(training.spatial_attention_bias());
  EXPECT_DOUBLE_EQ(training.hidden_dropout(), 0);
  EXPECT_DOUBLE_EQ(training.attention_dropout(), 0.2);
  EXPECT_EQ(training.precision(), v1::PRECISION_FP32);
  EXPECT_EQ(training.optimizer(), v1::OPTIMIZER_ADAM);
  EXPECT_EQ(training.step(), v1::TRAINING_STEP_FUSED);
  EXPECT_DOUBLE_EQ(training.learning_rate(), 0.02);
  EXPECT_EQ(training.data_loader_threads(), 0);
  EXPECT_EQ(training.seed(), 18446744073709551615U);
  EXPECT_EQ(training.boxes(), v1::BOX_LAYOUT_UNIT);
  EXPECT_EQ(spec->requirements().device_kind(), v1::DEVICE_KIND_CUDA);
  EXPECT_EQ(spec->requirements().device_name_contains(), "H100");
  EXPECT_EQ(spec->requirements().min_memory_bytes(), 80'000'000'000);
  EXPECT_EQ(spec->requirements().labels().at("rack"), "a=3");
  EXPECT_DOUBLE_EQ(spec->run_timeout_seconds(), 300);
  EXPECT_EQ(spec->max_attempts(), 1);
  EXPECT_EQ(training.data_file(), "d.jsonl");
  EXPECT_EQ(training.weights_file(), "w");
  EXPECT_EQ(spec->name(), "mine");
}

TEST_F(SpecFlagsTest, ErrorsNameTheFlag) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--shapes=32y128"}, "--shapes: \"32y128\" is no shape; give BATCHxSEQUENCE, for example 32x128,32x512"},
      {{"--shapes=0x128"}, "--shapes: \"0x128\" is out of range; batch and sequence length are at least 1"},
      {{"--shapes=1x99999"}, "--shapes[0].sequence_length: 99999 is out of range; 1 to 8192 is possible"},
      {{"--shapes=1x8,1x8"}, "--shapes[1]: 1x8 is given twice"},
      {{}, "--shapes: at least one is needed (batch x sequence length), for example 32x128"},
      {{"--batch=4"}, "--seq: needed beside --batch (their product is the shape axis)"},
      {{"--seq=4"}, "--batch: needed beside --seq (their product is the shape axis)"},
      {{"--batch=4", "--seq=4", "--shapes=1x1"}, "--shapes: give either shapes or --batch with --seq, not both"},
      {{"--batch=0", "--seq=4"}, "--batch: \"0\" is less than 1"},
      {{"--preset=tyni"},
       "--preset: unknown preset \"tyni\"; did you mean \"tiny\"? available: stock, published, tiny"},
      {{"--preset=tiny", "--steps=many"}, "--steps: \"many\" is no whole number"},
      {{"--preset=tiny", "--steps=0"}, "--steps: 0 is out of range; 1 to 1000000 is possible"},
      {{"--preset=tiny", "--repetitions=0"}, "--repetitions: 0 is out of range; 1 to 1000 is possible"},
      {{"--preset=tiny", "--attention-dropout=1.5"},
       "--attention-dropout: 1.5 is no dropout probability; give 0 <= p < 1"},
      {{"--model=huge"}, "--model: unknown model \"huge\"; available: tiny, base, large"},
      {{"--preset=tiny", "--min-memory=-1"}, "--min-memory: negative"},
      {{"--preset=tiny", "--data-file=a/b"},
       "--data-file: \"a/b\" is no plain file name; give the name of a file in the worker's --files folder"},
      {{"--label=rack"}, "--label: \"rack\" is no label; give NAME=VALUE"},
      {{"--device=gpu"}, "--device: unknown device \"gpu\"; did you mean \"cpu\"? available: cpu, cuda"},
      {{"--backends=eager,,sdpa"},
       "--backends: \"eager,,sdpa\" has an empty element; give names with commas between "
       "them"},
  };
  for (const auto& [arguments, text] : cases) EXPECT_EQ(Error(arguments), text);
}

TEST_F(SpecFlagsTest, AMisspeltBackendIsToldWithWhatThereIs) {
  EXPECT_EQ(Error({"--preset=tiny", "--backends=flsh"}, std::nullopt, {"eager", "flash2"}),
            "--backends: unknown backend \"flsh\"; did you mean \"flash2\"? available: eager, flash2");
}

TEST_F(SpecFlagsTest, FlagsOverrideTheFile) {
  const std::string file = "preset: \"tiny\" backends: \"eager\" repetitions: 2 shapes { batch: 1 sequence_length: 8 }";
  const absl::StatusOr<v1::BenchmarkSpec> spec =
      Spec({"--spec=b.textproto", "--backends=sdpa", "--batch=2", "--seq=16", "--steps=3"}, file);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->backends(), ElementsAre("sdpa"));
  EXPECT_THAT(Shapes(*spec), ElementsAre("2x16"));
  EXPECT_EQ(spec->repetitions(), 2);
  EXPECT_EQ(spec->training().timed_steps(), 3);
}

TEST_F(SpecFlagsTest, OneAxisOfTheFileCanBeReplaced) {
  const absl::StatusOr<v1::BenchmarkSpec> spec =
      Spec({"--spec=b", "--batch=2"}, "batches: 1 sequence_lengths: 8 sequence_lengths: 16");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(Shapes(*spec), ElementsAre("2x8", "2x16"));
}

TEST_F(SpecFlagsTest, ErrorsOfTheFileNameTheFile) {
  EXPECT_THAT(Error({"--spec=b.textproto"}, "preset: \"tiny\"\nrepetition: 1"), StartsWith("b.textproto:2:"));
  EXPECT_EQ(Error({"--spec=b.textproto"}, "preset: \"tiny\" repetitions: 0"),
            "b.textproto: repetitions: 0 is out of range; 1 to 1000 is possible");
  EXPECT_EQ(Error({"--spec=b.textproto", "--repetitions=0"}, "preset: \"tiny\" repetitions: 1"),
            "--repetitions: 0 is out of range; 1 to 1000 is possible");
  EXPECT_THAT(Error({"--spec=-"}, "nonsense"), StartsWith("standard input:1:"));
}

TEST_F(SpecFlagsTest, AMissingFileIsNamed) {
  EXPECT_THAT(std::string(ReadSpecFile("/nowhere/spec").status().message()), HasSubstr("/nowhere/spec"));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadSpecFile("/nowhere/spec").status()));
  EXPECT_FALSE(ReadSpecFile("")->has_value());
}

}  // namespace
}  // namespace attnfleet::client
