#include "client/result_table.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/grid.h"
#include "client/text.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

// A narrower indent leaves more room on a narrow terminal.
constexpr int kLabelWidth = 11;
constexpr int kNarrow = 60;

Style StyleOf(const ResultCell& cell) {
  if (cell.bad) return Style::kBad;
  return cell.fastest ? Style::kGood : Style::kPlain;
}

// Narrow: without the spread, and with no more than the footnote's mark where a figure is missing.
std::string SpeedText(const ResultCell& cell, bool narrow) {
  std::vector<std::string> parts = {narrow && cell.bad && cell.speed != "OOM" ? "-" : cell.speed};
  if (!narrow && !cell.spread.empty()) parts.push_back(cell.spread);
  if (!cell.note.empty()) parts.push_back(cell.note);
  return absl::StrJoin(parts, " ");
}

// One row for each shape, as in the published table. `markdown` puts the unit behind each backend's name instead of
// above a group of them.
Grid WideGrid(const ResultView& view, bool markdown) {
  Grid grid;
  grid.columns = {{"Batch", true}, {"Seq", true}};
  const std::string memory = markdown ? absl::StrCat("GB (", view.memory_kind, ")") : view.memory_kind + ", GB";
  for (const std::string& backend : view.backends) grid.columns.push_back({backend, true, "it/s"});
  for (const std::string& backend : view.backends) {
    if (view.has_ratio && backend != "eager") grid.columns.push_back({backend, true, "vs eager"});
  }
  for (const std::string& backend : view.backends) grid.columns.push_back({backend, true, memory});
  for (size_t row = 0; row < view.shapes.size(); ++row) {
    const std::vector<ResultCell>& cells = view.cells[row];
    std::vector<GridCell> line = {{absl::StrCat(view.shapes[row].batch())},
                                  {absl::StrCat(view.shapes[row].sequence_length())}};
    for (const ResultCell& cell : cells) line.emplace_back(SpeedText(cell, false), StyleOf(cell));
    for (size_t i = 0; i < cells.size(); ++i) {
      if (view.has_ratio && view.backends[i] != "eager") line.emplace_back(cells[i].ratio);
    }
    for (const ResultCell& cell : cells) line.emplace_back(cell.memory);
    grid.rows.push_back(std::move(line));
  }
  return grid;
}

// One row for each cell.
Grid LongGrid(const ResultView& view, bool narrow) {
  Grid grid;
  grid.columns = {{"Shape"}, {"Backend"}, {"it/s", true}};
  if (view.has_ratio) grid.columns.push_back({narrow ? "ratio" : "vs eager", true});
  grid.columns.push_back({narrow ? "GB" : view.memory_kind + ", GB", true});
  for (size_t row = 0; row < view.shapes.size(); ++row) {
    for (size_t i = 0; i < view.backends.size(); ++i) {
      const ResultCell& cell = view.cells[row][i];
      std::vector<GridCell> line = {{FormatShape(view.shapes[row])}, {view.backends[i]}};
      line.emplace_back(SpeedText(cell, narrow), StyleOf(cell));
      if (view.has_ratio) line.emplace_back(cell.ratio);
      line.emplace_back(cell.memory);
      grid.rows.push_back(std::move(line));
    }
  }
  return grid;
}

std::string Indented(const std::string& first, const std::string& text, int indent, int width) {
  std::string result;
  for (const std::string& line : Wrap(text, width > 0 ? std::max(width - indent, 1) : 0)) {
    absl::StrAppend(&result, PadRight(result.empty() ? first : "", indent), line, "\n");
  }
  return result;
}

std::string Below(const ResultView& view, int width) {
  std::string text;
  for (const std::string& note : view.notes) {
    const size_t space = note.find(' ');
    absl::StrAppend(&text, Indented(note.substr(0, space), note.substr(space + 1), 4, width));
  }
  if (!text.empty()) absl::StrAppend(&text, "\n");
  for (const auto& [label, fact] : view.facts) {
    const bool narrow = width > 0 && width < kNarrow;
    absl::StrAppend(&text, narrow ? Indented("", absl::StrCat(label, ": ", fact), 0, width)
                                  : Indented(label, fact, kLabelWidth, width));
  }
  return text;
}

}  // namespace

std::string ResultTable(const ResultView& view, int width, bool color) {
  Grid grid = WideGrid(view, false);
  if (width > 0 && GridWidth(grid) > width) grid = LongGrid(view, false);
  if (width > 0 && GridWidth(grid) > width) grid = LongGrid(view, true);
  return absl::StrCat(GridText(grid, color), "\n", Below(view, width));
}

std::string ResultMarkdown(const ResultView& view) {
  std::string text = GridMarkdown(WideGrid(view, true)) + "\n";
  for (const std::string& note : view.notes) absl::StrAppend(&text, "- ", note, "\n");
  for (const auto& [label, fact] : view.facts) absl::StrAppend(&text, "- ", label, ": ", fact, "\n");
  return text;
}

}  // namespace attnfleet::client
