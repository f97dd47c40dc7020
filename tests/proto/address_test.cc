#include "proto/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnfleet {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(Address, AcceptsHostPortIpv6AndUnix) {
  for (const char* address : {"127.0.0.1:7600", "host:0", "[::1]:65535", "unix:/run/a.sock"}) {
    EXPECT_TRUE(ValidateAddress("--server", address).ok()) << address;
  }
}

TEST(Address, RefusesWhatIsNoneAndNamesTheFlag) {
  for (const char* address :
       {"", "host", "host:", ":7600", "host:65536", "host:-1", "host:http", "::1:7600", "unix:"}) {
    const absl::Status status = ValidateAddress("--server", address);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << address;
    EXPECT_THAT(std::string(status.message()), StartsWith("--server: ")) << address;
  }
}

TEST(Address, RefusesASocketPathThatTheKernelWouldCutOff) {
  EXPECT_TRUE(ValidateAddress("--server", "unix:" + std::string(107, 'a')).ok());
  const absl::Status status = ValidateAddress("--server", "unix:" + std::string(108, 'a'));
  EXPECT_THAT(std::string(status.message()), HasSubstr("108 bytes, at most 107"));
}

TEST(Address, KnowsWhatOthersCannotReach) {
  for (const char* local : {"unix:/x", "localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1"}) {
    EXPECT_TRUE(IsLocalAddress(local)) << local;
  }
  for (const char* open : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host:1"}) EXPECT_FALSE(IsLocalAddress(open)) << open;
}

}  // namespace
}  // namespace attnfleet
