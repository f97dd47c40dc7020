#include "client/commands/commands.h"

#include <array>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/output.h"
#include "client/text.h"
#include "proto/suggest.h"
#include "proto/support/exit_code.h"
#include "proto/version.h"

namespace attnfleet::client {
namespace {

constexpr char kExitCodes[] =
    "Exit codes:\n"
    "  0    done; of run and watch: the benchmark finished and no run failed (out of memory and \"unsupported here\"\n"
    "       are results, not failures); of results: they were shown, failures too\n"
    "  1    of run and watch: at least one run failed, or the benchmark was cancelled; of any: the server could not\n"
    "       do what was asked (such as pause or resume what has ended), or the result could not be written\n"
    "  2    wrong usage: a flag, a file that cannot be opened or is damaged, an unknown benchmark or worker\n"
    "  3    the server cannot be reached or cannot answer at present, the state directory is in use or cannot be\n"
    "       written, or there is no LibTorch\n"
    "  4    the server refuses: it does not know the certificate, or its role may not do this\n"
    "  130  interrupted; what was measured is kept\n";

constexpr int kNameWidth = 29;  // of a command with its arguments

const std::array<const CommandInfo*, 11>& Table() {
  static const std::array<const CommandInfo*, 11> table = {
      &kRunCommand,   &kResultsCommand, &kListCommand,    &kSubmitCommand,  &kWatchCommand,    &kCancelCommand,
      &kPauseCommand, &kResumeCommand,  &kExplainCommand, &kWorkersCommand, &kBackendsCommand,
  };
  return table;
}

std::string MainHelp() {
  std::string text =
      "attnfleet: which attention implementation trains your document model fastest, and what it costs in memory.\n\n"
      "  attnfleet run --preset=tiny                              a first table, on this machine\n"
      "  attnfleet run --backends=eager,sdpa --shapes=32x128      a benchmark of your own\n"
      "  attnfleet results                                        the newest table again\n"
      "  attnfleet submit --server=HOST:7600 --preset=published   on a fleet\n\n"
      "Commands (attnfleet help COMMAND tells more):\n";
  for (const CommandInfo* command : Table()) {
    absl::StrAppend(&text, "  ", PadRight(absl::StrCat(command->name, " ", command->arguments), kNameWidth), " ",
                    command->summary, "\n");
  }
  absl::StrAppend(&text, "  ", PadRight("help [COMMAND]", kNameWidth), " this text, or a command's\n\n", kExitCodes);
  return text;
}

std::string CommandHelp(const CommandInfo& info) {
  const std::unique_ptr<Command> command = info.make();
  return absl::StrCat("attnfleet ", info.name, info.arguments.empty() ? "" : " ", info.arguments, ": ", info.summary,
                      "\n\n", info.examples, "\nFlags (--name=value or --name value):\n", FlagHelp(command->Flags()),
                      "\n", kExitCodes);
}

const CommandInfo* FindCommand(const std::string& name) {
  for (const CommandInfo* command : Table()) {
    if (command->name == name || (!command->alias.empty() && command->alias == name)) return command;
  }
  return nullptr;
}

absl::Status UnknownCommand(const std::string& name) {
  std::vector<std::string> names;
  for (const CommandInfo* command : Table()) names.push_back(command->name);
  names.emplace_back("help");
  return absl::InvalidArgumentError(UnknownName("command", name, names));
}

absl::StatusOr<int> Print(const std::string& text) {
  const absl::Status status = WriteOutput("", text);
  if (!status.ok()) return status;
  return kExitOk;
}

bool AsksForHelp(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    if (argument == "--help" || argument == "-h") return true;
  }
  return false;
}

absl::StatusOr<int> RunCommand(const CommandInfo& info, const std::vector<std::string>& arguments,
                               StopSignals& signals) {
  if (AsksForHelp(arguments)) return Print(CommandHelp(info));
  const std::unique_ptr<Command> command = info.make();
  const absl::StatusOr<std::vector<std::string>> positional = ParseArguments(arguments, command->Flags());
  if (!positional.ok()) return positional.status();
  if (positional->size() < info.least_arguments) {
    return absl::InvalidArgumentError(
        absl::StrCat(info.arguments, " is needed: attnfleet ", info.name, " ", info.arguments));
  }
  if (positional->size() > info.most_arguments) {
    return absl::InvalidArgumentError(absl::StrCat("what is \"", (*positional)[info.most_arguments],
                                                   "\"? The form is: attnfleet ", info.name, " [FLAGS]",
                                                   info.arguments.empty() ? "" : " ", info.arguments));
  }
  return command->Run(*positional, signals);
}

absl::StatusOr<int> Dispatch(const std::vector<std::string>& arguments, StopSignals& signals) {
  const std::string name = arguments.empty() ? "" : arguments[0];
  if (name == "--version") return Print(absl::StrCat("attnfleet ", kVersion, "\n"));
  if (name == "--help" || name == "-h" || (name == "help" && arguments.size() == 1)) return Print(MainHelp());
  if (name.empty()) return absl::InvalidArgumentError("a command is needed; attnfleet help lists them");
  const std::string wanted = name == "help" ? arguments[1] : name;
  const CommandInfo* command = FindCommand(wanted);
  if (command == nullptr) return UnknownCommand(wanted);
  if (name == "help") return Print(CommandHelp(*command));
  return RunCommand(*command, {arguments.begin() + 1, arguments.end()}, signals);
}

}  // namespace

int ExitCodeOf(const absl::Status& error) {
  switch (error.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
      return kExitUsage;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnavailable;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitRefused;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailed;
  }
}

int RunCommandLine(const std::vector<std::string>& arguments, StopSignals& signals) {
  const absl::StatusOr<int> result = Dispatch(arguments, signals);
  if (result.ok()) return *result;
  PrintNote(std::string(result.status().message()));
  return ExitCodeOf(result.status());
}

}  // namespace attnfleet::client
