#include "worker/message_json.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>

#include <cmath>
#include <limits>
#include <string>

#include "attnfleet/v1/trainer.pb.h"

namespace attnfleet::worker {
namespace {

namespace util = google::protobuf::util;

// A value that tells the field in every field, two in repeated ones.
void FillAll(google::protobuf::Message& message) {
  using google::protobuf::FieldDescriptor;
  const auto& descriptor = *message.GetDescriptor();
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor* field = descriptor.field(i);
    for (int times = field->is_repeated() ? 2 : 1; times > 0; --times) {
      const bool add = field->is_repeated();
      const int number = field->number() * 10 + times;
      switch (field->cpp_type()) {
        case FieldDescriptor::CPPTYPE_INT32:
          add ? reflection.AddInt32(&message, field, -number) : reflection.SetInt32(&message, field, -number);
          break;
        case FieldDescriptor::CPPTYPE_INT64:
          reflection.SetInt64(&message, field, std::numeric_limits<int64_t>::min() + number);
          break;
        case FieldDescriptor::CPPTYPE_UINT64:
          reflection.SetUInt64(&message, field, std::numeric_limits<uint64_t>::max() - static_cast<uint64_t>(number));
          break;
        case FieldDescriptor::CPPTYPE_DOUBLE: {
          const double value = 1 / (static_cast<double>(number) + 0.1);
          add ? reflection.AddDouble(&message, field, value) : reflection.SetDouble(&message, field, value);
          break;
        }
        case FieldDescriptor::CPPTYPE_BOOL:
          reflection.SetBool(&message, field, true);
          break;
        case FieldDescriptor::CPPTYPE_ENUM: {
          const auto* last = field->enum_type()->value(field->enum_type()->value_count() - 1);
          add ? reflection.AddEnum(&message, field, last) : reflection.SetEnum(&message, field, last);
          break;
        }
        case FieldDescriptor::CPPTYPE_STRING: {
          const std::string text = field->name() + " \"\\\n\x01 \u00e9\U0001f600 " + std::to_string(number);
          add ? reflection.AddString(&message, field, text) : reflection.SetString(&message, field, text);
          break;
        }
        case FieldDescriptor::CPPTYPE_MESSAGE:
          FillAll(add ? *reflection.AddMessage(&message, field) : *reflection.MutableMessage(&message, field));
          break;
        default:
          FAIL() << "no trainer writes a field like " << field->full_name();
      }
    }
  }
}

template <typename T>
void ExpectReadBack(const T& message) {
  util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  ASSERT_TRUE(util::MessageToJsonString(message, &json, options).ok());
  T read;
  EXPECT_TRUE(MessageFromJson(json, read));
  util::MessageDifferencer differencer;
  std::string difference;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(message, read)) << difference << json;
}

TEST(MessageFromJson, ReadsEveryFieldOfWhatProtobufWrites) {
  v1::TrainerEvent event;
  FillAll(*event.mutable_started());
  ExpectReadBack(event);
  FillAll(*event.mutable_progress());
  ExpectReadBack(event);
  FillAll(*event.mutable_result());
  ExpectReadBack(event);
  v1::TrainerCapabilities capabilities;
  FillAll(capabilities);
  ExpectReadBack(capabilities);
  ExpectReadBack(v1::RunResult());
}

TEST(MessageFromJson, TakesNumbersInEveryFormThatIsExact) {
  v1::Measurement measurement;
  ASSERT_TRUE(MessageFromJson(R"({"timed_steps":"7","peak_resident_bytes":5,"model_bytes":"9007199254740993",
      "wall_seconds":3,"first_loss":"NaN","last_loss":"-Infinity","step_seconds":[1,"Infinity",2e-3],
      "attention_dropout_placement":2})",
                              measurement));
  EXPECT_EQ(measurement.timed_steps(), 7);
  EXPECT_EQ(measurement.peak_resident_bytes(), 5);
  EXPECT_EQ(measurement.model_bytes(), 9007199254740993);
  EXPECT_EQ(measurement.wall_seconds(), 3);
  EXPECT_TRUE(std::isnan(measurement.first_loss()));
  EXPECT_EQ(measurement.last_loss(), -std::numeric_limits<double>::infinity());
  EXPECT_THAT(measurement.step_seconds(), testing::ElementsAre(1, std::numeric_limits<double>::infinity(), 2e-3));
  EXPECT_EQ(measurement.attention_dropout_placement(), v1::DROPOUT_PLACEMENT_OUTPUT);
}

TEST(MessageFromJson, SkipsWhatItDoesNotKnow) {
  v1::Measurement measurement;
  ASSERT_TRUE(MessageFromJson(R"({"new":{"timed_steps":1,"a":[[{}],null,"x"]},"newer":[{"b":[1.5]},[true]],"newest":-1,
      "timed_steps":4,"wall_seconds":null,"numerical_check":{"mood":{"samples":1},"samples":2},
      "attention_dropout_placement":"DROPOUT_PLACEMENT_NEW","step_seconds":[0.5,null]})",
                              measurement));
  v1::Measurement expected;
  expected.set_timed_steps(4);
  expected.mutable_numerical_check()->set_samples(2);
  expected.add_step_seconds(0.5);
  EXPECT_TRUE(util::MessageDifferencer::Equals(measurement, expected)) << measurement.ShortDebugString();
}

TEST(MessageFromJson, RefusesWhatDoesNotFit) {
  for (const char* bad : {"",
                          "{",
                          "}",
                          "[]",
                          "null",
                          "7",
                          "\"text\"",
                          "true",
                          "{} {}",
                          "{}x",
                          "{\"timed_steps\":}",
                          "{\"timed_steps\":1,}",
                          "{\"timed_steps\":1.5}",
                          "{\"timed_steps\":2147483648}",
                          "{\"timed_steps\":-2147483649}",
                          "{\"timed_steps\":\"x\"}",
                          "{\"timed_steps\":[1]}",
                          "{\"timed_steps\":{}}",
                          "{\"timed_steps\":true}",
                          "{\"warmup_stable\":1}",
                          "{\"warmup_stable\":\"true\"}",
                          "{\"peak_resident_bytes\":9223372036854775808}",
                          "{\"wall_seconds\":1e999}",
                          "{\"wall_seconds\":\"fast\"}",
                          "{\"step_seconds\":1}",
                          "{\"step_seconds\":[[1]]}",
                          "{\"step_seconds\":[{}]}",
                          "{\"numerical_check\":3}",
                          "{\"numerical_check\":[{}]}",
                          "{\"attention_kernels\":[7]}",
                          "{\"attention_kernels_unknown\":\"\xff\"}",
                          "{\"attention_kernels_unknown\":\"\\ud800\"}",
                          "{timed_steps:1}"}) {
    v1::Measurement measurement;
    EXPECT_FALSE(MessageFromJson(bad, measurement)) << bad;
  }
}

TEST(MessageFromJson, DepthCostsNothing) {
  v1::Measurement measurement;
  constexpr size_t kDeep = 1'000'000;
  const std::string deep = "{\"new\":" + std::string(kDeep, '[') + std::string(kDeep, ']') + ",\"timed_steps\":3}";
  EXPECT_TRUE(MessageFromJson(deep, measurement));
  EXPECT_EQ(measurement.timed_steps(), 3);
  EXPECT_FALSE(MessageFromJson(std::string(kDeep, '['), measurement));
}

}  // namespace
}  // namespace attnfleet::worker
