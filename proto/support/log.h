#ifndef ATTNFLEET_PROTO_SUPPORT_LOG_H_
#define ATTNFLEET_PROTO_SUPPORT_LOG_H_

#include <initializer_list>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace attnfleet {

enum class Severity { kInfo, kWarning, kError };

enum class LogFormat {
  kText,  // for people: time severity program: text name=value ...
  kJson,  // JSON Lines: {"time", "level", "program", "message", and the fields}
};

// What a line is about, besides its text. One with an empty value is left out.
struct LogField {
  std::string_view name;  // "request_id", "run", ...: lower case, for JSON as it is
  std::string_view value;
};
using LogFields = std::initializer_list<LogField>;

// "text" or "json"; INVALID_ARGUMENT opens with "--log-format".
absl::StatusOr<LogFormat> ParseLogFormat(const std::string& text);

// Sets the program's name, the least severity that is written, and how. Before it, everything is, as text. Call once,
// early in main.
void InitLog(std::string_view program, Severity least, LogFormat format = LogFormat::kText);

// Whether lines of this severity are written; for what is costly to put together.
bool LogsAt(Severity severity);

// One line on standard error. Thread-safe.
void Log(Severity severity, std::string_view text, LogFields fields = {});

inline void LogInfo(std::string_view text, LogFields fields = {}) { Log(Severity::kInfo, text, fields); }
inline void LogWarning(std::string_view text, LogFields fields = {}) { Log(Severity::kWarning, text, fields); }
inline void LogError(std::string_view text, LogFields fields = {}) { Log(Severity::kError, text, fields); }

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_LOG_H_
