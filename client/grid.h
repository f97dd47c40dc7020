#ifndef ATTNFLEET_CLIENT_GRID_H_
#define ATTNFLEET_CLIENT_GRID_H_

#include <string>
#include <utility>
#include <vector>

namespace attnfleet::client {

enum class Style { kPlain, kGood, kBad };

struct GridCell {
  GridCell(std::string text_in, Style style_in = Style::kPlain)  // NOLINT: a row is written as a list of strings
      : text(std::move(text_in)), style(style_in) {}
  std::string text;
  Style style;
};

struct GridColumn {
  std::string title;
  bool right = false;      // numbers
  std::string group = {};  // neighbours of one group share a title above their own; "" = none
};

// Rows and columns of text, shown in three ways. Control characters are made harmless in each.
struct Grid {
  std::vector<GridColumn> columns;
  std::vector<std::vector<GridCell>> rows;
  std::string empty = {};  // what GridText says where there are no rows; "" = titles alone
};

// Aligned columns, one line a row, ending in a newline. A grid without groups can be fitted into `width` columns (0 =
// no limit): columns that are empty in every row are left out, then text is broken at spaces, and where even so a line
// would be longer, each row is a block of lines with one cell each.
std::string GridText(const Grid& grid, bool color, int width = 0);

// Columns that GridText's longest line takes.
int GridWidth(const Grid& grid);

// GitHub's table syntax; a column's group is put before its title.
std::string GridMarkdown(const Grid& grid);

// RFC 4180 with \n line ends. Text that a spreadsheet would run as a formula gets a ' in front.
std::string GridCsv(const Grid& grid);

// One line of CSV.
std::string CsvLine(const std::vector<std::string>& fields);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_GRID_H_
