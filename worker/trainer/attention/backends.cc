#include "worker/trainer/attention/backends.h"

#include <string>

#include "proto/suggest.h"

namespace attnfleet::trainer {

extern const Backend kEager;
extern const Backend kMath;
extern const Backend kSdpa;
extern const Backend kFlash2;
extern const Backend kEfficient;
extern const Backend kCudnn;
extern const Backend kFused;

const std::vector<const Backend*>& Backends() {
  static const std::vector<const Backend*>* const backends = new std::vector<const Backend*>{
      &kEager, &kMath, &kSdpa, &kFlash2, &kEfficient, &kCudnn, &kFused,
  };
  return *backends;
}

absl::StatusOr<const Backend*> FindBackend(std::string_view name) {
  std::vector<std::string> names;
  for (const Backend* backend : Backends()) {
    if (backend->name == name) return backend;
    names.emplace_back(backend->name);
  }
  return absl::InvalidArgumentError("--backend: " + UnknownName("backend", name, names));
}

}  // namespace attnfleet::trainer
