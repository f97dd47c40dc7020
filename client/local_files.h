#ifndef ATTNFLEET_CLIENT_LOCAL_FILES_H_
#define ATTNFLEET_CLIENT_LOCAL_FILES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "client/command_line.h"

namespace attnfleet::client {

// Files of this machine that a private worker is to read: --data and --weights of `run`.
class LocalFiles {
 public:
  // Flags that fill this object, which must outlive them.
  std::vector<Flag> Flags();

  // Puts the files' names into the spec and returns the one folder that both are in, "" without files. `local`: a
  // private worker runs the benchmark. INVALID_ARGUMENT names the flag and what would be right.
  absl::StatusOr<std::string> Apply(bool local, v1::BenchmarkSpec& spec) const;

 private:
  std::string data_;
  std::string weights_;
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_LOCAL_FILES_H_
