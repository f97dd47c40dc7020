#include "worker/message_json.h"

#include <google/protobuf/descriptor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"

namespace attnfleet::worker {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Json = nlohmann::json;

// Takes the text token by token, so that nothing of it is kept but what the message has a place for. Every call returns
// false for what does not fit, which ends the reading.
class Filler final : public nlohmann::json_sax<Json> {
 public:
  explicit Filler(Message& message) : root_(message) {}

  bool null() override { return !levels_.empty(); }

  bool boolean(bool value) override {
    return Take([value](const Place& place) {
      if (place.field->cpp_type() != FieldDescriptor::CPPTYPE_BOOL) return false;
      place.Put(&Reflection::SetBool, &Reflection::AddBool, value);
      return true;
    });
  }

  bool number_integer(int64_t value) override { return Number(value); }
  bool number_unsigned(uint64_t value) override { return Number(value); }

  bool number_float(double value, const std::string& /*text*/) override {
    return Take([value](const Place& place) {
      if (place.field->cpp_type() != FieldDescriptor::CPPTYPE_DOUBLE) return false;
      place.Put(&Reflection::SetDouble, &Reflection::AddDouble, value);
      return true;
    });
  }

  bool string(std::string& value) override {
    return Take([&value](const Place& place) { return place.PutText(value); });
  }

  bool binary(Json::binary_t& /*value*/) override { return false; }  // of other formats

  bool start_object(size_t /*elements*/) override {
    if (levels_.empty()) {
      levels_.push_back({&root_});
      return true;
    }
    if (Skips()) {
      ++skipped_;
      return true;
    }
    const Place& level = levels_.back();
    if (level.field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || !level.Fits()) return false;
    const Reflection& reflection = *level.message->GetReflection();
    levels_.push_back({level.in_array ? reflection.AddMessage(level.message, level.field)
                                      : reflection.MutableMessage(level.message, level.field)});
    return true;
  }

  bool key(std::string& name) override {
    if (skipped_ == 0) levels_.back().field = levels_.back().message->GetDescriptor()->FindFieldByName(name);
    return true;
  }

  bool end_object() override {
    if (skipped_ > 0) {
      --skipped_;
    } else if (levels_.size() > 1) {
      levels_.pop_back();
    }
    return true;
  }

  bool start_array(size_t /*elements*/) override {
    if (levels_.empty()) return false;
    if (Skips()) {
      ++skipped_;
      return true;
    }
    Place& level = levels_.back();
    if (!level.field->is_repeated() || level.in_array) return false;
    level.in_array = true;
    return true;
  }

  bool end_array() override {
    if (skipped_ > 0) {
      --skipped_;
    } else {
      levels_.back().in_array = false;
    }
    return true;
  }

  bool parse_error(size_t /*position*/, const std::string& /*token*/, const Json::exception& /*error*/) override {
    return false;
  }

 private:
  // Where the next value goes.
  struct Place {
    Message* message;
    const FieldDescriptor* field = nullptr;  // none: skipped
    bool in_array = false;

    bool Fits() const { return field->is_repeated() == in_array; }

    template <typename Value>
    void Put(void (Reflection::*set)(Message*, const FieldDescriptor*, Value) const,
             void (Reflection::*add)(Message*, const FieldDescriptor*, Value) const, Value value) const {
      (message->GetReflection()->*(in_array ? add : set))(message, field, std::move(value));
    }

    template <typename Value>
    bool PutNumber(Value value) const {
      switch (field->cpp_type()) {
        case FieldDescriptor::CPPTYPE_INT32:
          if (!std::in_range<int32_t>(value)) return false;
          Put(&Reflection::SetInt32, &Reflection::AddInt32, static_cast<int32_t>(value));
          return true;
        case FieldDescriptor::CPPTYPE_UINT32:
          if (!std::in_range<uint32_t>(value)) return false;
          Put(&Reflection::SetUInt32, &Reflection::AddUInt32, static_cast<uint32_t>(value));
          return true;
        case FieldDescriptor::CPPTYPE_INT64:
          if (!std::in_range<int64_t>(value)) return false;
          Put(&Reflection::SetInt64, &Reflection::AddInt64, static_cast<int64_t>(value));
          return true;
        case FieldDescriptor::CPPTYPE_UINT64:
          if (!std::in_range<uint64_t>(value)) return false;
          Put(&Reflection::SetUInt64, &Reflection::AddUInt64, static_cast<uint64_t>(value));
          return true;
        case FieldDescriptor::CPPTYPE_DOUBLE:
          Put(&Reflection::SetDouble, &Reflection::AddDouble, static_cast<double>(value));
          return true;
        case FieldDescriptor::CPPTYPE_ENUM:
          if (!std::in_range<int>(value)) return false;
          Put(&Reflection::SetEnumValue, &Reflection::AddEnumValue, static_cast<int>(value));
          return true;
        default:
          return false;
      }
    }

    // A text, the name of an enum's value, or a number that JSON has no other way to write exactly.
    bool PutText(std::string& value) const {
      switch (field->cpp_type()) {
        case FieldDescriptor::CPPTYPE_STRING:
          Put(&Reflection::SetString, &Reflection::AddString, std::move(value));
          return true;
        case FieldDescriptor::CPPTYPE_ENUM: {
          const auto* known = field->enum_type()->FindValueByName(value);
          if (known != nullptr) Put(&Reflection::SetEnum, &Reflection::AddEnum, known);
          return true;
        }
        case FieldDescriptor::CPPTYPE_DOUBLE: {
          double number = 0;
          if (!absl::SimpleAtod(value, &number)) return false;
          Put(&Reflection::SetDouble, &Reflection::AddDouble, number);
          return true;
        }
        case FieldDescriptor::CPPTYPE_UINT64: {
          uint64_t number = 0;
          return absl::SimpleAtoi(value, &number) && PutNumber(number);
        }
        default: {
          int64_t number = 0;
          return absl::SimpleAtoi(value, &number) && PutNumber(number);
        }
      }
    }
  };
  bool Skips() const { return skipped_ > 0 || levels_.back().field == nullptr; }

  template <typename Put>
  bool Take(const Put& put) {
    if (levels_.empty()) return false;
    if (Skips()) return true;
    return levels_.back().Fits() && put(levels_.back());
  }

  template <typename Value>
  bool Number(Value value) {
    return Take([value](const Place& place) { return place.PutNumber(value); });
  }

  Message& root_;
  std::vector<Place> levels_;  // the messages that are open; the outermost stays
  size_t skipped_ = 0;         // objects and arrays that are open in a field that is not known
};

}  // namespace

bool MessageFromJson(std::string_view json, Message& message) {
  Filler filler(message);
  return Json::sax_parse(json, &filler);
}

}  // namespace attnfleet::worker
