#ifndef ATTNFLEET_CLIENT_COMMANDS_FLAGS_H_
#define ATTNFLEET_CLIENT_COMMANDS_FLAGS_H_

#include <initializer_list>
#include <vector>

#include "client/command_line.h"

namespace attnfleet::client {

// One list of several.
inline std::vector<Flag> Join(std::initializer_list<std::vector<Flag>> lists) {
  std::vector<Flag> all;
  for (const std::vector<Flag>& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_COMMANDS_FLAGS_H_
