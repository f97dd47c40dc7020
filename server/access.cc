#include "server/access.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace attnfleet::server {
namespace {

constexpr std::array kAllRoles = {kViewer, kSubmitter, kWorker, kAdmin};
constexpr Roles kReaders = kViewer | kSubmitter | kAdmin;
constexpr Roles kAnybody = kReaders | kWorker;
constexpr size_t kFingerprintDigits = 64;
constexpr char kRevoked[] = "revoked";

struct Row {
  const char* rpc;
  Roles roles;
};

// Every RPC that a server with certificates answers. Server reflection is left out on purpose: it holds a thread for
// each call, and whoever has the certificates has the .proto files.
constexpr Row kTable[] = {
    {"/attnfleet.v1.BenchmarkService/Submit", kSubmitter | kAdmin},
    {"/attnfleet.v1.BenchmarkService/Get", kReaders},
    {"/attnfleet.v1.BenchmarkService/List", kReaders},
    {"/attnfleet.v1.BenchmarkService/Cancel", kSubmitter | kAdmin},  // a submitter only what is its own
    {"/attnfleet.v1.BenchmarkService/Watch", kReaders},
    {"/attnfleet.v1.BenchmarkService/Explain", kReaders},
    {"/attnfleet.v1.FleetService/ListWorkers", kReaders},
    {"/attnfleet.v1.FleetService/ListBackends", kReaders},
    {"/attnfleet.v1.WorkerService/Connect", kWorker},  // only under its own name
    {"/grpc.health.v1.Health/Check", kAnybody},
    {"/grpc.health.v1.Health/Watch", kAnybody},
};

std::vector<std::string> NamesOf(Roles roles) {
  std::vector<std::string> names;
  for (const Role role : kAllRoles) {
    if ((roles & role) != 0) names.push_back(RoleName(role));
  }
  return names;
}

absl::StatusOr<Roles> ParseRoles(absl::string_view text) {
  Roles roles = 0;
  for (const absl::string_view name : absl::StrSplit(text, ',')) {
    const auto* found =
        std::find_if(kAllRoles.begin(), kAllRoles.end(), [name](Role role) { return RoleName(role) == name; });
    if (found == kAllRoles.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", name, "\" is no role; there are ", absl::StrJoin(NamesOf(kAnybody), ", ")));
    }
    roles |= *found;
  }
  return roles;
}

// As openssl prints it (AB:CD:...) or plain.
absl::StatusOr<std::string> ParseFingerprint(absl::string_view text) {
  std::string digits = absl::AsciiStrToLower(absl::StrReplaceAll(text, {{":", ""}}));
  const bool hexadecimal =
      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return absl::ascii_isxdigit(c); });
  if (digits.size() == kFingerprintDigits && hexadecimal) return digits;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no SHA-256 fingerprint; `openssl x509 -noout -fingerprint -sha256` prints it"));
}

absl::Status ParseLine(absl::string_view line, AccessList& list) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (words.size() != 2) return absl::InvalidArgumentError("give NAME ROLE[,ROLE...] or revoked FINGERPRINT");
  if (words[0] == kRevoked) {
    absl::StatusOr<std::string> fingerprint = ParseFingerprint(words[1]);
    if (fingerprint.ok()) list.revoked.insert(*std::move(fingerprint));
    return fingerprint.status();
  }
  const absl::StatusOr<Roles> roles = ParseRoles(words[1]);
  if (!roles.ok()) return roles.status();
  if (list.names.emplace(words[0], *roles).second) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(words[0], " is given twice"));
}

}  // namespace

std::string RoleName(Role role) {
  switch (role) {
    case kViewer:
      return "viewer";
    case kSubmitter:
      return "submitter";
    case kWorker:
      return "worker";
    case kAdmin:
      return "admin";
  }
  return "";
}

Roles RolesFor(absl::string_view rpc) {
  for (const Row& row : kTable) {
    if (rpc == row.rpc) return row.roles;
  }
  return 0;
}

absl::StatusOr<AccessList> ParseAccessList(absl::string_view text) {
  AccessList list;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    if (const absl::Status status = ParseLine(line, list); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", std::string(status.message())));
    }
  }
  return list;
}

absl::Status CheckAccess(const AccessList& list, const Certificate& certificate, absl::string_view rpc,
                         absl::Time now) {
  if (now > certificate.not_after) {
    return absl::UnauthenticatedError(absl::StrCat("the certificate of ", certificate.name, " has expired"));
  }
  if (list.revoked.count(certificate.sha256) > 0) {
    return absl::UnauthenticatedError(absl::StrCat("this certificate of ", certificate.name, " is revoked"));
  }
  const auto found = list.names.find(certificate.name);
  if (found == list.names.end()) {
    return absl::UnauthenticatedError(absl::StrCat(certificate.name, " is not in the server's list of roles"));
  }
  const Roles allowed = RolesFor(rpc);
  if ((found->second & allowed) != 0) return absl::OkStatus();
  if (allowed == 0) return absl::PermissionDeniedError(absl::StrCat(rpc, ": nobody may call it"));
  return absl::PermissionDeniedError(absl::StrCat(rpc, ": ", certificate.name, " is ",
                                                  absl::StrJoin(NamesOf(found->second), ", "), "; this needs ",
                                                  absl::StrJoin(NamesOf(allowed), " or ")));
}

bool MayBeWorker(absl::string_view certificate, absl::string_view worker) {
  return worker == certificate || (absl::ConsumePrefix(&worker, certificate) && absl::StartsWith(worker, "/"));
}

}  // namespace attnfleet::server
