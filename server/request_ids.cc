#include "server/request_ids.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace attnfleet::server {
namespace {

constexpr char kSeparator = '@';  // in no request id

}  // namespace

std::optional<uint64_t> RequestIds::Find(const std::string& submitter, const std::string& request_id) const {
  const auto found = benchmarks_.find({submitter, request_id});
  if (found == benchmarks_.end()) return std::nullopt;
  return found->second;
}

std::string RequestIds::Of(uint64_t benchmark_id) const {
  const auto found = known_.find(benchmark_id);
  return found == known_.end() ? "" : found->second.request_id;
}

std::string RequestIds::StoredOf(uint64_t benchmark_id) const {
  const auto found = known_.find(benchmark_id);
  return found == known_.end() ? "" : found->second.stored;
}

void RequestIds::Add(uint64_t benchmark_id, const std::string& submitter, const std::string& request_id) {
  if (request_id.empty()) return;
  AddStored(benchmark_id, submitter,
            absl::StrCat(request_id, std::string(1, kSeparator), absl::WebSafeBase64Escape(submitter)));
}

void RequestIds::AddStored(uint64_t benchmark_id, const std::string& submitter, std::string_view stored) {
  if (stored.empty()) return;
  const std::string request_id(stored.substr(0, stored.find(kSeparator)));
  benchmarks_[{submitter, request_id}] = benchmark_id;
  known_[benchmark_id] = {submitter, request_id, std::string(stored)};
}

void RequestIds::Forget(uint64_t benchmark_id) {
  const auto found = known_.find(benchmark_id);
  if (found == known_.end()) return;
  benchmarks_.erase({found->second.submitter, found->second.request_id});
  known_.erase(found);
}

}  // namespace attnfleet::server
