#include "client/show.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/message_json.h"
#include "client/output.h"
#include "client/result_csv.h"
#include "client/result_details.h"
#include "client/result_file.h"
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

Flag FormatFlag(Format& format, const std::vector<std::string>& names) {
  return {"format", "FORMAT",
          absl::StrCat(absl::StrJoin(names.begin(), names.end() - 1, ", "), " or ", names.back(), "; default table"),
          [&format, names](const std::string& text) {
            for (size_t i = 0; i < names.size(); ++i) {
              if (names[i] != text) continue;
              format = static_cast<Format>(i);
              return absl::OkStatus();
            }
            return absl::InvalidArgumentError(UnknownName("format", text, names));
          }};
}

Flag OutputFlag(std::string& path) {
  return {"output", "FILE", "write the result to FILE instead of standard output", SetString(path)};
}

absl::Status Show(const std::vector<v1::Benchmark>& benchmarks, const ResultSource& source, absl::TimeZone zone,
                  const OutputFlags& output) {
  if (output.format == Format::kJson) return Write(output, ResultJson(benchmarks));
  if (output.format == Format::kCsv) return Write(output, ResultCsv(benchmarks));
  const Terminal terminal = TerminalOf(output);
  if (output.format == Format::kDetails)
    return Write(output, ResultDetails(benchmarks, source.where, terminal.width, zone));
  const ResultView view = MakeResultView(benchmarks, source, zone);
  if (output.format == Format::kMarkdown) return Write(output, ResultMarkdown(benchmarks, view));
  return Write(output, ResultTable(view, terminal.width, terminal.color));
}

}  // namespace

const char kFiguresHelp[] =
    "MFU (model FLOPS utilisation) = model FLOPs per iteration x it/s / the device's dense peak at this precision, "
    "where\n"
    "model FLOPs per iteration = 6 x weights of the matrix products x tokens + 12 x layers x S x hidden x tokens, all\n"
    "tokens counted, padding too; it is unknown where the peak is. Memory: peak allocated is what tensors took, peak\n"
    "reserved what the caching allocator held, sampled the largest figure of the driver for the process, peak "
    "resident\n"
    "the process's own memory. 1 GB = 1e9 bytes, 1 GiB = 2^30 bytes.\n";

std::vector<Flag> OutputFlags::Flags() {
  return {FormatFlag(format, {"table", "markdown", "csv", "json"}), OutputFlag(path)};
}

std::vector<Flag> ResultFlags::Flags() {
  return {
      FormatFlag(format, {"table", "markdown", "csv", "json", "details"}),
      {"details", "", "everything that is known about each cell: the same as --format=details",
       [this](const std::string& text) {
         bool on = false;
         absl::Status status = SetBool(on)(text);
         if (on) format = Format::kDetails;
         return status;
       }},
      {"include-contaminated", "",
       "count runs that were throttled or shared their GPU too; by default they are left out of every figure",
       SetBool(include_contaminated)},
      OutputFlag(path),
  };
}

absl::Status ShowBenchmark(const v1::Benchmark& benchmark, const ConnectionFlags& connection,
                           const ResultFlags& output) {
  const std::string again = absl::StrCat("attnfleet results ", benchmark.id(), connection.Suffix(),
                                         output.include_contaminated ? " --include-contaminated" : "");
  return Show({benchmark}, {again, connection.local() ? "" : connection.Suffix()}, absl::LocalTimeZone(), output);
}

absl::Status ShowFiles(const std::vector<std::string>& paths, const ResultFlags& output) {
  const absl::StatusOr<std::vector<v1::Benchmark>> benchmarks = ReadResultFiles(paths);
  if (!benchmarks.ok()) return benchmarks.status();
  return Show(*benchmarks, {absl::StrCat("attnfleet results --input=", absl::StrJoin(paths, ",")), ""},
              absl::UTCTimeZone(), output);
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
    case Format::kDetails:
      break;
  }
  const Terminal terminal = TerminalOf(output);
  return Write(output, GridText(grid, terminal.color, terminal.width));
}

}  // namespace attnfleet::client
