#include "worker/trainer/out_of_memory.h"

#include <cmath>
#include <cstdlib>

namespace attnfleet::trainer {
namespace {

// "48.00 GiB. ..." -> bytes; 0 if it is no amount.
int64_t ParseAmount(std::string_view text) {
  const std::string copy(text.substr(0, 40));
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  const std::string_view unit = std::string_view(end).substr(0, 4);
  if (unit == " GiB") return std::llround(std::ldexp(number, 30));
  if (unit == " MiB") return std::llround(std::ldexp(number, 20));
  if (unit == " KiB") return std::llround(std::ldexp(number, 10));
  if (unit == " byt") return std::llround(number);
  return 0;
}

bool Says(std::string_view message, std::string_view words) { return message.find(words) != std::string_view::npos; }

int64_t AmountAfter(std::string_view message, std::string_view words) {
  const size_t at = message.find(words);
  return at == std::string_view::npos ? 0 : ParseAmount(message.substr(at + words.size()));
}

}  // namespace

OutOfMemory ParseOutOfMemory(std::string_view message) {
  OutOfMemory result;
  result.requested_bytes = AmountAfter(message, "ried to allocate ");
  result.total_bytes = AmountAfter(message, "total capacity of ");
  result.free_bytes = AmountAfter(message, "of which ");
  result.host_memory = Says(message, "DefaultCPUAllocator: ") || message == kHostMemoryUsedUp;
  return result;
}

bool IsOutOfMemory(std::string_view message) {
  const auto says = [message](std::string_view words) { return Says(message, words); };
  return (says("DefaultCPUAllocator: ") && says("you tried to allocate ")) || says("CUDA error: out of memory") ||
         says("CUBLAS_STATUS_ALLOC_FAILED") || says("CUDNN_STATUS_ALLOC_FAILED");
}

}  // namespace attnfleet::trainer
