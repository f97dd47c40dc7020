#include "client/message_json.h"

#include <google/protobuf/descriptor.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/suggest.h"

namespace attnfleet::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Json = nlohmann::ordered_json;

Json ToJson(const Message& message);

// `index` < 0: the field is not repeated.
Json Value(const Message& message, const FieldDescriptor* field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool repeated = index >= 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return repeated ? r.GetRepeatedInt32(message, field, index) : r.GetInt32(message, field);
    case FieldDescriptor::CPPTYPE_INT64:
      return repeated ? r.GetRepeatedInt64(message, field, index) : r.GetInt64(message, field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return repeated ? r.GetRepeatedUInt32(message, field, index) : r.GetUInt32(message, field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return repeated ? r.GetRepeatedUInt64(message, field, index) : r.GetUInt64(message, field);
    case FieldDescriptor::CPPTYPE_DOUBLE:  // dump() writes what is not finite as null
      return repeated ? r.GetRepeatedDouble(message, field, index) : r.GetDouble(message, field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return repeated ? r.GetRepeatedFloat(message, field, index) : r.GetFloat(message, field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return repeated ? r.GetRepeatedBool(message, field, index) : r.GetBool(message, field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return (repeated ? r.GetRepeatedEnum(message, field, index) : r.GetEnum(message, field))->name();
    case FieldDescriptor::CPPTYPE_STRING:
      return repeated ? r.GetRepeatedString(message, field, index) : r.GetString(message, field);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(repeated ? r.GetRepeatedMessage(message, field, index) : r.GetMessage(message, field));
  }
  return nullptr;
}

Json ToJson(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  Json object = Json::object();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    if (field->is_map()) {  // of strings to strings, all this project has
      const FieldDescriptor* key = field->message_type()->map_key();
      const FieldDescriptor* value = field->message_type()->map_value();
      Json map = Json::object();
      for (int j = 0; j < reflection.FieldSize(message, field); ++j) {
        const Message& entry = reflection.GetRepeatedMessage(message, field, j);
        map[entry.GetReflection()->GetString(entry, key)] = Value(entry, value, -1);
      }
      object[field->name()] = std::move(map);
    } else if (field->is_repeated()) {
      Json list = Json::array();
      for (int j = 0; j < reflection.FieldSize(message, field); ++j) list.push_back(Value(message, field, j));
      object[field->name()] = std::move(list);
    } else if (!field->has_presence() || reflection.HasField(message, field)) {
      object[field->name()] = Value(message, field, -1);
    }
  }
  return object;
}

constexpr size_t kMostShown = 40;

// `where`: "jobs[0].shape.batch".
absl::Status Wrong(const std::string& where, const Json& value, const std::string& wanted) {
  std::string shown = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (shown.size() > kMostShown) shown = shown.substr(0, kMostShown) + "...";
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", shown, " is no ", wanted));
}

template <typename Int>
absl::StatusOr<Int> WholeNumber(const Json& value, const std::string& where) {
  constexpr double kExact = 1LL << 53;  // beyond it a double may stand for another number
  if (value.is_number_unsigned()) {
    if (const auto number = value.get<uint64_t>(); std::in_range<Int>(number)) return static_cast<Int>(number);
  } else if (value.is_number_integer()) {
    if (const auto number = value.get<int64_t>(); std::in_range<Int>(number)) return static_cast<Int>(number);
  } else if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (std::abs(number) <= kExact && std::trunc(number) == number &&
        std::in_range<Int>(static_cast<int64_t>(number))) {
      return static_cast<Int>(number);
    }
  }
  return Wrong(
      where, value,
      absl::StrCat("whole number from ", std::numeric_limits<Int>::min(), " to ", std::numeric_limits<Int>::max()));
}

absl::StatusOr<double> Number(const Json& value, const std::string& where) {
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();  // one that is not finite is written so
  if (value.is_number()) return value.get<double>();
  return Wrong(where, value, "number");
}

absl::StatusOr<bool> Bool(const Json& value, const std::string& where) {
  if (value.is_boolean()) return value.get<bool>();
  return Wrong(where, value, "truth value (true or false)");
}

absl::StatusOr<std::string> Text(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  return Wrong(where, value, "text");
}

absl::StatusOr<const google::protobuf::EnumValueDescriptor*> EnumValue(const Json& value, const std::string& where,
                                                                       const google::protobuf::EnumDescriptor& type) {
  const absl::StatusOr<std::string> name = Text(value, where);
  if (!name.ok()) return name.status();
  if (const auto* found = type.FindValueByName(*name)) return found;
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", UnknownName("value", *name, names)));
}

absl::Status FromJson(const Json& object, const std::string& where, Message& message);

// Sets the field, or adds to it if it is repeated.
absl::Status SetValue(const Json& value, const std::string& where, Message& message, const FieldDescriptor* field) {
  const Reflection& r = *message.GetReflection();
  const bool repeated = field->is_repeated();
  const auto store = [&](const auto& read, auto set, auto add) {
    if (read.ok()) (r.*(repeated ? add : set))(&message, field, *read);
    return read.status();
  };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return store(WholeNumber<int32_t>(value, where), &Reflection::SetInt32, &Reflection::AddInt32);
    case FieldDescriptor::CPPTYPE_INT64:
      return store(WholeNumber<int64_t>(value, where), &Reflection::SetInt64, &Reflection::AddInt64);
    case FieldDescriptor::CPPTYPE_UINT32:
      return store(WholeNumber<uint32_t>(value, where), &Reflection::SetUInt32, &Reflection::AddUInt32);
    case FieldDescriptor::CPPTYPE_UINT64:
      return store(WholeNumber<uint64_t>(value, where), &Reflection::SetUInt64, &Reflection::AddUInt64);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return store(Number(value, where), &Reflection::SetDouble, &Reflection::AddDouble);
    case FieldDescriptor::CPPTYPE_FLOAT: {
      const absl::StatusOr<double> number = Number(value, where);
      const absl::StatusOr<float> narrow =
          number.ok() ? absl::StatusOr<float>(static_cast<float>(*number)) : absl::StatusOr<float>(number.status());
      return store(narrow, &Reflection::SetFloat, &Reflection::AddFloat);
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      return store(Bool(value, where), &Reflection::SetBool, &Reflection::AddBool);
    case FieldDescriptor::CPPTYPE_ENUM:
      return store(EnumValue(value, where, *field->enum_type()), &Reflection::SetEnum, &Reflection::AddEnum);
    case FieldDescriptor::CPPTYPE_STRING:
      return store(Text(value, where), &Reflection::SetString, &Reflection::AddString);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return FromJson(value, where, *(repeated ? r.AddMessage(&message, field) : r.MutableMessage(&message, field)));
  }
  return absl::OkStatus();
}

absl::Status SetMap(const Json& map, const std::string& where, Message& message, const FieldDescriptor* field) {
  if (!map.is_object()) return Wrong(where, map, "object");
  for (const auto& [name, value] : map.items()) {
    Message& entry = *message.GetReflection()->AddMessage(&message, field);
    entry.GetReflection()->SetString(&entry, field->message_type()->map_key(), name);
    absl::Status status = SetValue(value, absl::StrCat(where, ".", name), entry, field->message_type()->map_value());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FromJson(const Json& object, const std::string& where, Message& message) {
  if (!object.is_object()) return Wrong(where.empty() ? "the document" : where, object, "object");
  const google::protobuf::Descriptor& type = *message.GetDescriptor();
  for (const auto& [name, value] : object.items()) {
    const std::string place = where.empty() ? name : absl::StrCat(where, ".", name);
    const FieldDescriptor* field = type.FindFieldByName(name);
    if (field == nullptr) {
      std::vector<std::string> names;
      for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
      return absl::InvalidArgumentError(absl::StrCat(place, ": ", UnknownName("field", name, names)));
    }
    absl::Status status;
    if (field->is_map()) {
      status = SetMap(value, place, message, field);
    } else if (!field->is_repeated()) {
      status = SetValue(value, place, message, field);
    } else if (!value.is_array()) {
      status = Wrong(place, value, "list");
    } else {
      for (size_t i = 0; i < value.size() && status.ok(); ++i) {
        status = SetValue(value[i], absl::StrCat(place, "[", i, "]"), message, field);
      }
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

std::string MessageJson(const Message& message) {
  // A reason may hold bytes of a log that are no UTF-8; they must not make the whole document fail.
  return ToJson(message).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::Status ParseMessageJson(const std::string& text, Message& message) {
  const Json document = Json::parse(text, nullptr, false);
  if (document.is_discarded()) return absl::InvalidArgumentError("is no JSON");
  return FromJson(document, "", message);
}

}  // namespace attnfleet::client
