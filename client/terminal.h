#ifndef ATTNFLEET_CLIENT_TERMINAL_H_
#define ATTNFLEET_CLIENT_TERMINAL_H_

namespace attnfleet::client {

// What can be shown on a file descriptor.
struct Terminal {
  bool interactive = false;  // a terminal that can move its cursor
  bool color = false;        // interactive, and NO_COLOR is not set
  int width = 0;             // columns; 0 = no limit
};

// The width is COLUMNS if set, else the terminal's own, else without limit.
Terminal DescribeTerminal(int descriptor);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_TERMINAL_H_
