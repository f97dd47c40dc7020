#include "client/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/numbers.h"

namespace attnfleet::client {

Terminal DescribeTerminal(int descriptor) {
  Terminal terminal;
  const char* type = std::getenv("TERM");
  terminal.interactive = isatty(descriptor) == 1 && type != nullptr && std::strcmp(type, "dumb") != 0;
  const char* no_color = std::getenv("NO_COLOR");
  terminal.color = terminal.interactive && (no_color == nullptr || *no_color == '\0');
  const char* columns = std::getenv("COLUMNS");
  if (columns != nullptr && absl::SimpleAtoi(columns, &terminal.width) && terminal.width > 0) return terminal;
  terminal.width = 0;
  winsize size{};
  if (isatty(descriptor) == 1 && ioctl(descriptor, TIOCGWINSZ, &size) == 0) terminal.width = size.ws_col;
  return terminal;
}

}  // namespace attnfleet::client
