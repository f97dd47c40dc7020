#include "client/show.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "client/message_json.h"
#include "client/output.h"
#include "client/result_csv.h"
#include "client/result_table.h"
#include "client/result_view.h"
#include "client/terminal.h"
#include "proto/suggest.h"

namespace attnfleet::client {
namespace {

// A file is read later, on who knows what terminal.
Terminal TerminalOf(const OutputFlags& output) {
  return output.path.empty() ? DescribeTerminal(STDOUT_FILENO) : Terminal();
}

absl::Status Write(const OutputFlags& output, const std::string& text) {
  absl::Status status = WriteOutput(output.path, text);
  if (status.ok() && !output.path.empty()) PrintNote("wrote " + output.path);
  return status;
}

}  // namespace

std::vector<Flag> OutputFlags::Flags() {
  return {
      {"format", "FORMAT", "table, markdown, csv or json; default table",
       [this](const std::string& text) {
         const std::vector<std::string> names = {"table", "markdown", "csv", "json"};
         for (size_t i = 0; i < names.size(); ++i) {
           if (names[i] != text) continue;
           format = static_cast<Format>(i);
           return absl::OkStatus();
         }
         return absl::InvalidArgumentError(UnknownName("format", text, names));
       }},
      {"output", "FILE", "write the result to FILE instead of standard output", SetString(path)},
  };
}

absl::Status ShowBenchmark(const v1::Benchmark& benchmark, const ConnectionFlags& connection,
                           const OutputFlags& output) {
  if (output.format == Format::kJson) return Write(output, MessageJson(benchmark));
  if (output.format == Format::kCsv) return Write(output, ResultCsv(benchmark));
  const std::string again = absl::StrCat("attnfleet results ", benchmark.id(), connection.Suffix());
  const ResultView view = MakeResultView(benchmark, again, absl::LocalTimeZone());
  if (output.format == Format::kMarkdown) return Write(output, ResultMarkdown(view));
  const Terminal terminal = TerminalOf(output);
  return Write(output, ResultTable(view, terminal.width, terminal.color));
}

absl::Status ShowList(const Grid& grid, const google::protobuf::Message& message, const OutputFlags& output) {
  switch (output.format) {
    case Format::kJson:
      return Write(output, MessageJson(message));
    case Format::kCsv:
      return Write(output, GridCsv(grid));
    case Format::kMarkdown:
      return Write(output, GridMarkdown(grid));
    case Format::kTable:
      break;
  }
  return Write(output, GridText(grid, TerminalOf(output).color));
}

}  // namespace attnfleet::client
