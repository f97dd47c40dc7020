#include "client/result_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/message_json.h"
#include "proto/support/state_dir.h"

namespace attnfleet::client {
namespace {

// "is no JSON from line 3, column 7, on": what was read until the byte of that number is.
absl::Status NoJson(const std::string& text, size_t byte) {
  if (byte > text.size()) return absl::InvalidArgumentError("is no whole JSON: it ends too early");
  const std::string_view before = std::string_view(text).substr(0, std::max<size_t>(byte, 1) - 1);
  const size_t line_end = before.rfind('\n');
  const size_t column = line_end == std::string_view::npos ? before.size() + 1 : before.size() - line_end;
  return absl::InvalidArgumentError(absl::StrCat(
      "is no JSON from line ", 1 + std::count(before.begin(), before.end(), '\n'), ", column ", column, ", on"));
}

absl::StatusOr<nlohmann::json> Parse(const std::string& text) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    return NoJson(text, error.byte);
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError("holds a number that is too large");
  }
}

}  // namespace

std::string ResultJson(const std::vector<v1::Benchmark>& benchmarks) {
  if (benchmarks.size() == 1) return MessageJson(benchmarks[0]);
  const auto one = [](std::string* out, const v1::Benchmark& benchmark) {
    absl::StrAppend(out, MessageJson(benchmark));
    out->pop_back();  // its newline
  };
  return absl::StrCat("[\n", absl::StrJoin(benchmarks, ",\n", one), "\n]\n");
}

absl::StatusOr<std::vector<v1::Benchmark>> ParseResultJson(const std::string& text) {
  const absl::StatusOr<nlohmann::json> document = Parse(text);
  if (!document.ok()) return document.status();
  std::vector<v1::Benchmark> benchmarks;
  for (const nlohmann::json& part : document->is_array() ? *document : nlohmann::json::array({*document})) {
    if (!part.is_object()) return absl::InvalidArgumentError("holds no benchmark");
    v1::Benchmark& benchmark = benchmarks.emplace_back();
    if (const absl::Status status = ParseMessageJson(part.dump(), benchmark); !status.ok()) return status;
    if (benchmark.jobs().empty()) return absl::InvalidArgumentError("holds no jobs");
  }
  if (benchmarks.empty()) return absl::InvalidArgumentError("holds no benchmark");
  return benchmarks;
}

absl::StatusOr<std::vector<v1::Benchmark>> ReadResultFiles(const std::vector<std::string>& paths) {
  std::vector<v1::Benchmark> all;
  for (const std::string& path : paths) {
    const absl::StatusOr<std::string> text = ReadFile(path);
    if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat("--input: ", std::string(text.status().message())));
    absl::StatusOr<std::vector<v1::Benchmark>> some = ParseResultJson(*text);
    if (!some.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--input: ", path, ": ", std::string(some.status().message()),
                                                     "; give a file as attnfleet results --format=json writes it"));
    }
    for (v1::Benchmark& benchmark : *some) all.push_back(std::move(benchmark));
  }
  return all;
}

}  // namespace attnfleet::client
