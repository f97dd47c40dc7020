#ifndef ATTNFLEET_WORKER_TRAINER_STATISTICS_H_
#define ATTNFLEET_WORKER_TRAINER_STATISTICS_H_

#include <vector>

namespace attnfleet::trainer {

// The p-quantile, 0 <= p <= 1, of a sample that is not empty: linear between the two nearest order statistics (type 7,
// the default of NumPy and R), so p = 0.5 is the median.
double Quantile(std::vector<double> sample, double p);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_STATISTICS_H_
