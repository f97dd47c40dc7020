#ifndef ATTNFLEET_SERVER_REQUEST_IDS_H_
#define ATTNFLEET_SERVER_REQUEST_IDS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace attnfleet::server {

// Which benchmark a submitter's request id stands for: each submitter has ids of their own. Not thread-safe.
//
// The store has one column of ids, all different. There an id is "ID@SUBMITTER", the submitter in base64, so that two
// submitters may choose the same; "ID" alone was written by versions up to 0.1.0.
class RequestIds {
 public:
  // The benchmark of the submitter's earlier request, if there was one.
  std::optional<uint64_t> Find(const std::string& submitter, const std::string& request_id) const;
  // "" for a benchmark without one.
  std::string Of(uint64_t benchmark_id) const;
  // The same as the store has it.
  std::string StoredOf(uint64_t benchmark_id) const;

  // Nothing happens for an empty id.
  void Add(uint64_t benchmark_id, const std::string& submitter, const std::string& request_id);
  void AddStored(uint64_t benchmark_id, const std::string& submitter, std::string_view stored);
  void Forget(uint64_t benchmark_id);

 private:
  struct Known {
    std::string submitter;
    std::string request_id;
    std::string stored;
  };
  std::map<std::pair<std::string, std::string>, uint64_t> benchmarks_;  // by submitter and request id
  std::map<uint64_t, Known> known_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_REQUEST_IDS_H_
