#ifndef ATTNFLEET_PROTO_SUGGEST_H_
#define ATTNFLEET_PROTO_SUGGEST_H_

#include <string>
#include <string_view>
#include <vector>

namespace attnfleet {

// The candidate nearest to `name` by edit distance, or "" if none is near enough to be what was meant.
std::string Nearest(std::string_view name, const std::vector<std::string>& candidates);

// `unknown backend "flsh"; did you mean "flash2"? available: eager, sdpa, flash2`
std::string UnknownName(std::string_view kind, std::string_view name, const std::vector<std::string>& candidates);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUGGEST_H_
