#ifndef ATTNFLEET_WORKER_TRAINER_AUTOCAST_H_
#define ATTNFLEET_WORKER_TRAINER_AUTOCAST_H_

#include <ATen/autocast_mode.h>

namespace attnfleet::trainer {

// Mixed precision for a scope: matrix products in bf16, weights kept in fp32. The casts of the weights are cached for
// one forward pass and dropped at its end, as torch.autocast does.
class Autocast {
 public:
  Autocast(bool enabled, at::DeviceType device) : enabled_(enabled), device_(device) {
    if (!enabled_) return;
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::set_autocast_enabled(device_, true);
  }
  ~Autocast() {
    if (!enabled_) return;
    at::autocast::set_autocast_enabled(device_, false);
    at::autocast::clear_cache();
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  const bool enabled_;
  const at::DeviceType device_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_AUTOCAST_H_
