#include "proto/server_list.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "proto/address.h"

namespace attnfleet {

absl::StatusOr<std::vector<std::string>> ParseServerList(const std::string& flag, const std::string& text) {
  std::vector<std::string> addresses;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    addresses.emplace_back(absl::StripAsciiWhitespace(part));
    if (absl::Status status = ValidateAddress(flag, addresses.back()); !status.ok()) return status;
  }
  return addresses;
}

ServerList::ServerList(const std::string& text) : addresses_(absl::StrSplit(text, ',')) {}

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
