#include "client/spec_command.h"

#include <gtest/gtest.h>

#include <sstream>

#include "client/spec_flags.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

// The spec that a command line without quotes describes.
v1::BenchmarkSpec SpecOf(const std::string& command) {
  std::istringstream words(command);
  std::string word;
  words >> word >> word;
  std::vector<std::string> arguments;
  while (words >> word) arguments.push_back(word);
  SpecFlags flags;
  EXPECT_TRUE(ParseArguments(arguments, flags.Flags()).ok()) << command;
  return flags.Spec(std::nullopt, {}).value_or(v1::BenchmarkSpec());
}

TEST(SpecCommand, APresetAloneIsAllThereIsToSay) {
  EXPECT_EQ(SpecCommand(SpecOf("attnfleet run --preset=tiny")), "attnfleet run --preset=tiny");
  EXPECT_EQ(SpecCommand(SpecOf("attnfleet run --preset=published")), "attnfleet run --preset=published");
}

TEST(SpecCommand, DoesNotNameThePresetThatNobodyAskedFor) {
  EXPECT_EQ(SpecCommand(SpecOf("attnfleet run --shapes=2x8")), "attnfleet run --shapes=2x8");
}

TEST(SpecCommand, EverySettingComesBack) {
  const v1::BenchmarkSpec spec = SpecOf(
      "attnfleet run --preset=published --backends=eager,cudnn --shapes=1x8,2x16 --repetitions=7 --steps=9 "
      "--ci-width=1% --warmup=3 --warmup-limit=4 --check=off --model=large --labels=5 --relative-bias=on --image=on "
      "--train-bias-tables=on --hidden-dropout=0.2 --attention-dropout=0.3 --dropout-placement=output --precision=tf32 "
      "--optimizer=adamw --step=fused --learning-rate=1e-3 --data-loader-threads=3 --seed=18446744073709551615 "
      "--boxes=random "
      "--data-file=d.jsonl --weights-file=w.safetensors --device=cuda --device-name=H100 --min-memory=79.5 --count=2 "
      "--placement=every --run-timeout=5400 --max-attempts=1 --max-worker-losses=4 --label=rack=7");
  EXPECT_EQ(SpecOf(SpecCommand(spec)).SerializeAsString(), spec.SerializeAsString()) << SpecCommand(spec);
}

TEST(SpecCommand, LeavesOutHowUrgentItWas) {
  EXPECT_EQ(SpecCommand(SpecOf("attnfleet run --preset=tiny --priority=5 --max-slots=2 --deadline=2h --name=x")),
            "attnfleet run --preset=tiny");
}

// Specs of before there was a choice have none.
TEST(SpecCommand, KnowsNoLossesOfWorkersThatTheSpecDoesNot) {
  v1::BenchmarkSpec spec = SpecOf("attnfleet run --preset=tiny");
  spec.clear_max_worker_losses();
  EXPECT_EQ(SpecCommand(spec), "attnfleet run --preset=tiny");
}

TEST(SpecCommand, QuotesWhatAShellWouldRead) {
  v1::BenchmarkSpec spec = SpecOf("attnfleet run --preset=tiny");
  spec.mutable_training()->set_data_file("it's $HOME");
  EXPECT_EQ(SpecCommand(spec), "attnfleet run --preset=tiny --data-file='it'\\''s $HOME'");
}

}  // namespace
}  // namespace attnfleet::client
