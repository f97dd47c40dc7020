// Every RPC x every kind of peer, over real TLS. What comes out is server/access.md, and the test fails while the file
// says something else; ATTNFLEET_WRITE=1 writes it.

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor_database.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "secured_server.h"

namespace attnfleet::server {
namespace {

constexpr char kRoles[] =
    "viewer viewer\nsubmitter submitter\nworker worker\nadmin admin\nexpired admin\nstranger admin\nlost admin\n";
constexpr char kAllowed[] = "yes";
constexpr char kNoConnection[] = "no connection";
constexpr char kUnknownPeer[] = "unauthenticated";
constexpr char kDenied[] = "no";

// Peers that no server should answer, then those with a role.
const std::vector<std::string> kOutsiders = {"no certificate", "another CA", "expired", "revoked", "not listed"};
const std::vector<std::string> kInsiders = {"viewer", "submitter", "worker", "admin"};

// Who may call what, said a second time: a new RPC fails the test until somebody has decided.
const std::map<std::string, std::vector<std::string>> kExpected = {
    {"/attnfleet.v1.BenchmarkService/Submit", {"submitter", "admin"}},
    {"/attnfleet.v1.BenchmarkService/Get", {"viewer", "submitter", "admin"}},
    {"/attnfleet.v1.BenchmarkService/List", {"viewer", "submitter", "admin"}},
    {"/attnfleet.v1.BenchmarkService/Cancel", {"submitter", "admin"}},
    {"/attnfleet.v1.BenchmarkService/Pause", {"submitter", "admin"}},
    {"/attnfleet.v1.BenchmarkService/Resume", {"submitter", "admin"}},
    {"/attnfleet.v1.BenchmarkService/Watch", {"viewer", "submitter", "admin"}},
    {"/attnfleet.v1.BenchmarkService/Explain", {"viewer", "submitter", "admin"}},
    {"/attnfleet.v1.FleetService/ListWorkers", {"viewer", "submitter", "admin"}},
    {"/attnfleet.v1.FleetService/SetDrained", {"admin"}},
    {"/attnfleet.v1.FleetService/ListBackends", {"viewer", "submitter", "admin"}},
    {"/attnfleet.v1.WorkerService/Connect", {"worker"}},
    {"/grpc.health.v1.Health/Check", {"viewer", "submitter", "worker", "admin"}},
    {"/grpc.health.v1.Health/Watch", {"viewer", "submitter", "worker", "admin"}},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", {}},
};

// Of the project's .proto files, as they are linked into this program, and of gRPC's own services.
std::vector<std::string> AllRpcs() {
  std::vector<std::string> files;
  google::protobuf::DescriptorPool::internal_generated_database()->FindAllFileNames(&files);
  std::vector<std::string> rpcs = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
                                   "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
  for (const std::string& name : files) {
    if (!absl::StartsWith(name, "attnfleet/")) continue;
    const auto* file = google::protobuf::DescriptorPool::generated_pool()->FindFileByName(name);
    for (int i = 0; i < file->service_count(); ++i) {
      for (int j = 0; j < file->service(i)->method_count(); ++j) {
        rpcs.push_back(absl::StrCat("/", file->service(i)->full_name(), "/", file->service(i)->method(j)->name()));
      }
    }
  }
  std::sort(rpcs.begin(), rpcs.end());
  return rpcs;
}

// Calls with one empty message. A call that reached its service counts as allowed, whatever the service says of it.
std::string Outcome(const std::shared_ptr<grpc::Channel>& channel, const std::string& rpc) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  const auto call = stub.PrepareCall(&context, rpc, &queue);
  call->StartCall(nullptr);
  queue.Next(&tag, &ok);
  const grpc::Slice nothing;
  if (ok) {
    call->WriteLast(grpc::ByteBuffer(&nothing, 1), grpc::WriteOptions(), nullptr);
    queue.Next(&tag, &ok);
  }
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  bool answered = false;
  queue.Next(&tag, &answered);
  if (answered) context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  if (answered) return kAllowed;
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::NOT_FOUND:
      return kAllowed;
    case grpc::StatusCode::UNAVAILABLE:
      return kNoConnection;
    case grpc::StatusCode::UNAUTHENTICATED:
      return kUnknownPeer;
    case grpc::StatusCode::PERMISSION_DENIED:
      return kDenied;
    default:
      return absl::StrCat("status ", status.error_code(), ": ", status.error_message());
  }
}

class AccessMatrix : public testing::Test {
 protected:
  // The peers' channels. The server has already learned that "revoked" is no admin any more.
  std::map<std::string, std::shared_ptr<grpc::Channel>> Channels() {
    const std::string ca = ReadAll(server_.files / "ca.pem");
    std::map<std::string, std::shared_ptr<grpc::Channel>> channels;
    for (const std::string& name : kInsiders) channels[name] = server_.Channel(name);
    channels["not listed"] = server_.Channel("nobody");
    channels["no certificate"] = grpc::CreateChannel(server_.address(), grpc::SslCredentials({ca, "", ""}));
    channels["expired"] = MakeChannel(server_.address(), server_.files.Client("expired", -1));
    TlsFiles stranger = strangers_.Client("stranger");
    stranger.ca = server_.files / "ca.pem";
    channels["another CA"] = MakeChannel(server_.address(), stranger);
    channels["revoked"] = server_.Channel("lost");
    EXPECT_EQ(Outcome(channels["revoked"], "/attnfleet.v1.BenchmarkService/List"), kAllowed);
    const absl::StatusOr<Certificate> revoked = ReadCertificate(server_.files / "lost.pem");
    EXPECT_TRUE(revoked.ok()) << revoked.status();
    server_.SetRoles(absl::StrCat(kRoles, "revoked ", revoked->sha256, "\n"));
    for (int i = 0; i < 200 && Outcome(channels["revoked"], "/grpc.health.v1.Health/Check") == kAllowed; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return channels;
  }

  static std::string ReadAll(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  SecuredServer server_{kRoles};
  const Certificates strangers_;
};

TEST_F(AccessMatrix, EveryRpcIsOpenToItsRolesAndToNobodyElse) {
  const std::map<std::string, std::shared_ptr<grpc::Channel>> channels = Channels();
  std::vector<std::string> peers = kOutsiders;
  peers.insert(peers.end(), kInsiders.begin(), kInsiders.end());
  std::string table = absl::StrCat("| RPC | ", absl::StrJoin(peers, " | "), " |\n|---", std::string(), "|");
  for (size_t i = 0; i < peers.size(); ++i) table += "---|";
  table += "\n";
  for (const std::string& rpc : AllRpcs()) {
    const auto expected = kExpected.find(rpc);
    if (expected == kExpected.end()) {
      ADD_FAILURE() << rpc << " is new: decide who may call it, here and in server/access.cc";
      continue;
    }
    absl::StrAppend(&table, "| `", rpc, "` |");
    for (const std::string& peer : peers) {
      const std::string outcome = Outcome(channels.at(peer), rpc);
      const bool listed = std::count(expected->second.begin(), expected->second.end(), peer) > 0;
      const bool connects = peer == "revoked" || peer == "not listed";
      const bool outsider = std::count(kOutsiders.begin(), kOutsiders.end(), peer) > 0;
      const char* right = outsider ? (connects ? kUnknownPeer : kNoConnection) : (listed ? kAllowed : kDenied);
      EXPECT_EQ(outcome, right) << rpc << " by " << peer;
      absl::StrAppend(&table, " ", outcome, " |");
    }
    // Else "no connection" could be that of a server that is gone.
    EXPECT_EQ(Outcome(channels.at("admin"), "/grpc.health.v1.Health/Check"), kAllowed) << "after " << rpc;
    table += "\n";
  }
  const std::string page = absl::StrCat(
      "<!-- Written by tests/server/access_matrix_test.cc: ATTNFLEET_WRITE=1 build/dev/bin/access_tests -->\n"
      "# Every RPC and who may call it\n\n"
      "As tried over TLS by a peer of each kind. `no connection`: the handshake fails; `unauthenticated`: the\n"
      "certificate is good and the list of roles does not have it; `no`: PERMISSION_DENIED. A submitter cancels only\n"
      "what it has submitted; a worker connects only under the name in its certificate.\n\n",
      table);
  const std::string path = ATTNFLEET_SOURCE "/server/access.md";
  if (std::getenv("ATTNFLEET_WRITE") != nullptr) std::ofstream(path) << page;
  EXPECT_EQ(ReadAll(path), page) << "ATTNFLEET_WRITE=1 writes the file";
}

TEST_F(AccessMatrix, AnRpcThatDoesNotExistIsRefusedBeforeAnyServiceSeesIt) {
  EXPECT_EQ(Outcome(server_.Channel("admin"), "/attnfleet.v1.BenchmarkService/NoSuch"), kDenied);
  EXPECT_EQ(Outcome(server_.Channel("admin"), "/no.such.Service/At"), kDenied);
  EXPECT_EQ(server_.denied(), 2);
}

}  // namespace
}  // namespace attnfleet::server
