#include "client/message_json.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_replace.h"
#include "client/text.h"

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

// Only numbers that are not finite are written as null; protobuf's reader takes "NaN" for one.
void NameNulls(Json& value) {
  if (value.is_null()) value = "NaN";
  if (value.is_structured()) {
    for (Json& part : value) NameNulls(part);
  }
}

// What protobuf's reader says, without its names of types: `jobs[0].index: invalid value "x"`.
std::string Plainly(std::string message) {
  message = absl::StrReplaceAll(message,
                                {{"invalid value Starting an object on a scalar field for type ", "no object can be "},
                                 {": Cannot find field.", ": there is no such field"}});
  message = message.substr(0, message.rfind(" for type "));
  if (const size_t end = message.find(')'); message[0] == '(' && end != std::string::npos) {
    message = message.substr(1, end - 1) + message.substr(end + 1);
  }
  return Printable(message);
}

}  // namespace

std::string MessageJson(const Message& message) {
  // A reason may hold bytes of a log that are no UTF-8; they must not make the whole document fail.
  return ToJson(message).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::Status ParseMessageJson(const std::string& text, Message& message) {
  Json document = Json::parse(text, nullptr, false);
  if (document.is_discarded()) return absl::InvalidArgumentError("is no JSON");
  NameNulls(document);
  const auto status = google::protobuf::util::JsonStringToMessage(document.dump(), &message);
  if (!status.ok()) return absl::InvalidArgumentError(Plainly(std::string(status.message())));
  return absl::OkStatus();
}

}  // namespace attnfleet::client
