#include "proto/part.h"

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace attnfleet {

absl::StatusOr<double> ParsePart(const std::string& text) {
  absl::string_view digits = text;
  const double whole = absl::ConsumeSuffix(&digits, "%") ? 100 : 1;
  double value = 0;
  if (absl::SimpleAtod(digits, &value) && value >= 0 && value < whole) return value / whole;  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no part of a whole; give 0 <= part < 1, for example 0.005 or 0.5%"));
}

}  // namespace attnfleet
