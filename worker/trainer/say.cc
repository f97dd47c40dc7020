#include "worker/trainer/say.h"

#include <cstdio>
#include <cstdlib>

#include "proto/request_id.h"

namespace attnfleet::trainer {

std::string RequestId() {
  const char* const text = std::getenv(kRequestIdVariable);
  return text != nullptr && IsRequestId(text) ? text : "";
}

void Say(const std::string& text) {
  const std::string id = RequestId();
  std::fprintf(stderr, "attnfleet-trainer: %s%s%s\n", text.c_str(), id.empty() ? "" : " request_id=", id.c_str());
}

}  // namespace attnfleet::trainer
