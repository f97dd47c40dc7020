#include "proto/server_list.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "proto/address.h"

namespace attnfleet {
namespace {

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts = absl::StrSplit(text, ',');
  for (std::string& part : parts) absl::StripAsciiWhitespace(&part);
  return parts;
}

}  // namespace

std::string LeaderNamed(const grpc::ClientContext& context) {
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto found = metadata.find(kLeaderMetadata);
  if (found == metadata.end()) return "";
  std::string address(found->second.data(), found->second.size());
  return ValidateAddress("", address).ok() ? address : "";
}

absl::StatusOr<std::vector<std::string>> ParseServerList(const std::string& flag, const std::string& text) {
  const std::vector<std::string> addresses = Split(text);
  for (const std::string& address : addresses) {
    if (absl::Status status = ValidateAddress(flag, address); !status.ok()) return status;
  }
  return addresses;
}

ServerList::ServerList(const std::string& text) : addresses_(Split(text)) {}

bool ServerList::Failed(const std::string& leader) {
  const bool is_news = !leader.empty() && leader != current();
  hint_.clear();
  if (is_news && !followed_) {
    followed_ = true;
    hint_ = leader;
    return true;
  }
  followed_ = false;
  next_ = (next_ + 1) % addresses_.size();
  return false;
}

}  // namespace attnfleet
