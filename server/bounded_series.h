#ifndef ATTNFLEET_SERVER_BOUNDED_SERIES_H_
#define ATTNFLEET_SERVER_BOUNDED_SERIES_H_

#include <cstddef>
#include <cstdint>
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
  struct Entry {
    Labels labels;
    uint64_t order;
    Value value;
  };

  explicit BoundedSeries(size_t most) : most_(most) {}

  // `order` grows with the time at which values came to be; one that is older than the one that is there changes
  // nothing. No wall clock: one that jumped ahead would hide what is newer for as long.
  void Set(Labels labels, uint64_t order, Value value) {
    if (const auto found = by_labels_.find(labels); found != by_labels_.end()) {
      if (found->second->order > order) return;
      series_.erase(found->second);
      by_labels_.erase(found);
    }
    if (series_.size() >= most_) {
      by_labels_.erase(series_.front().labels);
      series_.pop_front();
    }
    series_.push_back({labels, order, std::move(value)});
    by_labels_.emplace(std::move(labels), std::prev(series_.end()));
  }

  const std::list<Entry>& all() const { return series_; }

 private:
  const size_t most_;
  std::list<Entry> series_;  // set longest ago first
  std::map<Labels, typename std::list<Entry>::iterator> by_labels_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_BOUNDED_SERIES_H_
