#ifndef ATTNFLEET_SERVER_BOOTSTRAP_H_
#define ATTNFLEET_SERVER_BOOTSTRAP_H_

#include <functional>
#include <vector>

namespace attnfleet::server {

struct Interval {
  double low = 0;
  double high = 0;
};

// 95 % percentile-bootstrap interval of `statistic`: up to 5 values over every resample there is, more over 2,000
// random ones from a fixed seed, so that the same values always give the same interval. Nothing (0, 0) of fewer than
// two. Few values make it about as wide as their range: fewer cannot say more. Pure.
Interval BootstrapInterval(const std::vector<double>& values,
                           const std::function<double(std::vector<double>)>& statistic);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_BOOTSTRAP_H_
