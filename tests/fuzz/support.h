#ifndef ATTNFLEET_TESTS_FUZZ_SUPPORT_H_
#define ATTNFLEET_TESTS_FUZZ_SUPPORT_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace attnfleet::fuzz {

// What must hold for every input: libFuzzer keeps the input that ends the process here.
inline void Check(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// An input taken apart from its beginning; zeros and nothing behind its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return left_.empty(); }

  uint8_t Byte() {
    if (left_.empty()) return 0;
    const char first = left_.front();
    left_.remove_prefix(1);
    return static_cast<uint8_t>(first);
  }

  // Two bytes of length (little-endian), then as many bytes as are there of it.
  std::string_view Bytes() {
    const size_t low = Byte();
    const size_t length = low + (static_cast<size_t>(Byte()) << 8);
    const std::string_view bytes = left_.substr(0, length);
    left_.remove_prefix(bytes.size());
    return bytes;
  }

 private:
  std::string_view left_;
};

}  // namespace attnfleet::fuzz

#endif  // ATTNFLEET_TESTS_FUZZ_SUPPORT_H_
