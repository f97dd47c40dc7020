#include "compatibility.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "attnfleet/v1/service.pb.h"

namespace attnfleet {
namespace {

using google::protobuf::FileDescriptorSet;
using testing::ElementsAre;
using testing::IsEmpty;

// As `protoc --descriptor_set_out --include_imports` writes it, from what this program was built of.
FileDescriptorSet Today() {
  FileDescriptorSet set;
  const google::protobuf::FileDescriptor& service = *v1::SubmitRequest::descriptor()->file();
  const auto add = [&set](const google::protobuf::FileDescriptor& file) {
    google::protobuf::FileDescriptorProto& proto = *set.add_file();
    file.CopyTo(&proto);
    file.CopyJsonNameTo(&proto);
  };
  for (int i = 0; i < service.dependency_count(); ++i) add(*service.dependency(i));
  add(service);
  return set;
}

FileDescriptorSet Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  FileDescriptorSet set;
  EXPECT_TRUE(set.ParseFromIstream(&file)) << path;
  return set;
}

// A program of release 0 understands this one, and this one it.
TEST(Compatibility, ThisProtoIsCompatibleWithRelease0) {
  const FileDescriptorSet release = Read(ATTNFLEET_RELEASE_0);
  ASSERT_EQ(release.file_size(), 4);
  EXPECT_THAT(Incompatibilities(release, Today()), IsEmpty());
}

constexpr char kThen[] = R"(
  file {
    name: "x.proto" package: "p" syntax: "proto3"
    message_type {
      name: "M"
      field { name: "a" number: 1 label: LABEL_OPTIONAL type: TYPE_INT32 json_name: "a" }
      field { name: "b" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".p.M" json_name: "b" oneof_index: 0 }
      oneof_decl { name: "o" }
      reserved_range { start: 5 end: 8 }
      reserved_name: "old"
      nested_type { name: "N" field { name: "n" number: 1 label: LABEL_REPEATED type: TYPE_STRING json_name: "n" } }
    }
    enum_type { name: "E" value { name: "E_0" number: 0 } value { name: "E_1" number: 1 } }
    service {
      name: "S"
      method { name: "R" input_type: ".p.M" output_type: ".p.M" server_streaming: true }
    }
  })";

std::vector<std::string> After(const std::function<void(google::protobuf::FileDescriptorProto&)>& change) {
  FileDescriptorSet then;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(kThen, &then));
  FileDescriptorSet now = then;
  change(*now.mutable_file(0));
  return Incompatibilities(then, now);
}

TEST(Compatibility, WhatIsNewIsCompatible) {
  EXPECT_THAT(After([](auto& file) {
                auto& field = *file.mutable_message_type(0)->add_field();
                field.set_name("c");
                field.set_number(3);
                file.mutable_enum_type(0)->add_value()->set_name("E_2");
                file.mutable_enum_type(0)->mutable_value(2)->set_number(2);
                file.mutable_service(0)->add_method()->set_name("Q");
                file.add_message_type()->set_name("New");
              }),
              IsEmpty());
}

TEST(Compatibility, FieldsThatAreGoneRenamedOrRenumbered) {
  const auto first = [](auto& file) { return file.mutable_message_type(0)->mutable_field(0); };
  EXPECT_THAT(After([](auto& file) { file.mutable_message_type(0)->mutable_field()->DeleteSubrange(0, 1); }),
              ElementsAre("p.M.a: the field is gone; reserve number 1 and the name"));
  EXPECT_THAT(After([](auto& file) {
                auto& message = *file.mutable_message_type(0);
                message.mutable_field()->DeleteSubrange(0, 1);
                message.add_reserved_name("a");
                auto& range = *message.add_reserved_range();
                range.set_start(1);
                range.set_end(2);
              }),
              IsEmpty());
  EXPECT_THAT(After([&](auto& file) { first(file)->set_name("z"); }), ElementsAre("p.M.a: number 1 is now z"));
  EXPECT_THAT(After([&](auto& file) { first(file)->set_number(9); }), ElementsAre("p.M.a: has number 9, had 1"));
  EXPECT_THAT(After([](auto& file) { file.mutable_message_type(0)->mutable_nested_type(0)->clear_field(); }),
              ElementsAre("p.M.N.n: the field is gone; reserve number 1 and the name"));
}

TEST(Compatibility, FieldsThatAreOfAnotherKind) {
  using Field = google::protobuf::FieldDescriptorProto;
  const auto first = [](auto& file) { return file.mutable_message_type(0)->mutable_field(0); };
  EXPECT_THAT(After([&](auto& file) { first(file)->set_type(Field::TYPE_INT64); }),
              ElementsAre("p.M.a: has another type"));
  EXPECT_THAT(After([&](auto& file) { first(file)->set_label(Field::LABEL_REPEATED); }),
              ElementsAre("p.M.a: has another label"));
  EXPECT_THAT(After([&](auto& file) { first(file)->set_proto3_optional(true); }),
              ElementsAre("p.M.a: tells absence otherwise (optional)"));
  EXPECT_THAT(After([&](auto& file) { first(file)->set_json_name("A"); }), ElementsAre("p.M.a: has another JSON name"));
  EXPECT_THAT(After([&](auto& file) { first(file)->set_oneof_index(0); }), ElementsAre("p.M.a: is in another oneof"));
  EXPECT_THAT(After([](auto& file) { file.mutable_message_type(0)->mutable_field(1)->set_type_name(".p.M.N"); }),
              ElementsAre("p.M.b: has another type"));
}

TEST(Compatibility, WhatWasReservedStaysSo) {
  EXPECT_THAT(After([](auto& file) { file.mutable_message_type(0)->clear_reserved_name(); }),
              ElementsAre("p.M: \"old\" is not reserved any more"));
  EXPECT_THAT(After([](auto& file) { file.mutable_message_type(0)->mutable_reserved_range(0)->set_end(7); }),
              ElementsAre("p.M: numbers 5 to 7 are not reserved any more"));
  EXPECT_THAT(After([](auto& file) {
                auto& field = *file.mutable_message_type(0)->add_field();
                field.set_name("old");
                field.set_number(3);
              }),
              ElementsAre("p.M.old: takes what was reserved"));
}

TEST(Compatibility, MessagesEnumsAndServices) {
  EXPECT_THAT(After([](auto& file) { file.set_package("q"); }),
              ElementsAre("p.M: the message is gone", "p.M.N: the message is gone", "p.E: the enum is gone",
                          "p.S: the service is gone"));
  EXPECT_THAT(After([](auto& file) { file.mutable_enum_type(0)->mutable_value(1)->set_name("E_X"); }),
              ElementsAre("p.E.E_1: number 1 is now E_X"));
  EXPECT_THAT(After([](auto& file) { file.mutable_enum_type(0)->mutable_value()->DeleteSubrange(1, 1); }),
              ElementsAre("p.E.E_1: the value is gone; reserve number 1 and the name"));
  const auto method = [](auto& file) { return file.mutable_service(0)->mutable_method(0); };
  EXPECT_THAT(After([&](auto& file) { method(file)->set_name("Q"); }), ElementsAre("p.S.R: the RPC is gone"));
  EXPECT_THAT(After([&](auto& file) { method(file)->set_input_type(".p.M.N"); }),
              ElementsAre("p.S.R: takes .p.M.N, took .p.M"));
  EXPECT_THAT(After([&](auto& file) { method(file)->set_output_type(".p.M.N"); }),
              ElementsAre("p.S.R: returns .p.M.N, returned .p.M"));
  EXPECT_THAT(After([&](auto& file) { method(file)->set_server_streaming(false); }),
              ElementsAre("p.S.R: streams otherwise"));
}

}  // namespace
}  // namespace attnfleet
