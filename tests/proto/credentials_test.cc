#include "proto/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "certificates.h"

namespace attnfleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class TlsFilesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    certificates_ = new Certificates;
    certificates_->Client("alice");
    certificates_->Client("bob");
  }
  static void TearDownTestSuite() { delete certificates_; }

  static std::string Problem(const TlsFiles& files, absl::Time now = absl::Now()) {
    const absl::Status status = CheckTlsFiles(files, now);
    EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  }

  static inline Certificates* certificates_ = nullptr;
  const TlsFiles alice_ = certificates_->Files("alice");
};

TEST_F(TlsFilesTest, APairAndItsCaAreAccepted) { EXPECT_EQ(Problem(alice_), ""); }

TEST_F(TlsFilesTest, NoneAtAllIsPlainText) { EXPECT_EQ(Problem({}), ""); }

TEST_F(TlsFilesTest, OneThatIsNotGivenIsNamed) {
  EXPECT_THAT(Problem({"", alice_.certificate, alice_.key}), StartsWith("--ca: missing"));
  EXPECT_THAT(Problem({alice_.ca, "", alice_.key}), StartsWith("--cert: missing"));
  EXPECT_THAT(Problem({alice_.ca, alice_.certificate, ""}), StartsWith("--key: missing"));
}

TEST_F(TlsFilesTest, AFileThatIsNotThereIsNamed) {
  for (const auto& [flag, files] :
       {std::pair<std::string, TlsFiles>{"--ca: ", {"/none", alice_.certificate, alice_.key}},
        {"--cert: ", {alice_.ca, "/none", alice_.key}},
        {"--key: ", {alice_.ca, alice_.certificate, "/none"}}}) {
    EXPECT_THAT(Problem(files), AllOf(StartsWith(flag), HasSubstr("/none")));
  }
}

TEST_F(TlsFilesTest, AFileThatHoldsSomethingElseIsNamed) {
  const std::string text = certificates_->Write("text", "no PEM\n");
  EXPECT_THAT(Problem({text, alice_.certificate, alice_.key}), StartsWith("--ca: " + text));
  EXPECT_THAT(Problem({alice_.ca, text, alice_.key}), StartsWith("--cert: " + text));
  EXPECT_THAT(Problem({alice_.ca, alice_.certificate, alice_.certificate}),
              StartsWith("--key: " + alice_.certificate + ": there is no private key"));
}

TEST_F(TlsFilesTest, TheKeyOfAnotherCertificateIsNamed) {
  const std::string other = certificates_->Files("bob").key;
  EXPECT_THAT(Problem({alice_.ca, alice_.certificate, other}),
              AllOf(StartsWith("--key: " + other), HasSubstr("not the key of the certificate " + alice_.certificate)));
}

TEST_F(TlsFilesTest, TheTimeOfACertificateIsRespected) {
  EXPECT_THAT(Problem(alice_, absl::Now() + absl::Hours(48)), HasSubstr(alice_.certificate + " has expired on "));
  EXPECT_THAT(Problem(alice_, absl::Now() - absl::Hours(48)), HasSubstr(alice_.certificate + " is not valid before "));
}

TEST_F(TlsFilesTest, ACertificateSaysWhoseItIs) {
  const absl::StatusOr<Certificate> certificate = ReadCertificate(alice_.certificate);
  ASSERT_TRUE(certificate.ok()) << certificate.status();
  EXPECT_EQ(certificate->name, "alice");
  EXPECT_EQ(certificate->sha256.size(), 64);
  EXPECT_EQ(certificate->not_after - certificate->not_before, absl::Hours(24));
}

TEST(TlsFilesFor, TheEnvironmentFillsWhatFlagsLeaveOpenButNotForASocket) {
  setenv("ATTNFLEET_CA", "ca", 1);
  setenv("ATTNFLEET_KEY", "key", 1);
  const TlsFiles network = TlsFilesFor("host:1", {"", "", "mine"});
  EXPECT_EQ(network.ca, "ca");
  EXPECT_EQ(network.certificate, "");
  EXPECT_EQ(network.key, "mine");
  EXPECT_TRUE(TlsFilesFor("unix:/run/socket", {}).empty());
  unsetenv("ATTNFLEET_CA");
  unsetenv("ATTNFLEET_KEY");
}

}  // namespace
}  // namespace attnfleet
