#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cell_name.h"
#include "client/commands/commands.h"
#include "client/commands/flags.h"
#include "client/connection.h"
#include "client/output.h"
#include "client/show.h"
#include "client/text.h"
#include "proto/spec.h"
#include "proto/support/exit_code.h"

namespace attnfleet::client {
namespace {

Grid MakeGrid(const v1::ExplainResponse& response) {
  Grid grid;
  const auto& explanations = response.explanations();
  const bool nodes = std::any_of(explanations.begin(), explanations.end(),
                                 [](const v1::Explanation& explanation) { return explanation.has_node(); });
  grid.columns = {{"Shape"}, {"Backend"}};
  if (nodes) grid.columns.push_back({"Node"});
  grid.columns.push_back({"Where its runs are, or why they wait"});
  for (const v1::Explanation& explanation : explanations) {
    std::vector<GridCell> row = {FormatShape(explanation.shape()), explanation.backend()};
    if (nodes) row.emplace_back(NodeName(explanation.node()));
    row.emplace_back(explanation.text());
    grid.rows.push_back(std::move(row));
  }
  return grid;
}

class Explain : public Command {
 public:
  std::vector<Flag> Flags() override { return Join({output_.Flags(), connection_.Flags()}); }

  absl::StatusOr<int> Run(const std::vector<std::string>& arguments, StopSignals& signals) override {
    const absl::StatusOr<uint64_t> id = ParseId(arguments[0]);
    if (!id.ok()) return id.status();
    if (const absl::Status status = CheckOutput(output_.path); !status.ok()) return status;
    const auto connection = Connection::Open(connection_, "attnfleet explain", signals);
    if (!connection.ok()) return connection.status();
    const absl::StatusOr<v1::ExplainResponse> response = (*connection)->server().Explain(*id);
    if (!response.ok()) return response.status();
    (*connection)->Close();
    if (const absl::Status status = ShowList(MakeGrid(*response), *response, output_); !status.ok()) return status;
    if (!response->stalled().empty()) {
      PrintNote(absl::StrCat("warning: nothing new starts, and no result is taken: ", Printable(response->stalled())));
    }
    return kExitOk;
  }

 private:
  OutputFlags output_;
  ConnectionFlags connection_;
};

}  // namespace

const CommandInfo kExplainCommand = {
    "explain",
    "",
    "ID",
    1,
    1,
    "say why a benchmark's runs wait, or where they are",
    "  attnfleet explain 12 --server=HOST:7600\n",
    [] { return std::unique_ptr<Command>(new Explain); },
};

}  // namespace attnfleet::client
