#include "client/command_line.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "proto/suggest.h"

namespace attnfleet::client {
namespace {

absl::Status Wrong(const std::string& text, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" ", what));
}

const Flag* Find(const std::vector<Flag>& flags, const std::string& name) {
  const auto found = std::find_if(flags.begin(), flags.end(), [&](const Flag& flag) { return flag.name == name; });
  return found == flags.end() ? nullptr : &*found;
}

absl::Status UnknownFlag(const std::string& argument, const std::vector<Flag>& flags) {
  std::vector<std::string> names = {"--help"};
  for (const Flag& flag : flags) names.push_back("--" + flag.name);
  return absl::InvalidArgumentError(UnknownName("flag", argument, names));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseArguments(const std::vector<std::string>& arguments,
                                                        const std::vector<Flag>& flags) {
  std::vector<std::string> positional;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      positional.insert(positional.end(), arguments.begin() + static_cast<ptrdiff_t>(i) + 1, arguments.end());
      break;
    }
    if (!absl::StartsWith(argument, "-") || argument == "-") {
      positional.push_back(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const Flag* flag = absl::StartsWith(name, "--") ? Find(flags, name.substr(2)) : nullptr;
    std::string value = "true";
    if (flag == nullptr && absl::StartsWith(name, "--no") && equals == std::string::npos) {
      flag = Find(flags, name.substr(4));
      if (flag != nullptr && !flag->value.empty()) flag = nullptr;
      value = "false";
    }
    if (flag == nullptr) return UnknownFlag(name, flags);
    if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (!flag->value.empty()) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat(name, " needs a value: ", name, "=", flag->value));
      }
      value = arguments[++i];
    }
    if (const absl::Status status = flag->set(value); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--", flag->name, ": ", std::string(status.message())));
    }
  }
  return positional;
}

std::string FlagHelp(const std::vector<Flag>& flags) {
  std::string text;
  for (const Flag& flag : flags) {
    absl::StrAppend(&text, "  --", flag.name, flag.value.empty() ? "" : "=", flag.value, "\n");
    const std::vector<std::string> lines = absl::StrSplit(flag.help, '\n');
    for (const std::string& line : lines) absl::StrAppend(&text, "      ", line, "\n");
  }
  return text;
}

std::function<absl::Status(const std::string&)> SetString(std::string& target) {
  return [&target](const std::string& text) {
    target = text;
    return text.empty() ? absl::InvalidArgumentError("a value is needed") : absl::OkStatus();
  };
}

std::function<absl::Status(const std::string&)> SetBool(bool& target) {
  return [&target](const std::string& text) {
    const absl::StatusOr<bool> value = ParseBool(text);
    if (value.ok()) target = *value;
    return value.status();
  };
}

absl::StatusOr<int> ParseInt(const std::string& text) {
  int value = 0;
  if (absl::SimpleAtoi(text, &value)) return value;
  return Wrong(text, "is no whole number");
}

absl::StatusOr<double> ParseNumber(const std::string& text) {
  double value = 0;
  if (absl::SimpleAtod(text, &value) && std::isfinite(value)) return value;
  return Wrong(text, "is no number");
}

absl::StatusOr<bool> ParseBool(const std::string& text) {
  for (const char* yes : {"on", "true", "yes", "1"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"off", "false", "no", "0"}) {
    if (text == no) return false;
  }
  return Wrong(text, "is neither on nor off");
}

absl::StatusOr<double> ParseSeconds(const std::string& text) {
  double seconds = 0;
  absl::Duration duration;
  if (!absl::SimpleAtod(text, &seconds)) {
    if (!absl::ParseDuration(text, &duration)) return Wrong(text, "is no duration; give seconds, or 90s, 5m, 1h30m");
    seconds = absl::ToDoubleSeconds(duration);
  }
  if (std::isfinite(seconds) && seconds > 0) return seconds;
  return Wrong(text, "is no positive duration");
}

absl::StatusOr<std::vector<std::string>> ParseNames(const std::string& text) {
  std::vector<std::string> names;
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  for (const std::string& part : parts) {
    names.emplace_back(absl::StripAsciiWhitespace(part));
    if (names.back().empty()) return Wrong(text, "has an empty element; give names with commas between them");
  }
  return names;
}

}  // namespace attnfleet::client
