#include "proto/spec_text.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/suggest.h"

namespace attnfleet {
namespace {

// For a message such as `Message type "attnfleet.v1.Shape" has no field named "bach".`: `unknown field "bach"; did you
// mean "batch"?` and so on.
std::string UnknownField(const std::string& message) {
  if (!absl::StrContains(message, "has no field named")) return "";
  const std::vector<std::string> parts = absl::StrSplit(message, '"');
  if (parts.size() < 4) return "";
  const auto* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(parts[1]);
  if (type == nullptr) return "";
  std::vector<std::string> names;
  names.reserve(static_cast<size_t>(type->field_count()));
  for (int i = 0; i < type->field_count(); ++i) names.push_back(type->field(i)->name());
  return UnknownName("field", parts[3], names);
}

// The enum that the field of that name has, in this message or one within it; null if there is none.
const google::protobuf::EnumDescriptor* FindEnum(const google::protobuf::Descriptor& message,
                                                 const std::string& field) {
  for (int i = 0; i < message.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& one = *message.field(i);
    if (one.enum_type() != nullptr && one.name() == field) return one.enum_type();
    if (one.message_type() == nullptr) continue;
    if (const auto* found = FindEnum(*one.message_type(), field); found != nullptr) return found;
  }
  return nullptr;
}

// For a message such as `Unknown enumeration value of "BF16" for field "precision".`: the values that there are.
std::string UnknownValue(const std::string& message) {
  if (!absl::StartsWith(message, "Unknown enumeration value of")) return "";
  const std::vector<std::string> parts = absl::StrSplit(message, '"');
  if (parts.size() < 4) return "";
  const auto* type = FindEnum(*v1::BenchmarkSpec::descriptor(), parts[3]);
  if (type == nullptr) return "";
  std::vector<std::string> names;
  for (int i = 0; i < type->value_count(); ++i) {
    if (type->value(i)->number() != 0) names.push_back(type->value(i)->name());  // 0 is that none was given
  }
  return UnknownName(parts[3], parts[1], names);
}

// What the parser says, for someone who may not know the format.
std::string Plainly(const std::string& message) {
  for (std::string text : {UnknownField(message), UnknownValue(message)}) {
    if (!text.empty()) return text;
  }
  std::string text(absl::StripSuffix(message, "."));
  if (!text.empty()) text[0] = absl::ascii_tolower(static_cast<unsigned char>(text[0]));
  if (absl::EndsWith(text, "got: ")) absl::StrAppend(&text, "the end of the file");
  return absl::StrCat(text,
                      " (a spec file holds fields such as repetitions: 3 and text in quotes as in preset: \"tiny\"; ",
                      "attnfleet run --preset=tiny --dry-run prints one)");
}

// Keeps the first error: what follows it is mostly its consequence.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstError(std::string_view file) : file_(file) {}

  void AddError(int line, int column, const std::string& message) override {
    if (!text_.empty()) return;
    text_ = absl::StrCat(file_, ":", line + 1, ":", column + 1, ": ", Plainly(message));
  }

  const std::string& text() const { return text_; }

 private:
  std::string file_;
  std::string text_;
};

}  // namespace

absl::StatusOr<v1::BenchmarkSpec> ParseSpecText(std::string_view text, std::string_view file) {
  FirstError error(file);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  v1::BenchmarkSpec spec;
  if (!parser.ParseFromString(std::string(text), &spec)) {
    return absl::InvalidArgumentError(
        error.text().empty() ? absl::StrCat(std::string(file), ": not a BenchmarkSpec in text format") : error.text());
  }
  return spec;
}

std::string FormatSpecText(const v1::BenchmarkSpec& spec) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(spec, &text);
  return text;
}

}  // namespace attnfleet
