#include "client/result_table.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/grid.h"
#include "client/result_figures.h"
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

// Without an interval, with a mark where one would say that the ratio may as well be on the other side of 1, or where
// there is none.
std::string RatioText(const ResultCell& cell, bool interval) {
  if (interval && !cell.interval.empty()) return absl::StrCat(cell.ratio, " ", cell.interval);
  return cell.doubtful ? cell.ratio + "?" : cell.ratio;
}

// One row for each shape, as in the published table. `markdown` puts the unit behind each backend's name instead of
// above a group of them.
Grid WideGrid(const ResultView& view, bool markdown, bool interval) {
  Grid grid;
  grid.columns = {{"Batch", true}, {"Seq", true}};
  const std::string memory = markdown ? absl::StrCat("GB (", view.memory_kind, ")") : view.memory_kind + ", GB";
  const auto has_ratio = [&view](size_t i) { return view.has_ratio && view.backends[i] != "eager"; };
  for (const std::string& title : view.titles) grid.columns.push_back({title, true, "it/s"});
  for (size_t i = 0; i < view.titles.size(); ++i) {
    if (has_ratio(i)) grid.columns.push_back({view.titles[i], true, "vs eager"});
  }
  if (view.has_mfu) {
    for (const std::string& title : view.titles) grid.columns.push_back({title, true, "MFU"});
  }
  for (const std::string& title : view.titles) grid.columns.push_back({title, true, memory});
  if (view.names_device) {
    grid.columns.push_back({view.device_title, false});
    grid.columns.push_back({"Start", false});
  }
  for (const ResultRow& row : view.rows) {
    std::vector<GridCell> line = {{absl::StrCat(row.shape.batch())}, {absl::StrCat(row.shape.sequence_length())}};
    for (const ResultCell& cell : row.cells) line.emplace_back(SpeedText(cell, false), StyleOf(cell));
    for (size_t i = 0; i < row.cells.size(); ++i) {
      if (has_ratio(i)) line.emplace_back(RatioText(row.cells[i], interval));
    }
    if (view.has_mfu) {
      for (const ResultCell& cell : row.cells) line.emplace_back(cell.mfu);
    }
    for (const ResultCell& cell : row.cells) line.emplace_back(cell.memory);
    if (view.names_device) {
      line.emplace_back(row.device);
      line.emplace_back(row.time);
    }
    grid.rows.push_back(std::move(line));
  }
  return grid;
}

// What a table with a row for each cell shows, from most to least.
struct LongColumns {
  bool device_memory;  // reserved and sampled too
  bool interval;
  bool mfu;
  bool device;
  bool narrow;
};

// One row for each cell.
Grid LongGrid(const ResultView& view, const LongColumns& show) {
  const bool device_memory = show.device_memory && view.has_device_memory;
  const bool mfu = show.mfu && view.has_mfu;
  const bool device = show.device && view.names_device;
  const bool node = !device && !view.fleet.empty();  // without it nobody could tell the rows apart
  Grid grid;
  grid.columns = {{"Shape"}, {"Backend"}, {"it/s", true}};
  if (node) grid.columns.insert(grid.columns.begin() + 1, {view.device_title, false});
  if (view.has_ratio) grid.columns.push_back({show.narrow ? "ratio" : "vs eager", true});
  if (mfu) grid.columns.push_back({"MFU", true});
  grid.columns.push_back({show.narrow ? "GB" : view.memory_kind + ", GB", true});
  if (device_memory) {
    grid.columns.push_back({"peak reserved, GB", true});
    grid.columns.push_back({"sampled, GB", true});
  }
  if (device) {
    grid.columns.push_back({view.device_title, false});
    grid.columns.push_back({"Start", false});
  }
  for (const ResultRow& row : view.rows) {
    for (size_t i = 0; i < view.backends.size(); ++i) {
      const ResultCell& cell = row.cells[i];
      std::vector<GridCell> line = {{FormatShape(row.shape)}};
      if (node) line.emplace_back(row.device);
      line.emplace_back(view.titles[i]);
      line.emplace_back(SpeedText(cell, show.narrow), StyleOf(cell));
      if (view.has_ratio) line.emplace_back(RatioText(cell, show.interval));
      if (mfu) line.emplace_back(cell.mfu);
      line.emplace_back(cell.memory);
      if (device_memory) {
        line.emplace_back(cell.reserved);
        line.emplace_back(cell.sampled);
      }
      if (device) {
        line.emplace_back(row.device);
        line.emplace_back(row.time);
      }
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

std::string Below(const ResultView& view, const Facts& facts, int width) {
  std::string text;
  for (const std::string& note : view.notes) {
    const size_t space = note.find(' ');
    absl::StrAppend(&text, Indented(note.substr(0, space), note.substr(space + 1), 4, width));
  }
  if (!text.empty()) absl::StrAppend(&text, "\n");
  for (const auto& [label, fact] : facts) {
    const bool narrow = width > 0 && width < kNarrow;
    absl::StrAppend(&text, narrow ? Indented("", absl::StrCat(label, ": ", fact), 0, width)
                                  : Indented(label, fact, kLabelWidth, width));
  }
  return text;
}

}  // namespace

std::string ResultTable(const ResultView& view, int width, bool color) {
  struct Layout {
    Grid grid;
    const Facts& facts;
  };
  std::vector<Layout> layouts = {{WideGrid(view, false, true), view.facts},
                                 {WideGrid(view, false, false), view.facts_without_intervals}};
  for (const LongColumns& show :
       {LongColumns{true, true, true, true, false}, LongColumns{false, true, true, true, false},
        LongColumns{false, true, true, false, false}, LongColumns{false, false, true, false, false},
        LongColumns{false, false, true, false, true}}) {
    layouts.push_back({LongGrid(view, show), show.narrow     ? view.narrow_facts
                                             : show.interval ? view.facts
                                                             : view.facts_without_intervals});
  }
  layouts.push_back({LongGrid(view, {false, false, false, false, true}), view.narrow_facts});
  const auto fits = [width](const Layout& layout) { return width <= 0 || GridWidth(layout.grid) <= width; };
  const auto found = std::find_if(layouts.begin(), layouts.end(), fits);
  const Layout& best = found == layouts.end() ? layouts.back() : *found;
  std::string text = GridText(best.grid, color);
  for (const Grid& fleet : view.fleet) absl::StrAppend(&text, "\n", GridText(fleet, color, width));
  return absl::StrCat(text, "\n", Below(view, best.facts, width));
}

std::string ResultMarkdown(const std::vector<v1::Benchmark>& benchmarks, const ResultView& view) {
  std::string text = absl::StrCat(GridMarkdown(WideGrid(view, true, true)), "\n");
  for (const Grid& fleet : view.fleet) absl::StrAppend(&text, GridMarkdown(fleet), "\n");
  for (const std::string& note : view.notes) absl::StrAppend(&text, "- ", note[0] == '*' ? "\\" : "", note, "\n");
  for (const auto& [label, fact] : view.facts) absl::StrAppend(&text, "- ", label, ": ", fact, "\n");
  return absl::StrCat(text, "\n", GridMarkdown(FiguresGrid(benchmarks)));
}

}  // namespace attnfleet::client
