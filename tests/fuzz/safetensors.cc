// A checkpoint's header: what is accepted describes bytes that are in the file.

#include "worker/trainer/safetensors.h"

#include <string>

#include "support.h"

using attnfleet::fuzz::Check;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string contents(reinterpret_cast<const char*>(data), size);
  const auto file = attnfleet::trainer::SafetensorsFile::Parse("fuzz.safetensors", contents);
  if (!file.ok()) return 0;
  size_t sum = 0;  // reads every byte of every tensor
  for (const auto& [name, entry] : file->entries()) {
    size_t elements = 1;
    for (const int64_t dimension : entry.shape) {
      Check(dimension >= 0, "no dimension is negative");
      elements *= static_cast<size_t>(dimension);
    }
    Check(entry.bytes.size() == elements * static_cast<size_t>(attnfleet::trainer::Bytes(entry.type)),
          "a tensor has as many bytes as its shape says");
    for (const char byte : entry.bytes) sum += static_cast<unsigned char>(byte);
  }
  Check(sum <= file->entries().size() * size * 255, "the bytes are of the file");
  return 0;
}
