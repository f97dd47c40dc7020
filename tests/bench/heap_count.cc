// libheap_count.so, to be preloaded into a program: counts the bytes that it has allocated and not freed. mallinfo2
// would count what the caches of its threads hold as well, and resident memory all that lies between. The count is in
// the file that ATTNFLEET_HEAP_COUNT names: 8 bytes, in the machine's order. The program's children do not count.

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// NOLINTBEGIN(bugprone-reserved-identifier): glibc's own names for what is replaced here
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);
}

namespace {

std::atomic<int64_t> before_main{0};
std::atomic<int64_t>* bytes = &before_main;

void* Count(void* memory) {
  if (memory != nullptr) bytes->fetch_add(static_cast<int64_t>(malloc_usable_size(memory)), std::memory_order_relaxed);
  return memory;
}

__attribute__((constructor)) void Begin() {
  const char* const path = std::getenv("ATTNFLEET_HEAP_COUNT");
  if (path == nullptr) return;
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void* const memory = file < 0 || ftruncate(file, sizeof *bytes) != 0
                           ? MAP_FAILED
                           : mmap(nullptr, sizeof *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) {
    std::perror(path);
    _exit(1);
  }
  close(file);
  bytes = static_cast<std::atomic<int64_t>*>(memory);
  *bytes = before_main.load();
  unsetenv("LD_PRELOAD");
  unsetenv("ATTNFLEET_HEAP_COUNT");
}

}  // namespace

extern "C" {

void* malloc(size_t size) noexcept { return Count(__libc_malloc(size)); }
void* calloc(size_t count, size_t size) noexcept { return Count(__libc_calloc(count, size)); }
void* memalign(size_t alignment, size_t size) noexcept { return Count(__libc_memalign(alignment, size)); }
void* aligned_alloc(size_t alignment, size_t size) noexcept { return memalign(alignment, size); }

int posix_memalign(void** memory, size_t alignment, size_t size) noexcept {
  void* const aligned = memalign(alignment, size);
  if (aligned == nullptr) return ENOMEM;
  *memory = aligned;
  return 0;
}

void* realloc(void* memory, size_t size) noexcept {
  const auto before = static_cast<int64_t>(malloc_usable_size(memory));
  void* const moved = __libc_realloc(memory, size);
  if (moved != nullptr || size == 0) bytes->fetch_sub(before, std::memory_order_relaxed);
  return Count(moved);
}

void free(void* memory) noexcept {
  bytes->fetch_sub(static_cast<int64_t>(malloc_usable_size(memory)), std::memory_order_relaxed);
  __libc_free(memory);
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier)
