#ifndef ATTNFLEET_PROTO_SUPPORT_LOG_H_
#define ATTNFLEET_PROTO_SUPPORT_LOG_H_

#include <string_view>

namespace attnfleet {

enum class Severity { kInfo, kWarning, kError };

// Sets the program's name and the least severity that is written. Before it, everything is. Call once, early in main.
void InitLog(std::string_view program, Severity least);

// One line on standard error: time, severity, program, text. Thread-safe.
void Log(Severity severity, std::string_view text);

inline void LogInfo(std::string_view text) { Log(Severity::kInfo, text); }
inline void LogWarning(std::string_view text) { Log(Severity::kWarning, text); }
inline void LogError(std::string_view text) { Log(Severity::kError, text); }

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_LOG_H_
