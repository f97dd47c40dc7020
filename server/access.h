#ifndef ATTNFLEET_SERVER_ACCESS_H_
#define ATTNFLEET_SERVER_ACCESS_H_

// Who may call what. Pure.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/credentials.h"

namespace attnfleet::server {

// A set of roles is the sum of its members.
enum Role : unsigned {
  kViewer = 1,     // reads everything
  kSubmitter = 2,  // reads, submits, cancels what it has submitted
  kWorker = 4,     // offers slots and reports runs under its own name
  kAdmin = 8,      // reads, submits, cancels everything
};
using Roles = unsigned;

// "viewer", "submitter", "worker", "admin"
std::string RoleName(Role role);

// The roles that may call an RPC ("/attnfleet.v1.BenchmarkService/Submit"); none for an RPC that is not in the table.
Roles RolesFor(absl::string_view rpc);

// What --roles says.
struct AccessList {
  std::map<std::string, Roles> names;  // by the certificate's common name
  std::set<std::string> revoked;       // fingerprints (SHA-256, 64 lower-case hexadecimal digits)
};

// Lines of `NAME ROLE[,ROLE...]` and `revoked FINGERPRINT`; # begins a comment. INVALID_ARGUMENT names the line and
// what would be right.
absl::StatusOr<AccessList> ParseAccessList(absl::string_view text);

// Whether the certificate's owner may call the RPC at `now`. UNAUTHENTICATED: the certificate has expired, is revoked
// or not listed; PERMISSION_DENIED names the roles that may.
absl::Status CheckAccess(const AccessList& list, const Certificate& certificate, absl::string_view rpc, absl::Time now);

// Whether the worker that has this certificate may call itself `worker`: by the certificate's name, or by one below it
// ("gpu-hosts" may be "gpu-hosts/a3"), so that workers can share a certificate.
bool MayBeWorker(absl::string_view certificate, absl::string_view worker);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_ACCESS_H_
