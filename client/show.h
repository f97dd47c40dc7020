#ifndef ATTNFLEET_CLIENT_SHOW_H_
#define ATTNFLEET_CLIENT_SHOW_H_

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "client/command_line.h"
#include "client/connection.h"
#include "client/grid.h"

namespace attnfleet::client {

enum class Format { kTable, kMarkdown, kCsv, kJson, kDetails };

// How a list is shown, and where.
struct OutputFlags {
  Format format = Format::kTable;
  std::string path;  // "" = standard output

  // --format, --output
  std::vector<Flag> Flags();
};

// As above, for results.
struct ResultFlags : OutputFlags {
  bool include_contaminated = false;

  // Also --format=details, --details, --include-contaminated
  std::vector<Flag> Flags();
};

// For --help: what MFU and the kinds of memory are.
extern const char kFiguresHelp[];

// A benchmark's results in the format asked for.
absl::Status ShowBenchmark(const v1::Benchmark& benchmark, const ConnectionFlags& connection,
                           const ResultFlags& output);

// Results from files; times are in UTC, so that the same files always give the same text.
absl::Status ShowFiles(const std::vector<std::string>& paths, const ResultFlags& output);

// A list; `message` is the same for JSON.
absl::Status ShowList(const Grid& grid, const google::protobuf::Message& message, const OutputFlags& output);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_SHOW_H_
