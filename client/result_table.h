#ifndef ATTNFLEET_CLIENT_RESULT_TABLE_H_
#define ATTNFLEET_CLIENT_RESULT_TABLE_H_

#include <string>
#include <vector>

#include "client/result_view.h"

namespace attnfleet::client {

// For people: one row for each shape if that fits into `width` columns (0 = no limit), else one for each cell; under it
// the footnotes and facts.
std::string ResultTable(const ResultView& view, int width, bool color);

// The same as a GitHub table, and a second one with every figure of each cell.
std::string ResultMarkdown(const std::vector<v1::Benchmark>& benchmarks, const ResultView& view);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_TABLE_H_
