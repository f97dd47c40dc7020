#ifndef ATTNFLEET_WORKER_TRAINER_OUT_OF_MEMORY_H_
#define ATTNFLEET_WORKER_TRAINER_OUT_OF_MEMORY_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace attnfleet::trainer {

// The bytes that an allocator's message names; 0 where it does not.
struct OutOfMemory {
  int64_t requested_bytes = 0;
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
  bool host_memory = false;  // the host's, not the GPU's
};

// What is said of a std::bad_alloc.
inline constexpr char kHostMemoryUsedUp[] = "the host's memory is used up";

// Reads the messages of LibTorch's allocators: "CUDA out of memory. Tried to allocate 48.00 GiB. GPU 0 has a total
// capacity of 79.11 GiB of which 3.20 GiB is free." and "... DefaultCPUAllocator: can't allocate memory: you tried to
// allocate 4096 bytes."
OutOfMemory ParseOutOfMemory(std::string_view message);

// Whether an error that has no type of its own says that memory is used up: the CPU allocator's, or one of CUDA, cuBLAS
// and cuDNN outside of the caching allocator.
bool IsOutOfMemory(std::string_view message);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_OUT_OF_MEMORY_H_
