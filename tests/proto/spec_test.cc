#include "proto/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace attnfleet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

v1::BenchmarkSpec Preset(const std::string& name) {
  v1::BenchmarkSpec spec;
  spec.set_preset(name);
  EXPECT_TRUE(ApplyPreset(spec).ok());
  return spec;
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

std::vector<std::string> Shapes(const v1::BenchmarkSpec& spec) {
  std::vector<std::string> shapes;
  for (const v1::Shape& shape : spec.shapes()) shapes.push_back(FormatShape(shape));
  return shapes;
}

TEST(Presets, EachIsDescribedAndEachWithShapesIsValid) {
  for (const std::string& name : PresetNames()) {
    EXPECT_FALSE(PresetDescription(name).empty());
    const v1::BenchmarkSpec spec = Preset(name);
    EXPECT_EQ(ValidateSpec(spec, {"eager", "sdpa"}).ok(), name != "stock") << name;
  }
}

TEST(Presets, PublishedIsThePublishedTable) {
  const v1::BenchmarkSpec spec = Preset("published");
  EXPECT_THAT(Shapes(spec),
              ElementsAre("32x128", "32x512", "32x1024", "64x128", "64x512", "64x1024", "128x128", "128x512"));
  EXPECT_FALSE(spec.training().relative_attention_bias());
  EXPECT_FALSE(spec.training().spatial_attention_bias());
  EXPECT_EQ(spec.training().optimizer(), v1::OPTIMIZER_ADAM);
  EXPECT_DOUBLE_EQ(spec.training().learning_rate(), 0.02);
  EXPECT_EQ(spec.training().boxes(), v1::BOX_LAYOUT_UNIT);
  EXPECT_EQ(spec.training().num_labels(), 10);
  EXPECT_EQ(spec.repetitions(), 2);
}

TEST(Presets, AnIntervalEndsARunBeforeTheStepLimitButNotInTiny) {
  for (const char* name : {"stock", "published"}) {
    EXPECT_EQ(Preset(name).training().timed_steps(), 300) << name;
    EXPECT_DOUBLE_EQ(Preset(name).training().ci_width(), 0.005) << name;
  }
  EXPECT_EQ(Preset("tiny").training().timed_steps(), 20);
  EXPECT_EQ(Preset("tiny").training().ci_width(), 0);
}

TEST(Presets, NoNameMeansTheStockModel) {
  v1::BenchmarkSpec spec;
  ASSERT_TRUE(ApplyPreset(spec).ok());
  EXPECT_EQ(spec.preset(), "stock");
  EXPECT_TRUE(spec.training().spatial_attention_bias());
}

TEST(Presets, WhatIsSetWinsAndListsAreReplaced) {
  v1::BenchmarkSpec spec;
  spec.set_preset("tiny");
  spec.add_backends("flash2");
  spec.mutable_training()->set_relative_attention_bias(false);
  spec.mutable_training()->set_warmup_steps(0);
  ASSERT_TRUE(ApplyPreset(spec).ok());
  EXPECT_THAT(spec.backends(), ElementsAre("flash2"));
  EXPECT_THAT(Shapes(spec), ElementsAre("4x64", "4x128"));
  EXPECT_FALSE(spec.training().relative_attention_bias());
  EXPECT_EQ(spec.training().warmup_steps(), 0);
  EXPECT_EQ(spec.training().timed_steps(), 20);
}

TEST(Presets, ApplyingTwiceChangesNothing) {
  v1::BenchmarkSpec once = Preset("tiny");
  v1::BenchmarkSpec twice = once;
  ASSERT_TRUE(ApplyPreset(twice).ok());
  EXPECT_EQ(once.SerializeAsString(), twice.SerializeAsString());
}

TEST(Presets, UnknownOneIsToldWithTheNearest) {
  v1::BenchmarkSpec spec;
  spec.set_preset("tyni");
  EXPECT_THAT(Text(ApplyPreset(spec)), HasSubstr("did you mean \"tiny\"?"));
}

TEST(Axes, BatchesTimesSequenceLengthsBecomeShapes) {
  v1::BenchmarkSpec spec;
  for (const int batch : {32, 64}) spec.add_batches(batch);
  for (const int length : {128, 512}) spec.add_sequence_lengths(length);
  ASSERT_TRUE(ApplyPreset(spec).ok());
  EXPECT_THAT(Shapes(spec), ElementsAre("32x128", "32x512", "64x128", "64x512"));
  EXPECT_TRUE(spec.batches().empty());
}

TEST(Axes, HalfAnAxisAndTwoFormsAreErrors) {
  v1::BenchmarkSpec half;
  half.add_batches(1);
  EXPECT_THAT(Text(ApplyPreset(half)), StartsWith("sequence_lengths: "));
  v1::BenchmarkSpec both;
  both.add_batches(1);
  both.add_sequence_lengths(1);
  both.add_shapes();
  EXPECT_THAT(Text(ApplyPreset(both)), StartsWith("shapes: "));
}

TEST(Axes, AProductThatCannotRunIsRefusedBeforeItIsMade) {
  v1::BenchmarkSpec spec;
  for (int i = 1; i <= 1000; ++i) spec.add_batches(i);
  for (int i = 1; i <= 1000; ++i) spec.add_sequence_lengths(i);
  EXPECT_THAT(Text(ApplyPreset(spec)), HasSubstr("1000000 runs or more"));
  EXPECT_EQ(spec.shapes_size(), 0);
}

struct Wrong {
  std::string field;
  std::function<void(v1::BenchmarkSpec&)> spoil;
};

TEST(Validation, EveryWrongFieldIsNamed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Wrong> wrongs = {
      {"backends", [](v1::BenchmarkSpec& s) { s.clear_backends(); }},
      {"backends", [](v1::BenchmarkSpec& s) { s.add_backends("eager"); }},
      {"shapes", [](v1::BenchmarkSpec& s) { s.clear_shapes(); }},
      {"shapes[0].batch", [](v1::BenchmarkSpec& s) { s.mutable_shapes(0)->set_batch(0); }},
      {"shapes[0].batch", [](v1::BenchmarkSpec& s) { s.mutable_shapes(0)->set_batch(kMaxBatch + 1); }},
      {"shapes[1].sequence_length", [](v1::BenchmarkSpec& s) { s.mutable_shapes(1)->set_sequence_length(-1); }},
      {"shapes[2]", [](v1::BenchmarkSpec& s) { *s.add_shapes() = v1::Shape(s.shapes(0)); }},
      {"repetitions", [](v1::BenchmarkSpec& s) { s.set_repetitions(0); }},
      {"repetitions", [](v1::BenchmarkSpec& s) { s.set_repetitions(kMaxRepetitions + 1); }},
      {"max_attempts", [](v1::BenchmarkSpec& s) { s.set_max_attempts(0); }},
      {"run_timeout_seconds", [](v1::BenchmarkSpec& s) { s.set_run_timeout_seconds(0.5); }},
      {"run_timeout_seconds", [nan](v1::BenchmarkSpec& s) { s.set_run_timeout_seconds(nan); }},
      {"training.timed_steps", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_timed_steps(0); }},
      {"training.warmup_steps", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_warmup_steps(-1); }},
      {"training.num_labels", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_num_labels(1); }},
      {"training.hidden_dropout", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_hidden_dropout(1); }},
      {"training.attention_dropout", [nan](v1::BenchmarkSpec& s) { s.mutable_training()->set_attention_dropout(nan); }},
      {"training.learning_rate", [nan](v1::BenchmarkSpec& s) { s.mutable_training()->set_learning_rate(nan); }},
      {"training.learning_rate", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_learning_rate(0); }},
      {"training.data_loader_threads",
       [](v1::BenchmarkSpec& s) { s.mutable_training()->set_data_loader_threads(999); }},
      {"training.model_size",
       [](v1::BenchmarkSpec& s) { s.mutable_training()->set_model_size(static_cast<v1::ModelSize>(9)); }},
      {"training.boxes", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_boxes(static_cast<v1::BoxLayout>(9)); }},
      {"training.attention_dropout_placement",
       [](v1::BenchmarkSpec& s) {
         s.mutable_training()->set_attention_dropout_placement(static_cast<v1::DropoutPlacement>(9));
       }},
      {"training.precision",
       [](v1::BenchmarkSpec& s) { s.mutable_training()->set_precision(static_cast<v1::Precision>(9)); }},
      {"training.step", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_step(static_cast<v1::TrainingStep>(9)); }},
      {"training.step",
       [](v1::BenchmarkSpec& s) {
         s.mutable_training()->set_step(v1::TRAINING_STEP_FUSED);
         s.mutable_training()->set_precision(v1::PRECISION_BF16);
       }},
      {"training.step",
       [](v1::BenchmarkSpec& s) {
         s.mutable_training()->set_step(v1::TRAINING_STEP_FUSED_BF16_STREAM);
         s.mutable_training()->set_precision(v1::PRECISION_FP32);
       }},
      {"training.warmup_limit_steps", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_warmup_limit_steps(4); }},
      {"training.ci_width", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_ci_width(1); }},
      {"training.ci_width", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_ci_width(-0.1); }},
      {"training.ci_width", [nan](v1::BenchmarkSpec& s) { s.mutable_training()->set_ci_width(nan); }},
      {"training.data_file", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_data_file("../secret"); }},
      {"training.data_file", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_data_file(".."); }},
      {"training.weights_file", [](v1::BenchmarkSpec& s) { s.mutable_training()->set_weights_file("/etc/passwd"); }},
      {"training.weights_file",
       [](v1::BenchmarkSpec& s) { s.mutable_training()->set_weights_file(std::string(256, 'x')); }},
      {"name", [](v1::BenchmarkSpec& s) { s.set_name(std::string(201, 'x')); }},
      {"requirements.min_memory_bytes",
       [](v1::BenchmarkSpec& s) { s.mutable_requirements()->set_min_memory_bytes(-1); }},
  };
  for (const Wrong& wrong : wrongs) {
    v1::BenchmarkSpec spec = Preset("tiny");
    wrong.spoil(spec);
    const absl::Status status = ValidateSpec(spec, {"eager", "sdpa"});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << wrong.field;
    EXPECT_THAT(Text(status), StartsWith(wrong.field + ": ")) << wrong.field;
  }
}

TEST(Validation, UnknownBackendIsToldOnlyWhenTheBackendsAreKnown) {
  v1::BenchmarkSpec spec = Preset("tiny");
  spec.add_backends("flsh");
  EXPECT_TRUE(ValidateSpec(spec, {}).ok());
  EXPECT_THAT(Text(ValidateSpec(spec, {"eager", "sdpa", "flash2"})),
              HasSubstr("unknown backend \"flsh\"; did you mean \"flash2\"?"));
  spec.set_backends(2, "no name!");
  EXPECT_FALSE(ValidateSpec(spec, {}).ok());
}

TEST(Validation, TooManyRunsAreRefused) {
  v1::BenchmarkSpec spec = Preset("tiny");
  spec.clear_shapes();
  for (int i = 1; i <= 51; ++i) {
    spec.add_shapes()->set_batch(i);
    spec.mutable_shapes(i - 1)->set_sequence_length(1);
  }
  spec.set_repetitions(1000);
  EXPECT_THAT(Text(ValidateSpec(spec, {})), HasSubstr("102000 runs"));
}

TEST(Expansion, BackendsOfAShapeFormAContiguousGroup) {
  v1::BenchmarkSpec spec = Preset("tiny");
  const std::vector<v1::Job> jobs = ExpandJobs(7, spec);
  ASSERT_EQ(jobs.size(), 4U);
  for (size_t i = 0; i < jobs.size(); ++i) {
    EXPECT_EQ(jobs[i].index(), i);
    EXPECT_EQ(jobs[i].group(), i / 2);
    EXPECT_EQ(jobs[i].backend(), i % 2 == 0 ? "eager" : "sdpa");
    ASSERT_EQ(jobs[i].runs_size(), 3);
    EXPECT_EQ(FormatRunKey(jobs[i].runs(2).key()), "7/" + std::to_string(i) + "/2");
    EXPECT_EQ(jobs[i].runs(2).state(), v1::RUN_STATE_QUEUED);
  }
}

TEST(Expansion, ARunIsSelfContainedAndEachRepetitionHasItsSeed) {
  const v1::BenchmarkSpec spec = Preset("tiny");
  const v1::Job job = ExpandJobs(7, spec)[3];
  const v1::StartRun start = MakeStartRun(spec, job.runs(2).key(), 1, "cpu0");
  EXPECT_EQ(start.backend(), "sdpa");
  EXPECT_EQ(FormatShape(start.shape()), "4x128");
  EXPECT_EQ(start.training().seed(), spec.training().seed() + 2);
  EXPECT_EQ(start.attempt(), 1U);
  EXPECT_EQ(start.slot(), "cpu0");
  EXPECT_DOUBLE_EQ(start.timeout_seconds(), spec.run_timeout_seconds());
}

TEST(Expansion, EachNodeGetsEveryCellInGroupsOfItsOwn) {
  v1::Benchmark benchmark;
  benchmark.set_id(7);
  *benchmark.mutable_spec() = Preset("tiny");
  EXPECT_EQ(ExpandJobs(benchmark).size(), 4U) << "no node yet";
  for (const char* worker : {"w1", "w2"}) benchmark.add_nodes()->set_worker(worker);
  const std::vector<v1::Job> jobs = ExpandJobs(benchmark);
  ASSERT_EQ(jobs.size(), 8U);
  for (size_t i = 0; i < jobs.size(); ++i) {
    EXPECT_EQ(jobs[i].index(), i);
    EXPECT_EQ(jobs[i].group(), i / 2);
    EXPECT_EQ(jobs[i].node().worker(), i < 4 ? "w1" : "w2");
    EXPECT_EQ(FormatRunKey(jobs[i].runs(2).key()), "7/" + std::to_string(i) + "/2");
    const v1::StartRun start = MakeStartRun(benchmark.spec(), jobs[i].runs(0).key(), 1, "cpu0");
    EXPECT_EQ(start.backend(), jobs[i].backend());
    EXPECT_EQ(FormatShape(start.shape()), FormatShape(jobs[i].shape()));
  }
}

TEST(ValidateSpec, SchedulingFieldsAreBoundedAndNamed) {
  const auto error = [](const std::function<void(v1::BenchmarkSpec&)>& change) {
    v1::BenchmarkSpec spec = Preset("tiny");
    change(spec);
    return Text(ValidateSpec(spec, {}));
  };
  EXPECT_THAT(error([](auto& spec) { spec.set_priority(1001); }), HasSubstr("priority: 1001"));
  EXPECT_THAT(error([](auto& spec) { spec.set_max_slots(-1); }), HasSubstr("max_slots: -1"));
  EXPECT_THAT(error([](auto& spec) { spec.set_deadline_seconds(0.5); }), HasSubstr("deadline_seconds: 0.5"));
  EXPECT_THAT(error([](auto& spec) { spec.set_max_worker_losses(0); }), HasSubstr("max_worker_losses: 0"));
  EXPECT_THAT(error([](auto& spec) { spec.mutable_requirements()->set_count(-2); }), HasSubstr("requirements.count"));
  EXPECT_THAT(error([](auto& spec) { spec.set_placement(static_cast<v1::Placement>(9)); }), HasSubstr("placement: 9"));
}

TEST(Expansion, TheNumericalCheckIsTheFirstRepetitionsAlone) {
  const v1::BenchmarkSpec spec = Preset("tiny");
  const v1::Job job = ExpandJobs(7, spec)[0];
  EXPECT_TRUE(MakeStartRun(spec, job.runs(0).key(), 1, "cpu0").training().numerical_check());
  EXPECT_FALSE(MakeStartRun(spec, job.runs(1).key(), 1, "cpu0").training().numerical_check());
}

TEST(Expansion, PublishedDropoutIsResolvedForEachBackend) {
  const v1::BenchmarkSpec spec = Preset("published");
  const std::vector<v1::Job> jobs = ExpandJobs(7, spec);
  const auto placement = [&](const v1::Job& job) {
    return MakeStartRun(spec, job.runs(0).key(), 1, "gpu0").training().attention_dropout_placement();
  };
  EXPECT_EQ(placement(jobs[0]), v1::DROPOUT_PLACEMENT_PROBABILITIES);
  EXPECT_EQ(placement(jobs[1]), v1::DROPOUT_PLACEMENT_OUTPUT);
  const v1::BenchmarkSpec tiny = Preset("tiny");
  EXPECT_EQ(MakeStartRun(tiny, ExpandJobs(7, tiny)[1].runs(0).key(), 1, "c").training().attention_dropout_placement(),
            v1::DROPOUT_PLACEMENT_PROBABILITIES);
}

TEST(ValidateSpec, ABenchmarkFitsInOneMessage) {
  v1::BenchmarkSpec spec;
  spec.set_preset("tiny");
  spec.set_repetitions(1000);
  spec.mutable_training()->set_timed_steps(8001);  // x 2 backends x 2 shapes x 1,000 repetitions
  ASSERT_EQ(ApplyPreset(spec), absl::OkStatus());
  EXPECT_THAT(std::string(ValidateSpec(spec, {}).message()), testing::StartsWith("training.timed_steps: 8001"));
  spec.mutable_training()->set_timed_steps(8000);
  EXPECT_EQ(ValidateSpec(spec, {}), absl::OkStatus());
}

TEST(ValidateSpec, NameIsText) {
  v1::BenchmarkSpec spec;
  spec.set_preset("tiny");
  spec.set_name("\xff");
  ASSERT_EQ(ApplyPreset(spec), absl::OkStatus());
  EXPECT_EQ(ValidateSpec(spec, {}).message(), "name: \"?\" is no UTF-8 text");
}

// What a hostile client can put into a message that is small itself.
TEST(CheckSize, AProductOfAxesIsRefusedBeforeItIsMade) {
  v1::BenchmarkSpec spec;
  for (int i = 1; i <= 10; ++i) spec.add_backends("b" + std::to_string(i));
  for (int i = 1; i <= 1000; ++i) spec.add_batches(i);
  for (int i = 1; i <= 1000; ++i) spec.add_sequence_lengths(i);
  spec.set_repetitions(100);  // 1e9 runs
  const absl::Status status = ApplyPreset(spec);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(Text(status), HasSubstr("at most 100000 are possible in one benchmark"));
  EXPECT_EQ(spec.shapes_size(), 0);
}

TEST(CheckSize, TheLargestRepetitionsCannotOverflow) {
  v1::BenchmarkSpec spec;
  for (int i = 0; i < 64; ++i) spec.add_backends("b");
  for (int i = 0; i < 1000; ++i) spec.add_shapes();
  spec.set_repetitions(std::numeric_limits<int32_t>::max());
  EXPECT_THAT(Text(CheckSize(spec)), HasSubstr("137438953408000 runs or more"));
}

TEST(CheckSize, LongTextsAndManyOfThemNameTheField) {
  const std::string text(201, 'x');
  const auto problem = [](const std::function<void(v1::BenchmarkSpec&)>& change) {
    v1::BenchmarkSpec spec;
    change(spec);
    return Text(ApplyPreset(spec));
  };
  EXPECT_THAT(problem([&](auto& s) { s.set_name(text); }), HasSubstr("name: 201 bytes long; at most 200"));
  EXPECT_THAT(problem([&](auto& s) { s.set_preset(text); }), HasSubstr("preset: 201 bytes"));
  EXPECT_THAT(problem([&](auto& s) { s.add_backends(text); }), HasSubstr("backends: 201 bytes"));
  EXPECT_THAT(problem([&](auto& s) { s.mutable_training()->set_data_file(text); }), HasSubstr("data_file: 201 bytes"));
  EXPECT_THAT(problem([&](auto& s) { (*s.mutable_requirements()->mutable_labels())[text] = "v"; }),
              HasSubstr("requirements.labels: 201 bytes"));
  EXPECT_THAT(problem([](auto& s) {
                for (int i = 0; i < 33; ++i) (*s.mutable_requirements()->mutable_labels())[std::to_string(i)] = "v";
              }),
              HasSubstr("requirements.labels: 33"));
  EXPECT_THAT(problem([](auto& s) {
                for (int i = 0; i < 65; ++i) s.add_backends(std::to_string(i));
              }),
              HasSubstr("backends: 65"));
}

}  // namespace
}  // namespace attnfleet
