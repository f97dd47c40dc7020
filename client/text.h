#ifndef ATTNFLEET_CLIENT_TEXT_H_
#define ATTNFLEET_CLIENT_TEXT_H_

#include <string>
#include <vector>

// Small pure helpers for text that people read.

namespace attnfleet::client {

// Columns that UTF-8 text takes on a terminal; every character counts as one.
int DisplayWidth(const std::string& text);

std::string PadLeft(const std::string& text, int width);
std::string PadRight(const std::string& text, int width);

// At most `width` columns, the last of them "…" if something was cut off. width <= 0: as it is.
std::string Truncate(const std::string& text, int width);

// Control characters become '?': names and reasons come from other machines, and a terminal would obey them.
std::string Printable(const std::string& text);

// Lines of at most `width` columns, broken at spaces; a longer word gets a line of its own. width <= 0: one line.
std::vector<std::string> Wrap(const std::string& text, int width);

// "0.4 s", "42 s", "3 min 20 s", "2 h 5 min".
std::string FormatDuration(double seconds);

// Shortest decimal text that reads back as the same number.
std::string FormatExact(double value);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_TEXT_H_
