#include "worker/trainer/config.h"

#include <absl/flags/reflection.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attnfleet::trainer {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

absl::StatusOr<Config> Parse(std::vector<const char*> arguments) {
  const absl::FlagSaver restore;  // the flags are global
  arguments.insert(arguments.begin(), "attnfleet-trainer");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

TEST(Config, DefaultsAreTheModelThatPeopleTrain) {
  const Config config = Parse({}).value();
  EXPECT_EQ(config.backend, "sdpa");
  EXPECT_EQ(config.model.hidden_size, 768);
  EXPECT_TRUE(config.model.relative_bias);
  EXPECT_TRUE(config.model.spatial_bias);
  EXPECT_EQ(config.model.hidden_dropout, 0.1);
  EXPECT_EQ(config.model.labels, 10);
  EXPECT_EQ(config.model.max_positions, 514);
  EXPECT_EQ(config.optimizer, Optimizer::kAdamW);
  EXPECT_EQ(config.learning_rate, 1e-5);
  EXPECT_EQ(config.boxes, Boxes::kDocument);
  EXPECT_EQ(config.warmup_steps, 10);
  EXPECT_EQ(config.timed_steps, 100);
  EXPECT_EQ(config.data_loader_threads, 16);
}

TEST(Config, LongSequenceExtendsThePositionTable) {
  EXPECT_EQ(Parse({"--sequence-length=1024"}).value().model.max_positions, 1026);
  EXPECT_EQ(Parse({"--sequence-length=512"}).value().model.max_positions, 514);
}

TEST(Config, EveryModelSizeHasEvenHeadsAndFittingSpatialTables) {
  for (const char* size : {"--model=tiny", "--model=base", "--model=large"}) {
    const ModelConfig model = Parse({size}).value().model;
    EXPECT_EQ(4 * model.coordinate_size + 2 * model.shape_size, model.hidden_size) << size;
    EXPECT_EQ(model.head_size(), 64) << size;
  }
}

TEST(Config, PublishedSettings) {
  const Config config = Parse({"--norelative-bias", "--spatial-bias=false", "--optimizer=adam", "--learning-rate=0.02",
                               "--boxes=unit", "--precision=bf16-mixed"})
                            .value();
  EXPECT_FALSE(config.model.relative_bias);
  EXPECT_FALSE(config.model.spatial_bias);
  EXPECT_EQ(config.optimizer, Optimizer::kAdam);
  EXPECT_EQ(config.learning_rate, 0.02);
  EXPECT_EQ(config.boxes, Boxes::kUnit);
  EXPECT_EQ(config.precision, Precision::kBf16Mixed);
  EXPECT_EQ(config.step, StepKind::kReference);
  for (const StepKind step : {StepKind::kReference, StepKind::kFused, StepKind::kFusedBf16Stream}) {
    const std::string flag = absl::StrCat("--step=", StepName(step));
    EXPECT_EQ(Parse({flag.c_str()}).value().step, step);
  }
}

struct WrongFlag {
  const char* argument;
  const char* flag;   // named in the message
  const char* given;  // too
};

void PrintTo(const WrongFlag& wrong, std::ostream* stream) { *stream << wrong.argument; }

class WrongFlags : public testing::TestWithParam<WrongFlag> {};

TEST_P(WrongFlags, AreOneLineThatNamesFlagAndValue) {
  const absl::StatusOr<Config> config = Parse({GetParam().argument});
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(config.status().message()),
              AllOf(HasSubstr(GetParam().flag), HasSubstr(GetParam().given), Not(HasSubstr("\n"))));
}

TEST(Config, VerifyHasNoBf16Stream) {
  const absl::StatusOr<Config> config = Parse({"--verify=case", "--step=fused-bf16-stream"});
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().message(),
            "--verify: checks in fp32, so not --step=fused-bf16-stream; give --step=fused or reference");
  EXPECT_TRUE(Parse({"--verify=case", "--step=fused"}).ok());
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongFlags,
    testing::Values(WrongFlag{"--batch=0", "--batch", "1 to 65536"}, WrongFlag{"--batch=65537", "--batch", "65537"},
                    WrongFlag{"--sequence-length=8193", "--sequence-length", "8193"},
                    WrongFlag{"--model=huge", "--model", "available: tiny, base, large"},
                    WrongFlag{"--device=gpu", "--device", "cuda"}, WrongFlag{"--warmup=-1", "--warmup", "-1"},
                    WrongFlag{"--steps=0", "--steps", "0"}, WrongFlag{"--steps=many", "--steps", "many"},
                    WrongFlag{"--labels=1", "--labels", "2 to 1000"},
                    WrongFlag{"--hidden-dropout=1", "--hidden-dropout", "0 <= p < 1"},
                    WrongFlag{"--attention-dropout=nan", "--attention-dropout", "nan"},
                    WrongFlag{"--precision=bf61", "--precision", "bf16"},
                    WrongFlag{"--optimizer=sgd", "--optimizer", "adamw"},
                    WrongFlag{"--step=fuse", "--step", "\"fused\""},
                    WrongFlag{"--learning-rate=0", "--learning-rate", "0 < rate <= 1"},
                    WrongFlag{"--data-loader-threads=257", "--data-loader-threads", "257"},
                    WrongFlag{"--ci-width=half", "--ci-width", "\"half\" is no part of a whole"},
                    WrongFlag{"--seed=-1", "--seed", "-1"}, WrongFlag{"--boxes=units", "--boxes", "\"unit\""},
                    WrongFlag{"--json", "--json", "--list-backends"}, WrongFlag{"--bacth=1", "--bacth", "\"--batch\""},
                    WrongFlag{"tiny", "tiny", "no flag"}));

TEST(Config, HelpNamesEveryFlag) {
  const std::string usage = UsageText();
  for (const char* flag : {"--backend",       "--batch",        "--sequence-length", "--model",
                           "--device",        "--warmup",       "--steps",           "--labels",
                           "--relative-bias", "--spatial-bias", "--hidden-dropout",  "--attention-dropout",
                           "--precision",     "--optimizer",    "--learning-rate",   "--data-loader-threads",
                           "--step",          "--seed",         "--boxes",           "--torch",
                           "--parent-pid",    "--list-backends"}) {
    EXPECT_THAT(usage, HasSubstr(flag));
  }
}

}  // namespace
}  // namespace attnfleet::trainer
