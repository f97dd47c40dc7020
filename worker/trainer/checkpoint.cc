#include "worker/trainer/checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/name_list.h"
#include "worker/trainer/safetensors_writer.h"

namespace attnfleet::trainer {
namespace {

constexpr char kPrefix[] = "layoutlmv3.";
constexpr char kHead[] = "classifier.";
// Constants that some versions of transformers store beside the weights.
constexpr const char* kBuffers[] = {"layoutlmv3.embeddings.position_ids", "layoutlmv3.visual_bbox"};

at::ScalarType ToScalarType(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return at::kFloat;
    case ElementType::kFloat16:
      return at::kHalf;
    case ElementType::kBFloat16:
      return at::kBFloat16;
    case ElementType::kInt64:
      return at::kLong;
  }
  return at::kFloat;
}

std::string Brackets(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// What a checkpoint may hold although this model has no place for it.
std::set<std::string> NamesToLeaveOut(const ModelConfig& config) {
  ModelConfig whole = config;
  whole.image = whole.relative_bias = whole.spatial_bias = true;
  std::set<std::string> names(std::begin(kBuffers), std::end(kBuffers));
  for (const auto& [name, shape] : ParameterShapes(whole)) names.insert(name);
  for (const auto& [name, shape] : ParameterShapes(config)) names.erase(name);
  return names;
}

bool HasHead(const NamedEntries& entries) {
  const auto first = entries.lower_bound(kHead);
  return first != entries.end() && first->first.starts_with(kHead);
}

absl::StatusOr<ElementType> StoredType(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return ElementType::kFloat32;
  if (tensor.scalar_type() == at::kBFloat16) return ElementType::kBFloat16;
  return absl::UnimplementedError(
      absl::StrCat("weights of type ", at::toString(tensor.scalar_type()), " cannot be saved"));
}

}  // namespace

at::Tensor ToTensor(const SafetensorsFile::Entry& entry) {
  at::Tensor tensor = at::empty(entry.shape, ToScalarType(entry.type));
  if (!entry.bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), entry.bytes.data(), entry.bytes.size());
  return tensor;
}

NamedShapes ParameterShapes(const ModelConfig& config) {
  Model model;
  model.config = config;
  NamedShapes shapes;
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor&) { shapes[spec.name] = {spec.shape}; });
  return shapes;
}

absl::Status MatchTensors(const std::string& source, const NamedShapes& expected, const NamedEntries& entries) {
  std::vector<std::string> missing, surplus, unlike;
  for (const auto& [name, shape] : expected) {
    if (!entries.contains(name)) missing.push_back(name);
  }
  for (const auto& [name, entry] : entries) {
    const auto wanted = expected.find(name);
    if (wanted == expected.end()) {
      surplus.push_back(name);
    } else if ((entry.type == ElementType::kInt64) != wanted->second.integer) {
      unlike.push_back(absl::StrCat(name, " is ", Name(entry.type)));
    } else if (entry.shape != wanted->second.sizes) {
      unlike.push_back(absl::StrCat(name, " is ", Brackets(entry.shape), ", not ", Brackets(wanted->second.sizes)));
    }
  }
  std::vector<std::string> problems;
  const auto list = [&](const char* what, const std::vector<std::string>& names) {
    if (!names.empty()) problems.push_back(absl::StrCat(names.size(), " ", what, ": ", NameList(names)));
  };
  list("missing", missing);
  list("surplus", surplus);
  list("unlike", unlike);
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(source, " does not fit the model; tensors ", absl::StrJoin(problems, "; ")));
}

void CopyParameters(const NamedEntries& entries, Model& model) {
  const at::NoGradGuard no_gradient;
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& tensor) {
    const auto entry = entries.find(spec.name);
    if (entry != entries.end()) tensor.copy_(ToTensor(entry->second));
  });
}

absl::StatusOr<std::string> LoadCheckpoint(const std::string& path, Model& model) {
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Read(path);
  if (!file.ok()) return file.status();
  const std::set<std::string> left_out = NamesToLeaveOut(model.config);
  NamedEntries entries;
  for (const auto& [name, entry] : file->entries()) {
    const bool plain = name.starts_with(kPrefix) || name.starts_with(kHead);
    const std::string full = plain ? name : kPrefix + name;
    if (left_out.contains(full)) continue;
    if (!entries.emplace(full, entry).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, " holds ", full, " twice, with and without ", kPrefix));
    }
  }
  NamedShapes expected = ParameterShapes(model.config);
  const bool headless = !HasHead(entries);
  if (headless) std::erase_if(expected, [](const auto& item) { return item.first.starts_with(kHead); });
  if (absl::Status status = MatchTensors(path, expected, entries); !status.ok()) return status;
  CopyParameters(entries, model);
  return headless ? absl::StrCat(path, " has no classifier; it begins with random weights") : "";
}

absl::Status CheckSavePath(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is no regular file"));
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (access(folder.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("nothing can be written to ", folder));
}

absl::Status SaveCheckpoint(const std::string& path, const Model& model) {
  Model shared = model;  // the same tensors
  std::vector<SafetensorsWriter::Tensor> tensors;
  std::vector<at::Tensor> values;
  absl::Status status;
  VisitParameters(shared, [&](const ParameterSpec& spec, at::Tensor& tensor) {
    const absl::StatusOr<ElementType> type = StoredType(tensor);
    status.Update(type.status());
    if (type.ok()) tensors.push_back({spec.name, *type, spec.shape});
    values.push_back(tensor.detach());
  });
  if (!status.ok()) return status;
  // transformers refuses a file that does not say whose format it is.
  absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create(path, tensors, {{"format", "pt"}});
  if (!writer.ok()) return writer.status();
  for (const at::Tensor& value : values) {
    const at::Tensor host = value.to(at::kCPU).contiguous();
    status = writer->Append({static_cast<const char*>(host.const_data_ptr()), host.nbytes()});
    if (!status.ok()) return status;
  }
  return writer->Finish();
}

}  // namespace attnfleet::trainer
