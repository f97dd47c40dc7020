#include "proto/support/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace attnfleet {
namespace {

constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%eZ %l %n: %v";
// The message is the rest of the object.
constexpr char kJsonPattern[] = R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","program":"%n",%v})";

spdlog::level::level_enum Level(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return spdlog::level::info;
    case Severity::kWarning:
      return spdlog::level::warn;
    case Severity::kError:
      break;
  }
  return spdlog::level::err;
}

struct Writer {
  std::shared_ptr<spdlog::logger> logger;
  LogFormat format;
};

Writer MakeWriter(const std::string& name, LogFormat format) {
  auto logger = std::make_shared<spdlog::logger>(name, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern(format == LogFormat::kJson ? kJsonPattern : kTextPattern, spdlog::pattern_time_type::utc);
  return {std::move(logger), format};
}

Writer& TheWriter() {
  static Writer writer = MakeWriter("attnfleet", LogFormat::kText);
  return writer;
}

std::string AsText(std::string_view text, LogFields fields) {
  std::string line(text);
  for (const LogField& field : fields) {
    if (!field.value.empty()) {
      absl::StrAppend(&line, " ", std::string(field.name), "=", absl::CHexEscape(std::string(field.value)));
    }
  }
  return line;
}

std::string Quoted(std::string_view text) {
  // Bytes that are no UTF-8 are replaced: a log holds whatever a program was told.
  return nlohmann::json(std::string(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string AsJson(std::string_view text, LogFields fields) {
  std::string line = absl::StrCat("\"message\":", Quoted(text));
  for (const LogField& field : fields) {
    if (!field.value.empty()) absl::StrAppend(&line, ",\"", std::string(field.name), "\":", Quoted(field.value));
  }
  return line;
}

}  // namespace

absl::StatusOr<LogFormat> ParseLogFormat(const std::string& text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(absl::StrCat("--log-format: \"", text, "\" is none; text or json is possible"));
}

void InitLog(std::string_view program, Severity least, LogFormat format) {
  TheWriter() = MakeWriter(std::string(program), format);
  TheWriter().logger->set_level(Level(least));
}

bool LogsAt(Severity severity) { return TheWriter().logger->should_log(Level(severity)); }

void Log(Severity severity, std::string_view text, LogFields fields) {
  if (!LogsAt(severity)) return;
  const Writer& writer = TheWriter();
  writer.logger->log(Level(severity), writer.format == LogFormat::kJson ? AsJson(text, fields) : AsText(text, fields));
}

}  // namespace attnfleet
