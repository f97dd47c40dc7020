// What a trainer writes, in pieces of any size: every event that is accepted reaches the coordinator as it is.

#include "worker/trainer_output.h"

#include <string>

#include "support.h"

using attnfleet::fuzz::Check;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = size_t{data[0]} + 1;
  std::string_view left(reinterpret_cast<const char*>(data + 1), size - 1);
  attnfleet::worker::LineSplitter lines;
  attnfleet::worker::LogTail log;
  size_t seen = 0;
  while (!left.empty()) {
    const std::string_view bytes = left.substr(0, piece);
    left.remove_prefix(bytes.size());
    log.Add(bytes);
    const absl::Status status = lines.Add(bytes, [&seen](std::string_view line) {
      seen += line.size() + 1;
      Check(line.find('\n') == std::string_view::npos, "a line holds no line feed");
      const absl::StatusOr<attnfleet::v1::TrainerEvent> event = attnfleet::worker::ParseTrainerEvent(line);
      if (!event.ok()) return;
      // A string that is no UTF-8 would make a message that no coordinator can read.
      attnfleet::v1::TrainerEvent received;
      Check(received.ParseFromString(event->SerializeAsString()), "an accepted event can be sent and read");
    });
    Check(status.ok(), "so short an output has no line that is too long");
  }
  Check(seen + lines.rest().size() == size - 1, "no byte is lost");
  Check(log.text().size() <= attnfleet::worker::kLogTailBytes, "the log's tail is bounded");
  Check(attnfleet::worker::DescribeExit({1, 0}, log).find('\n') == std::string::npos, "a reason is one line");
  return 0;
}
