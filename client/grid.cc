#include "client/grid.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/text.h"

namespace attnfleet::client {
namespace {

constexpr char kReset[] = "\033[0m";

std::string Paint(const std::string& text, Style style, bool color) {
  if (!color || style == Style::kPlain || text.empty()) return text;
  return absl::StrCat(style == Style::kGood ? "\033[32m" : "\033[31m", text, kReset);
}

// The columns [first, last) of each group, in order; a column without group is one of its own.
struct Group {
  size_t first;
  size_t last;
  std::string title;
};

std::vector<Group> Groups(const Grid& grid) {
  std::vector<Group> groups;
  for (size_t i = 0; i < grid.columns.size(); ++i) {
    const std::string& title = grid.columns[i].group;
    if (!groups.empty() && groups.back().title == title && !title.empty()) {
      groups.back().last = i + 1;
    } else {
      groups.push_back({i, i + 1, title});
    }
  }
  return groups;
}

constexpr int kGap = 2;         // between columns
constexpr int kGroupGap = 3;    // before a group
constexpr int kLeastText = 12;  // in a narrower column text that goes on for lines is hard to read

int GapBefore(const Grid& grid, size_t column) {
  if (column == 0) return 0;
  const bool same = grid.columns[column].group == grid.columns[column - 1].group;
  return same ? kGap : kGroupGap;
}

int SpanOf(const Grid& grid, const Group& group, const std::vector<int>& widths) {
  int span = 0;
  for (size_t i = group.first; i < group.last; ++i) span += widths[i] + (i > group.first ? GapBefore(grid, i) : 0);
  return span;
}

std::vector<int> Widths(const Grid& grid) {
  std::vector<int> widths;
  for (size_t i = 0; i < grid.columns.size(); ++i) {
    int width = DisplayWidth(grid.columns[i].title);
    for (const auto& row : grid.rows) width = std::max(width, DisplayWidth(row[i].text));
    widths.push_back(width);
  }
  for (const Group& group : Groups(grid)) {
    const int missing = DisplayWidth(group.title) - SpanOf(grid, group, widths);
    if (missing > 0) widths[group.last - 1] += missing;
  }
  return widths;
}

std::string TrimRight(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

std::string GroupLine(const Grid& grid, const std::vector<int>& widths) {
  std::string line;
  for (const Group& group : Groups(grid)) {
    absl::StrAppend(&line, std::string(static_cast<size_t>(GapBefore(grid, group.first)), ' '));
    const int span = SpanOf(grid, group, widths);
    std::string title = group.title;
    if (!title.empty() && span >= DisplayWidth(title) + 3) {
      absl::StrAppend(&title, " ", std::string(static_cast<size_t>(span - DisplayWidth(title) - 1), '-'));
    }
    absl::StrAppend(&line, PadRight(title, span));
  }
  return TrimRight(line);
}

int Total(const Grid& grid, const std::vector<int>& widths) {
  int total = 0;
  for (size_t i = 0; i < widths.size(); ++i) total += widths[i] + GapBefore(grid, i);
  return total;
}

Grid WithoutEmptyColumns(Grid grid) {
  for (size_t i = grid.columns.size(); i-- > 0;) {
    const auto says = [i](const std::vector<GridCell>& row) { return !row[i].text.empty(); };
    if (std::any_of(grid.rows.begin(), grid.rows.end(), says)) continue;
    const auto at = static_cast<ptrdiff_t>(i);
    grid.columns.erase(grid.columns.begin() + at);
    for (auto& row : grid.rows) row.erase(row.begin() + at);
  }
  return grid;
}

int LongestWord(const std::string& text) {
  int longest = 0;
  for (const std::string& word : Wrap(text, 1)) longest = std::max(longest, DisplayWidth(word));
  return longest;
}

// The columns' widths where a line takes no more than `width` columns (<= 0: no limit), at the cost of the widest,
// whose cells have to be broken at spaces; numbers are not. Empty if that does not do.
std::vector<int> WidthsWithin(const Grid& grid, int width) {
  std::vector<int> widths = Widths(grid);
  std::vector<int> least;
  for (size_t i = 0; i < widths.size(); ++i) {
    const bool right = grid.columns[i].right;
    int narrowest = std::max(LongestWord(grid.columns[i].title), right ? 0 : std::min(widths[i], kLeastText));
    for (const auto& row : grid.rows) {
      narrowest = std::max(narrowest, right ? DisplayWidth(row[i].text) : LongestWord(row[i].text));
    }
    least.push_back(narrowest);
  }
  for (int over = width > 0 ? Total(grid, widths) - width : 0; over > 0; --over) {
    int* widest = nullptr;
    for (size_t i = 0; i < widths.size(); ++i) {
      if (widths[i] > least[i] && (widest == nullptr || widths[i] > *widest)) widest = &widths[i];
    }
    if (widest == nullptr) return {};
    --*widest;
  }
  return widths;
}

// A row, of as many lines as its highest cell.
std::string RowLines(const Grid& grid, const std::vector<GridCell>& row, const std::vector<int>& widths, bool color) {
  std::vector<std::vector<std::string>> cells;
  size_t height = 1;
  for (size_t i = 0; i < row.size(); ++i) {
    const bool fits = DisplayWidth(row[i].text) <= widths[i];
    cells.push_back(fits ? std::vector<std::string>{row[i].text} : Wrap(row[i].text, widths[i]));
    height = std::max(height, cells.back().size());
  }
  std::string text;
  for (size_t part = 0; part < height; ++part) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string cell = part < cells[i].size() ? cells[i][part] : "";
      const std::string gap(static_cast<size_t>(GapBefore(grid, i)), ' ');
      const std::string fill(static_cast<size_t>(std::max(0, widths[i] - DisplayWidth(cell))), ' ');
      const std::string painted = Paint(cell, row[i].style, color);
      absl::StrAppend(&line, gap, grid.columns[i].right ? fill + painted : painted + fill);
    }
    absl::StrAppend(&text, TrimRight(line), "\n");
  }
  return text;
}

// One line for each cell, under each other; what is empty is left out.
std::string Blocks(const Grid& grid, bool color, int width) {
  std::string text;
  for (const auto& row : grid.rows) {
    if (!text.empty()) absl::StrAppend(&text, "\n");
    for (size_t i = 0; i < row.size(); ++i) {
      if (row[i].text.empty()) continue;
      for (const std::string& line : Wrap(absl::StrCat(grid.columns[i].title, ": ", row[i].text), width)) {
        absl::StrAppend(&text, Paint(line, row[i].style, color), "\n");
      }
    }
  }
  return text;
}

std::string EscapeMarkdown(const std::string& text) {
  return absl::StrReplaceAll(Printable(text), {{"|", "\\|"}, {"<", "&lt;"}});
}

}  // namespace

std::string GridText(const Grid& raw, bool color, int width) {
  if (raw.rows.empty() && !raw.empty.empty()) return raw.empty + "\n";
  Grid grid = raw;
  for (auto& row : grid.rows) {
    for (GridCell& cell : row) cell.text = Printable(cell.text);
  }
  if (width > 0 && GridWidth(grid) > width) grid = WithoutEmptyColumns(std::move(grid));
  const std::vector<int> widths = WidthsWithin(grid, width);
  if (widths.empty()) return Blocks(grid, color, width);
  std::vector<GridCell> titles;
  for (const GridColumn& column : grid.columns) titles.emplace_back(column.title);
  std::string header;
  const bool grouped = std::any_of(grid.columns.begin(), grid.columns.end(),
                                   [](const GridColumn& column) { return !column.group.empty(); });
  if (grouped) absl::StrAppend(&header, GroupLine(grid, widths), "\n");
  absl::StrAppend(&header, RowLines(grid, titles, widths, color));
  std::string text = color ? absl::StrCat("\033[1m", header, kReset) : header;
  for (const auto& row : grid.rows) absl::StrAppend(&text, RowLines(grid, row, widths, color));
  return text;
}

int GridWidth(const Grid& grid) { return Total(grid, Widths(grid)); }

std::string GridMarkdown(const Grid& grid) {
  std::string text = "|";
  for (const GridColumn& column : grid.columns) {
    absl::StrAppend(&text, " ", EscapeMarkdown(column.title), column.group.empty() ? "" : " ",
                    EscapeMarkdown(column.group), " |");
  }
  absl::StrAppend(&text, "\n|");
  for (const GridColumn& column : grid.columns) absl::StrAppend(&text, column.right ? " ---: |" : " --- |");
  absl::StrAppend(&text, "\n");
  for (const auto& row : grid.rows) {
    absl::StrAppend(&text, "|");
    for (const GridCell& cell : row) absl::StrAppend(&text, " ", EscapeMarkdown(cell.text), " |");
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string CsvLine(const std::vector<std::string>& fields) {
  std::vector<std::string> quoted;
  quoted.reserve(fields.size());
  for (const std::string& field : fields) {
    double number = 0;
    std::string text = Printable(field);
    constexpr std::string_view kFormulaStarts = "=+-@";
    if (!text.empty() && kFormulaStarts.find(text[0]) != std::string_view::npos && !absl::SimpleAtod(text, &number)) {
      text.insert(0, "'");
    }
    if (text.find_first_of(",\"\r\n") != std::string::npos) {
      text = absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
    }
    quoted.push_back(std::move(text));
  }
  return absl::StrJoin(quoted, ",") + "\n";
}

std::string GridCsv(const Grid& grid) {
  std::vector<std::string> fields;
  for (const GridColumn& column : grid.columns) fields.push_back(column.title);
  std::string text = CsvLine(fields);
  for (const auto& row : grid.rows) {
    fields.clear();
    for (const GridCell& cell : row) fields.push_back(cell.text);
    absl::StrAppend(&text, CsvLine(fields));
  }
  return text;
}

}  // namespace attnfleet::client
