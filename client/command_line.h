#ifndef ATTNFLEET_CLIENT_COMMAND_LINE_H_
#define ATTNFLEET_CLIENT_COMMAND_LINE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/support/stop_signals.h"

namespace attnfleet::client {

// One flag of a command. Abseil's flags are global to a program; a program with subcommands needs its own for each, so
// that `attnfleet list --steps=3` is an error and `attnfleet list --help` shows what list takes.
struct Flag {
  std::string name;   // without the dashes
  std::string value;  // how --help names its value: "N", "FILE"; empty: a switch
  std::string help;   // may hold several lines
  // Takes the text of the value ("true" or "false" for a switch). An error need not name the flag.
  std::function<absl::Status(const std::string& text)> set;
};

// Reads --name=value, --name value, --switch and --noswitch; "--" ends the flags. Returns the arguments that are no
// flags. INVALID_ARGUMENT names the flag and what would be right.
absl::StatusOr<std::vector<std::string>> ParseArguments(const std::vector<std::string>& arguments,
                                                        const std::vector<Flag>& flags);

// The flags as --help shows them, one block of lines each.
std::string FlagHelp(const std::vector<Flag>& flags);

// Setters for common kinds of values.
std::function<absl::Status(const std::string&)> SetString(std::string& target);
std::function<absl::Status(const std::string&)> SetBool(bool& target);

// The numbers and names that flags take. Errors are `"TEXT" is no whole number` and the like.
absl::StatusOr<int> ParseInt(const std::string& text);
absl::StatusOr<double> ParseNumber(const std::string& text);
absl::StatusOr<bool> ParseBool(const std::string& text);                       // on/off, true/false, yes/no, 1/0
absl::StatusOr<double> ParseSeconds(const std::string& text);                  // "90", "90s", "5m", "1h30m"
absl::StatusOr<std::vector<std::string>> ParseNames(const std::string& text);  // "a,b,c", none empty

// A command with the values of its flags.
class Command {
 public:
  Command() = default;
  virtual ~Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  // Bound to this object, which they fill.
  virtual std::vector<Flag> Flags() = 0;

  // Returns the exit code, or an error that main prints and turns into one.
  virtual absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) = 0;
};

struct CommandInfo {
  std::string name;
  std::string alias;      // second name, or ""
  std::string arguments;  // "[ID]", for --help
  size_t least_arguments;
  size_t most_arguments;
  std::string summary;   // one line
  std::string examples;  // and what else --help says before the flags
  std::unique_ptr<Command> (*make)();
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_COMMAND_LINE_H_
