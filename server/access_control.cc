#include "server/access_control.h"

#include <grpc/grpc_security_constants.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/log.h"
#include "proto/support/state_dir.h"

namespace attnfleet::server {
namespace {

constexpr double kCallsPerSecond = 20;
constexpr double kCallsAtOnce = 40;

}  // namespace

absl::StatusOr<Certificate> PeerCertificate(const grpc::AuthContext& context) {
  const std::vector<grpc::string_ref> pem = context.FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (pem.size() != 1) return absl::UnauthenticatedError("the peer has no certificate");
  absl::StatusOr<Certificate> certificate = ParseCertificate({pem[0].data(), pem[0].size()});
  if (!certificate.ok()) return absl::UnauthenticatedError(certificate.status().message());
  return certificate;
}

std::optional<std::string> PeerName(const grpc::ServerContextBase& context) {
  absl::StatusOr<Certificate> certificate = PeerCertificate(*context.auth_context());
  if (!certificate.ok()) return std::nullopt;
  return std::move(certificate->name);
}

absl::StatusOr<std::unique_ptr<AccessControl>> AccessControl::Open(std::string path) {
  std::unique_ptr<AccessControl> control(new AccessControl(std::move(path)));
  if (const absl::Status status = control->Load(); !status.ok()) return status;
  return control;
}

absl::Status AccessControl::Load() {
  absl::StatusOr<std::string> text = ReadFile(path_);
  if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (text_ == *text) return absl::OkStatus();
    text_ = *text;
  }
  absl::StatusOr<AccessList> list = ParseAccessList(*text);
  if (!list.ok()) return absl::InvalidArgumentError(absl::StrCat(path_, ": ", std::string(list.status().message())));
  LogInfo(absl::StrCat("roles of ", list->names.size(), " peers read from ", path_));
  const std::lock_guard<std::mutex> lock(mutex_);
  list_ = *std::move(list);
  buckets_.clear();
  return absl::OkStatus();
}

void AccessControl::Reload() {
  const absl::Status status = Load();
  const std::string problem(status.message());
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!problem.empty() && problem != problem_) {
    LogError(absl::StrCat("--roles: ", problem, "; the list that was read before stays in force"));
  }
  problem_ = problem;
}

absl::Status AccessControl::Admit(const Certificate& peer, const std::string& rpc, absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const absl::Status status = CheckAccess(list_, peer, rpc, now); !status.ok()) return status;
  if (TakeToken(peer.name, now)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(peer.name, " calls more than ", kCallsPerSecond, " times a second; try again more slowly"));
}

absl::Status AccessControl::Check(const Certificate& peer, const std::string& rpc, absl::Time now) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return CheckAccess(list_, peer, rpc, now);
}

bool AccessControl::IsAdmin(const std::string& name) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = list_.names.find(name);
  return found != list_.names.end() && (found->second & kAdmin) != 0;
}

bool AccessControl::TakeToken(const std::string& name, absl::Time now) {
  const auto [found, is_new] = buckets_.try_emplace(name, Bucket{kCallsAtOnce, now});
  Bucket& bucket = found->second;
  const double seconds = std::max(0.0, absl::ToDoubleSeconds(now - bucket.filled));
  bucket.tokens = std::min(kCallsAtOnce, bucket.tokens + kCallsPerSecond * seconds);
  bucket.filled = now;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

}  // namespace attnfleet::server
