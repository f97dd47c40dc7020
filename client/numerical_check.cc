#include "client/numerical_check.h"

#include "absl/strings/str_format.h"

namespace attnfleet::client {
namespace {

// Of the relative errors; what is right stays below a tenth of them (1e-2 in bf16-mixed, see deploy/results). A
// precision that this build does not know has the widest.
double MostError(const std::string& precision) {
  if (precision == "fp32") return 1e-3;
  if (precision == "tf32") return 0.02;
  return 0.1;
}

std::string Failure(const v1::NumericalCheck& check, const std::string& precision) {
  const double most = MostError(precision);
  const auto off = [&](const std::string& what, double error) {
    return error <= most ? ""  // false for NaN
                         : absl::StrFormat("numerical check failed: %s off by %.2g (%s: at most %g)", what, error,
                                           precision, most);
  };
  if (std::string text = off("gradient of " + check.gradient_worst(), check.gradient_error()); !text.empty()) {
    return text;
  }
  if (std::string text = off("output", check.output_error()); !text.empty()) return text;
  return off("loss", check.loss_error());
}

}  // namespace

std::string NumericalCheckFailure(const v1::Job& job) {
  for (const v1::Run& run : job.runs()) {
    const v1::NumericalCheck& check = run.result().measurement().numerical_check();
    if (check.samples() == 0 || !check.skipped().empty()) continue;
    if (std::string text = Failure(check, run.result().environment().precision()); !text.empty()) return text;
  }
  return "";
}

}  // namespace attnfleet::client
