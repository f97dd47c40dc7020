#include "client/cell_name.h"

#include "absl/strings/str_cat.h"
#include "proto/spec.h"

namespace attnfleet::client {

std::string NodeName(const v1::Node& node) { return absl::StrCat(node.worker(), " ", node.slot()); }

std::string CellName(const v1::Job& job) {
  return absl::StrCat(job.backend(), " ", FormatShape(job.shape()), job.has_node() ? " on " : "",
                      job.has_node() ? NodeName(job.node()) : "");
}

}  // namespace attnfleet::client
