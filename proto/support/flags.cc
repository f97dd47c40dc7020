#include "proto/support/flags.h"

#include <algorithm>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "proto/suggest.h"

namespace attnfleet {
namespace {

// ABSL_FLAG names are identifiers (state_dir); users write --state-dir.
std::string Spelling(absl::string_view name) { return absl::StrCat("--", absl::StrReplaceAll(name, {{"_", "-"}})); }

absl::CommandLineFlag* Find(const std::string& name) {
  return absl::FindCommandLineFlag(absl::StrReplaceAll(name, {{"-", "_"}}));
}

std::vector<std::string> FlagNames() {
  std::vector<std::string> names = {"--help", "--version"};
  for (const auto& [name, flag] : absl::GetAllFlags()) names.push_back(Spelling(name));
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status Set(absl::CommandLineFlag& flag, const std::string& value) {
  std::string error;
  if (flag.ParseFrom(value, &error)) return absl::OkStatus();
  // The library's own words for these are of its making.
  if (flag.IsOfType<absl::Duration>()) error = "give a number and its unit, for example 500ms, 30s, 5m or 6h";
  if (flag.IsOfType<int>()) error = "give a whole number";
  return absl::InvalidArgumentError(absl::StrCat(Spelling(flag.Name()), ": \"", value, "\" is no value of this flag",
                                                 error.empty() ? "" : ": ", error));
}

}  // namespace

absl::StatusOr<CommandLine> ParseFlags(int argc, const char* const* argv) {
  CommandLine result;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--") {
      result.positional.insert(result.positional.end(), argv + i + 1, argv + argc);
      break;
    }
    if (!absl::StartsWith(argument, "-") || argument == "-") {
      result.positional.push_back(argument);
      continue;
    }
    if (argument == "--help" || argument == "-h") {
      result.help = true;
      continue;
    }
    if (argument == "--version") {
      result.version = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const bool has_value = equals != std::string::npos;
    std::string name = argument.substr(0, equals);
    absl::CommandLineFlag* flag = nullptr;
    bool negated = false;
    if (absl::StartsWith(name, "--")) {
      flag = Find(name.substr(2));
      if (flag == nullptr && !has_value && absl::StartsWith(name, "--no")) {
        flag = Find(name.substr(4));
        negated = flag != nullptr && flag->IsOfType<bool>();
        if (!negated) flag = nullptr;
      }
    }
    if (flag == nullptr) return absl::InvalidArgumentError(UnknownName("flag", name, FlagNames()));
    std::string value;
    if (has_value) {
      value = argument.substr(equals + 1);
    } else if (flag->IsOfType<bool>()) {
      value = negated ? "false" : "true";
    } else if (i + 1 < argc) {
      value = argv[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat(name, " needs a value: ", name, "=..."));
    }
    if (absl::Status status = Set(*flag, value); !status.ok()) return status;
  }
  return result;
}

}  // namespace attnfleet
