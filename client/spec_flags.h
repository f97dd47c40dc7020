#ifndef ATTNFLEET_CLIENT_SPEC_FLAGS_H_
#define ATTNFLEET_CLIENT_SPEC_FLAGS_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "client/command_line.h"

namespace attnfleet::client {

// A benchmark as a user gives it: flags, and perhaps a spec file that they override. Pure.
class SpecFlags {
 public:
  // Flags that fill this object, which must outlive them.
  std::vector<Flag> Flags();

  // Lays the flags over the spec file's text (if --spec is given), applies the preset and validates; `known_backends`
  // empty = not known yet. INVALID_ARGUMENT names the flag, or the file with the line or the field.
  absl::StatusOr<v1::BenchmarkSpec> Spec(const std::optional<std::string>& file_text,
                                         const std::vector<std::string>& known_backends) const;

  // Names the flag in an error that names a field of the spec ("training.timed_steps: ..." -> "--steps: ..."), or the
  // spec file if the field came from there.
  absl::Status NameFlag(const absl::Status& error) const;

  // Of --spec; "" if not given, "-" for standard input.
  const std::string& file() const { return file_; }

 private:
  v1::BenchmarkSpec given_;
  std::set<std::string> given_fields_;  // their names in the spec
  std::string file_;
};

// The text of a spec file, of standard input for "-", nothing for "".
absl::StatusOr<std::optional<std::string>> ReadSpecFile(const std::string& file);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_SPEC_FLAGS_H_
