#include "server/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "certificates.h"
#include "server/access_control.h"

namespace attnfleet::server {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);
constexpr char kGet[] = "/attnfleet.v1.BenchmarkService/Get";
const std::string kFingerprint(64, 'a');  // NOLINT: a constant

Certificate Of(const std::string& name) {
  return {name, absl::InfinitePast(), absl::InfiniteFuture(), std::string(64, 'b')};
}

std::string Problem(const std::string& text) {
  const absl::StatusOr<AccessList> list = ParseAccessList(text);
  EXPECT_TRUE(list.ok() || absl::IsInvalidArgument(list.status()));
  return std::string(list.status().message());
}

TEST(AccessList, ReadsNamesRolesCommentsAndFingerprints) {
  const absl::StatusOr<AccessList> list = ParseAccessList(
      "# people\nalice submitter   # of the NLP team\r\n\n  ops\tadmin,worker\nrevoked " + kFingerprint + "\n");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->names.at("alice"), kSubmitter);
  EXPECT_EQ(list->names.at("ops"), kAdmin | kWorker);
  EXPECT_EQ(list->names.size(), 2);
  EXPECT_EQ(list->revoked.count(kFingerprint), 1);
}

TEST(AccessList, AFingerprintMayBeAsOpensslPrintsIt) {
  std::string printed;
  for (int i = 0; i < 32; ++i) printed += i == 0 ? "AA" : ":AA";
  const absl::StatusOr<AccessList> list = ParseAccessList("revoked " + printed);
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->revoked.count(kFingerprint), 1);
}

TEST(AccessList, EveryErrorNamesTheLineAndWhatWouldBeRight) {
  EXPECT_THAT(Problem("a viewer\nb boss"), HasSubstr("line 2: \"boss\" is no role; there are viewer, submitter"));
  EXPECT_THAT(Problem("a"), HasSubstr("line 1: give NAME ROLE"));
  EXPECT_THAT(Problem("a viewer admin"), HasSubstr("line 1: give NAME ROLE"));
  EXPECT_THAT(Problem("a viewer,"), HasSubstr("\"\" is no role"));
  EXPECT_THAT(Problem("a viewer\na admin"), HasSubstr("line 2: a is given twice"));
  EXPECT_THAT(Problem("revoked 1234"), HasSubstr("\"1234\" is no SHA-256 fingerprint"));
}

TEST(CheckAccess, RefusesTheExpiredTheRevokedTheUnknownAndTheWrongRole) {
  AccessList list = *ParseAccessList("alice viewer\n");
  EXPECT_EQ(CheckAccess(list, Of("alice"), kGet, kNow), absl::OkStatus());
  EXPECT_TRUE(absl::IsUnauthenticated(CheckAccess(list, Of("bob"), kGet, kNow)));
  EXPECT_TRUE(absl::IsUnauthenticated(CheckAccess(list, Of(""), kGet, kNow)));
  const absl::Status role = CheckAccess(list, Of("alice"), "/attnfleet.v1.BenchmarkService/Submit", kNow);
  EXPECT_TRUE(absl::IsPermissionDenied(role));
  EXPECT_THAT(std::string(role.message()), HasSubstr("alice is viewer; this needs submitter or admin"));
  Certificate expired = Of("alice");
  expired.not_after = kNow - absl::Seconds(1);
  EXPECT_TRUE(absl::IsUnauthenticated(CheckAccess(list, expired, kGet, kNow)));
  list.revoked.insert(Of("alice").sha256);
  EXPECT_TRUE(absl::IsUnauthenticated(CheckAccess(list, Of("alice"), kGet, kNow)));
}

TEST(CheckAccess, AnRpcThatIsNotInTheTableIsNobodys) {
  const AccessList list = *ParseAccessList("root admin,worker,submitter,viewer\n");
  for (const char* rpc : {"/attnfleet.v1.BenchmarkService/NoSuch", "/attnfleet.v1.BenchmarkService/Get/", "", "Get"}) {
    EXPECT_TRUE(absl::IsPermissionDenied(CheckAccess(list, Of("root"), rpc, kNow))) << rpc;
  }
}

TEST(WorkerName, IsThatOfItsCertificateOrBelowIt) {
  EXPECT_TRUE(MayBeWorker("gpu", "gpu"));
  EXPECT_TRUE(MayBeWorker("gpu", "gpu/a3"));
  EXPECT_FALSE(MayBeWorker("gpu", "gpu2"));
  EXPECT_FALSE(MayBeWorker("gpu", "gp"));
  EXPECT_FALSE(MayBeWorker("gpu", "other/gpu"));
  EXPECT_FALSE(MayBeWorker("gpu", ""));
}

class AccessControlTest : public testing::Test {
 protected:
  const Certificates files_;
};

TEST_F(AccessControlTest, AFileThatCannotBeUsedIsNamed) {
  const absl::Status none = AccessControl::Open(files_ / "none").status();
  EXPECT_TRUE(absl::IsInvalidArgument(none));
  EXPECT_THAT(std::string(none.message()), HasSubstr("none"));
  const std::string path = files_.Write("roles", "alice boss\n");
  EXPECT_THAT(std::string(AccessControl::Open(path).status().message()), StartsWith(path + ": line 1: "));
}

TEST_F(AccessControlTest, AChangedFileTakesEffectAndABrokenOneDoesNot) {
  const auto control = AccessControl::Open(files_.Write("roles", "alice viewer\n"));
  ASSERT_TRUE(control.ok()) << control.status();
  EXPECT_TRUE((*control)->Admit(Of("alice"), kGet, kNow).ok());
  files_.Write("roles", "bob admin\n");
  (*control)->Reload();
  EXPECT_FALSE((*control)->Check(Of("alice"), kGet, kNow).ok());
  EXPECT_TRUE((*control)->IsAdmin("bob"));
  files_.Write("roles", "alice boss\n");
  (*control)->Reload();
  EXPECT_TRUE((*control)->Check(Of("bob"), kGet, kNow).ok());
}

TEST_F(AccessControlTest, APeerThatCallsTooOftenIsHeldBackAndOthersAreNot) {
  const auto control = AccessControl::Open(files_.Write("roles", "alice viewer\nbob viewer\n"));
  ASSERT_TRUE(control.ok()) << control.status();
  const auto admitted = [&](const std::string& name, absl::Time now) {
    int count = 0;
    for (int i = 0; i < 1000; ++i) count += (*control)->Admit(Of(name), kGet, now).ok() ? 1 : 0;
    return count;
  };
  EXPECT_EQ(admitted("alice", kNow), 40);
  EXPECT_TRUE(absl::IsResourceExhausted((*control)->Admit(Of("alice"), kGet, kNow)));
  EXPECT_EQ(admitted("bob", kNow), 40);
  EXPECT_EQ(admitted("alice", kNow + absl::Seconds(1)), 20);
}

}  // namespace
}  // namespace attnfleet::server
