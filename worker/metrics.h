#ifndef ATTNFLEET_WORKER_METRICS_H_
#define ATTNFLEET_WORKER_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "attnfleet/v1/worker.pb.h"

namespace attnfleet::worker {

// The worker's figures for Prometheus: slots, what runs on them, trainers, the connection. Bounded by the slots.
// Thread-safe.
class Metrics : public prometheus::Collectable {
 public:
  explicit Metrics(const std::vector<v1::Slot>& slots);

  void SetConnected(bool connected);
  void SetUndelivered(size_t results);
  // Slots that are neither busy nor idle.
  void SetOutOfService(size_t slots);
  void TrainerStarted(const v1::StartRun& start);
  // CANCELLED: it was stopped.
  void TrainerEnded(const v1::StartRun& start, v1::Outcome outcome);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  prometheus::Registry registry_;
  prometheus::Counter& trainer_starts_;
  const std::map<v1::Outcome, prometheus::Counter*> trainer_exits_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::string, std::optional<v1::StartRun>> slots_;  // by id; what runs there
  bool connected_ = false;
  size_t undelivered_ = 0;
  size_t out_of_service_ = 0;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_METRICS_H_
