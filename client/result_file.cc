#include "client/result_file.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/message_json.h"
#include "proto/support/state_dir.h"

namespace attnfleet::client {

std::string ResultJson(const std::vector<v1::Benchmark>& benchmarks) {
  if (benchmarks.size() == 1) return MessageJson(benchmarks[0]);
  const auto one = [](std::string* out, const v1::Benchmark& benchmark) {
    absl::StrAppend(out, MessageJson(benchmark));
    out->pop_back();  // its newline
  };
  return absl::StrCat("[\n", absl::StrJoin(benchmarks, ",\n", one), "\n]\n");
}

absl::StatusOr<std::vector<v1::Benchmark>> ParseResultJson(const std::string& text) {
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, false);
  if (document.is_discarded()) return absl::InvalidArgumentError("is no JSON");
  std::vector<v1::Benchmark> benchmarks;
  for (const nlohmann::json& part : document.is_array() ? document : nlohmann::json::array({document})) {
    v1::Benchmark& benchmark = benchmarks.emplace_back();
    if (const absl::Status status = ParseMessageJson(part.dump(), benchmark); !status.ok()) return status;
    if (benchmark.jobs().empty()) return absl::InvalidArgumentError("holds no jobs: it is no result of --format=json");
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
      return absl::InvalidArgumentError(absl::StrCat("--input: ", path, ": ", std::string(some.status().message())));
    }
    for (v1::Benchmark& benchmark : *some) all.push_back(std::move(benchmark));
  }
  return all;
}

}  // namespace attnfleet::client
