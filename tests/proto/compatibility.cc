#include "compatibility.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"

namespace attnfleet {
namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::EnumDescriptorProto;
using google::protobuf::EnumValueDescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorSet;
using google::protobuf::MethodDescriptorProto;
using google::protobuf::ServiceDescriptorProto;

// Everything of a set by its full name.
struct Index {
  std::map<std::string, const DescriptorProto*> messages;
  std::map<std::string, const EnumDescriptorProto*> enums;
  std::map<std::string, const ServiceDescriptorProto*> services;
};

void AddMessage(const std::string& scope, const DescriptorProto& message, Index& index) {
  const std::string name = absl::StrCat(scope, ".", message.name());
  index.messages[name] = &message;
  for (const DescriptorProto& nested : message.nested_type()) AddMessage(name, nested, index);
  for (const EnumDescriptorProto& nested : message.enum_type())
    index.enums[absl::StrCat(name, ".", nested.name())] = &nested;
}

Index MakeIndex(const FileDescriptorSet& set) {
  Index index;
  for (const auto& file : set.file()) {
    for (const DescriptorProto& message : file.message_type()) AddMessage(file.package(), message, index);
    for (const EnumDescriptorProto& one : file.enum_type()) {
      index.enums[absl::StrCat(file.package(), ".", one.name())] = &one;
    }
    for (const ServiceDescriptorProto& service : file.service()) {
      index.services[absl::StrCat(file.package(), ".", service.name())] = &service;
    }
  }
  return index;
}

// Null if there is none.
template <typename Container, typename Matches>
auto Find(const Container& container, Matches matches) {
  const auto found = std::find_if(container.begin(), container.end(), matches);
  return found == container.end() ? nullptr : &*found;
}

template <typename Parent>
bool IsReserved(const Parent& parent, const std::string& name) {
  return std::find(parent.reserved_name().begin(), parent.reserved_name().end(), name) != parent.reserved_name().end();
}

// The end of a message's range is exclusive, that of an enum's inclusive.
int End(const DescriptorProto::ReservedRange& range) { return range.end() - 1; }
int End(const EnumDescriptorProto::EnumReservedRange& range) { return range.end(); }

template <typename Parent>
bool IsReserved(const Parent& parent, int number) {
  return std::any_of(parent.reserved_range().begin(), parent.reserved_range().end(),
                     [number](const auto& range) { return number >= range.start() && number <= End(range); });
}

class Comparison {
 public:
  std::vector<std::string> Take() { return std::move(found_); }

  void Messages(const std::string& name, const DescriptorProto& then, const DescriptorProto& now) {
    for (const FieldDescriptorProto& field : then.field()) {
      Member(name, "field", field, now.field(), now, [&](const FieldDescriptorProto& other) {
        Fields(absl::StrCat(name, ".", field.name()), then, field, now, other);
      });
    }
    Reserved(name, then, now, now.field());
  }

  void Enums(const std::string& name, const EnumDescriptorProto& then, const EnumDescriptorProto& now) {
    for (const EnumValueDescriptorProto& value : then.value()) {
      Member(name, "value", value, now.value(), now, [](const EnumValueDescriptorProto&) {});
    }
    Reserved(name, then, now, now.value());
  }

  void Services(const std::string& name, const ServiceDescriptorProto& then, const ServiceDescriptorProto& now) {
    for (const MethodDescriptorProto& method : then.method()) {
      const std::string path = absl::StrCat(name, ".", method.name());
      const MethodDescriptorProto* other =
          Find(now.method(), [&](const auto& one) { return one.name() == method.name(); });
      if (other == nullptr) {
        Add(path, "the RPC is gone");
        continue;
      }
      if (other->input_type() != method.input_type()) {
        Add(path, absl::StrCat("takes ", other->input_type(), ", took ", method.input_type()));
      }
      if (other->output_type() != method.output_type()) {
        Add(path, absl::StrCat("returns ", other->output_type(), ", returned ", method.output_type()));
      }
      if (other->client_streaming() != method.client_streaming() ||
          other->server_streaming() != method.server_streaming()) {
        Add(path, "streams otherwise");
      }
    }
  }

  void Gone(const std::string& name, const char* what) { Add(name, absl::StrCat("the ", what, " is gone")); }

 private:
  void Add(const std::string& path, const std::string& what) { found_.push_back(absl::StrCat(path, ": ", what)); }

  // A field or an enum's value, which goes by its number (on the wire) and by its name (in JSON and text).
  template <typename One, typename Members, typename Parent, typename Compare>
  void Member(const std::string& name, const char* kind, const One& then, const Members& members, const Parent& now,
              Compare compare) {
    const std::string path = absl::StrCat(name, ".", then.name());
    const auto* by_number = Find(members, [&](const One& one) { return one.number() == then.number(); });
    const auto* by_name = Find(members, [&](const One& one) { return one.name() == then.name(); });
    if (by_number != nullptr && by_number == by_name) return compare(*by_number);
    if (by_name != nullptr) {
      Add(path, absl::StrCat("has number ", by_name->number(), ", had ", then.number()));
    } else if (by_number != nullptr) {
      Add(path, absl::StrCat("number ", then.number(), " is now ", by_number->name()));
    } else if (!IsReserved(now, then.number()) || !IsReserved(now, then.name())) {
      Add(path, absl::StrCat("the ", kind, " is gone; reserve number ", then.number(), " and the name"));
    }
  }

  void Fields(const std::string& path, const DescriptorProto& then_in, const FieldDescriptorProto& then,
              const DescriptorProto& now_in, const FieldDescriptorProto& now) {
    if (then.type() != now.type() || then.type_name() != now.type_name()) Add(path, "has another type");
    if (then.label() != now.label()) Add(path, "has another label");
    if (then.proto3_optional() != now.proto3_optional()) Add(path, "tells absence otherwise (optional)");
    if (then.json_name() != now.json_name()) Add(path, "has another JSON name");
    if (OneofOf(then_in, then) != OneofOf(now_in, now)) Add(path, "is in another oneof");
  }

  // "" if it is in none; optional's own oneof is none.
  static std::string OneofOf(const DescriptorProto& message, const FieldDescriptorProto& field) {
    return field.has_oneof_index() && !field.proto3_optional() ? message.oneof_decl(field.oneof_index()).name() : "";
  }

  template <typename Parent, typename Members>
  void Reserved(const std::string& name, const Parent& then, const Parent& now, const Members& members) {
    for (const std::string& reserved : then.reserved_name()) {
      if (!IsReserved(now, reserved)) Add(name, absl::StrCat("\"", reserved, "\" is not reserved any more"));
    }
    for (const auto& range : then.reserved_range()) {
      // A range may have been merged with others; its ends say enough.
      if (!IsReserved(now, range.start()) || !IsReserved(now, End(range))) {
        Add(name, absl::StrCat("numbers ", range.start(), " to ", End(range), " are not reserved any more"));
      }
    }
    for (const auto& member : members) {
      if (IsReserved(then, member.name()) || IsReserved(then, member.number())) {
        Add(absl::StrCat(name, ".", member.name()), "takes what was reserved");
      }
    }
  }

  std::vector<std::string> found_;
};

}  // namespace

std::vector<std::string> Incompatibilities(const FileDescriptorSet& then, const FileDescriptorSet& now) {
  const Index before = MakeIndex(then);
  const Index after = MakeIndex(now);
  Comparison comparison;
  for (const auto& [name, message] : before.messages) {
    const auto found = after.messages.find(name);
    if (found == after.messages.end()) {
      comparison.Gone(name, "message");
    } else {
      comparison.Messages(name, *message, *found->second);
    }
  }
  for (const auto& [name, one] : before.enums) {
    const auto found = after.enums.find(name);
    if (found == after.enums.end()) {
      comparison.Gone(name, "enum");
    } else {
      comparison.Enums(name, *one, *found->second);
    }
  }
  for (const auto& [name, service] : before.services) {
    const auto found = after.services.find(name);
    if (found == after.services.end()) {
      comparison.Gone(name, "service");
    } else {
      comparison.Services(name, *service, *found->second);
    }
  }
  return comparison.Take();
}

}  // namespace attnfleet
