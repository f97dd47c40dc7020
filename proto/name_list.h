#ifndef ATTNFLEET_PROTO_NAME_LIST_H_
#define ATTNFLEET_PROTO_NAME_LIST_H_

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace attnfleet {

// "a, b, c and 190 more": for a message that stays one line.
inline std::string NameList(const std::vector<std::string>& names, size_t most = 8) {
  const size_t shown = std::min(names.size(), most);
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(shown);
  std::string text = absl::StrJoin(names.begin(), end, ", ");
  if (shown < names.size()) absl::StrAppend(&text, " and ", names.size() - shown, " more");
  return text;
}

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_NAME_LIST_H_
