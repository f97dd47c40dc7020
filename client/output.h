#ifndef ATTNFLEET_CLIENT_OUTPUT_H_
#define ATTNFLEET_CLIENT_OUTPUT_H_

#include <string>

#include "absl/status/status.h"

namespace attnfleet::client {

// Proves, before anything is started or asked, that `path` can be written. Creates it if it is missing.
absl::Status CheckOutput(const std::string& path);

// Writes the result to `path`, or to standard output if it is empty. A reader that went away (`| head`) is no error.
absl::Status WriteOutput(const std::string& path, const std::string& text);

// To standard error, as one line; what goes wrong there cannot be told anyone.
void PrintNote(const std::string& text);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_OUTPUT_H_
