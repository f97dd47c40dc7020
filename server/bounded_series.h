#ifndef ATTNFLEET_SERVER_BOUNDED_SERIES_H_
#define ATTNFLEET_SERVER_BOUNDED_SERIES_H_

#include <cstddef>
#include <iterator>
#include <list>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace attnfleet::server {

using Labels = std::vector<std::pair<std::string, std::string>>;

// The newest value of each set of labels, of so many at most: the one that was set longest ago goes.
template <typename Value>
class BoundedSeries {
 public:
  explicit BoundedSeries(size_t most) : most_(most) {}

  void Set(Labels labels, Value value) {
    if (const auto found = by_labels_.find(labels); found != by_labels_.end()) {
      series_.erase(found->second);
      by_labels_.erase(found);
    }
    if (series_.size() >= most_) {
      by_labels_.erase(series_.front().first);
      series_.pop_front();
    }
    series_.emplace_back(labels, std::move(value));
    by_labels_.emplace(std::move(labels), std::prev(series_.end()));
  }

  const std::list<std::pair<Labels, Value>>& all() const { return series_; }

 private:
  const size_t most_;
  std::list<std::pair<Labels, Value>> series_;  // set longest ago first
  std::map<Labels, typename std::list<std::pair<Labels, Value>>::iterator> by_labels_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_BOUNDED_SERIES_H_
