#include "worker/trainer_output.h"

#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "worker/message_json.h"

namespace attnfleet::worker {
namespace {

constexpr size_t kQuotedBytes = 120;

std::string Quote(std::string_view text) {
  return absl::StrCat("\"", absl::CHexEscape(std::string(text.substr(0, kQuotedBytes))),
                      text.size() > kQuotedBytes ? "...\"" : "\"");
}

}  // namespace

absl::Status LineSplitter::Add(std::string_view bytes, const std::function<void(std::string_view)>& line) {
  while (!bytes.empty() && !too_long_) {
    const size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    if (rest_.size() + piece.size() > kMaxLineBytes) {
      too_long_ = true;
      break;
    }
    if (end == std::string_view::npos) {
      rest_.append(piece);
      return absl::OkStatus();
    }
    bytes.remove_prefix(end + 1);
    if (rest_.empty()) {
      line(piece);
    } else {
      rest_.append(piece);
      line(rest_);
      rest_.clear();
    }
  }
  if (!too_long_) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("a line of its output is longer than ", kMaxLineBytes, " bytes"));
}

void LogTail::Add(std::string_view bytes) {
  if (bytes.size() > kLogTailBytes) bytes.remove_prefix(bytes.size() - kLogTailBytes);
  const size_t total = text_.size() + bytes.size();
  if (total > kLogTailBytes) text_.erase(0, total - kLogTailBytes);
  text_.append(bytes);
}

std::string LogTail::LastLine() const {
  constexpr char kBlank[] = " \t\r\n";
  const size_t last = text_.find_last_not_of(kBlank);
  if (last == std::string::npos) return "";
  const size_t feed = text_.find_last_of('\n', last);
  const size_t first = text_.find_first_not_of(kBlank, feed == std::string::npos ? 0 : feed + 1);
  return absl::CHexEscape(text_.substr(first, last - first + 1));
}

absl::StatusOr<v1::TrainerEvent> ParseTrainerEvent(std::string_view line) {
  v1::TrainerEvent event;
  if (MessageFromJson(line, event)) return event;
  return absl::InvalidArgumentError(absl::StrCat("a line of its output is no TrainerEvent: ", Quote(line)));
}

std::string DescribeExit(ExitState state, const LogTail& log) {
  if (state.signal != 0) {
    return absl::StrCat("trainer killed by signal ", state.signal, " (", strsignal(state.signal), ")");
  }
  const std::string last = log.LastLine();
  return absl::StrCat("trainer exited with status ", state.status, last.empty() ? "" : ": ", last);
}

}  // namespace attnfleet::worker
