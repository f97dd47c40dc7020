// Attention alone on a GPU: every backend that can run a shape, with LayoutLMv3's biases and without, forward and
// forward + backward. --help says how.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/buckets.h"
#include "worker/trainer/cuda_module.h"
#include "worker/trainer/model_config.h"
#include "worker/trainer/statistics.h"

namespace attnfleet::trainer {
namespace {

constexpr char kHelp[] = R"(usage: attention_speed [--shapes=BxS,...] [--heads=N] [--dropout=P] [--paths=NAME,...]
                       [--rounds=N] [--sample=MS] [--json=FILE]

Times attention alone on the first visible GPU, in bf16 with heads of 64, random boxes and no padding: each backend of
the trainer that can do it, with the biases of LayoutLMv3 on and off. What a backend prepares once a step for all of its
layers, such as a dense bias, is not in the times.

  --shapes   batch x length; 32x512,128x512,64x1024
  --heads    12
  --dropout  of the probabilities; 0.1
  --paths    backends to time; all (attnfleet-trainer --help lists them)
  --rounds   how often each path has its turn, one after the other, so that all meet the same clocks; 10
  --sample   how long a turn is to take, in milliseconds: as many calls as that takes, at least one; 10
  --json     also writes every sample to this file

Times are milliseconds of one call by CUDA events: the median of the rounds, and the smallest and largest. A backend
that cannot run a shape is listed with the reason. To carry it to a host with a GPU: libattnfleet_cuda.so beside it, and
LD_LIBRARY_PATH=.../torch/lib.
)";

constexpr int64_t kHeadSize = 64;

struct Shape {
  int64_t batch, length;
};

struct Options {
  std::vector<Shape> shapes = {{32, 512}, {128, 512}, {64, 1024}};
  int64_t heads = 12;
  double dropout = 0.1;
  std::vector<std::string> paths;
  int rounds = 10;
  double sample_milliseconds = 10;
  std::string json;
};

// Abseil's view is not the standard's everywhere.
absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }
std::vector<std::string> Split(std::string_view text, char separator) { return absl::StrSplit(View(text), separator); }

bool ParseShapes(std::string_view text, std::vector<Shape>& shapes) {
  shapes.clear();
  for (const std::string& part : Split(text, ',')) {
    const std::vector<std::string> sides = Split(part, 'x');
    Shape shape{};
    if (sides.size() != 2 || !absl::SimpleAtoi(sides[0], &shape.batch) || !absl::SimpleAtoi(sides[1], &shape.length) ||
        shape.batch <= 0 || shape.length <= 0) {
      return false;
    }
    shapes.push_back(shape);
  }
  return true;
}

bool ParsePaths(std::string_view text, std::vector<std::string>& paths) {
  paths = Split(text, ',');
  for (const std::string& path : paths) {
    if (const auto backend = FindBackend(path); !backend.ok()) {
      absl::FPrintF(stderr, "%s\n", backend.status().message());
      return false;
    }
  }
  return true;
}

bool Parse(std::string_view argument, Options& options) {
  const size_t equals = argument.find('=');
  if (equals == std::string_view::npos) return false;
  const std::string_view name = argument.substr(0, equals), value = argument.substr(equals + 1);
  if (name == "--shapes") return ParseShapes(value, options.shapes);
  if (name == "--heads") return absl::SimpleAtoi(View(value), &options.heads) && options.heads > 0;
  if (name == "--dropout") {
    return absl::SimpleAtod(View(value), &options.dropout) && options.dropout >= 0 && options.dropout < 1;
  }
  if (name == "--paths") return ParsePaths(value, options.paths);
  if (name == "--rounds") return absl::SimpleAtoi(View(value), &options.rounds) && options.rounds > 0;
  if (name == "--sample") return absl::SimpleAtod(View(value), &options.sample_milliseconds);
  if (name == "--json") {
    options.json = value;
    return true;
  }
  return false;
}

at::TensorOptions Cuda(at::ScalarType type) { return at::TensorOptions(at::kCUDA).dtype(type); }

BiasSource MakeSource(const AttentionProblem& problem) {
  const auto buckets = [](int64_t largest, int count, int distance) {
    return at::tensor(at::ArrayRef<int64_t>(BucketTable(largest, count, distance)), at::kLong).to(at::kCUDA);
  };
  const auto table = [&](int64_t columns) { return at::randn({problem.heads, columns}, Cuda(at::kFloat)); };
  BiasSource source;
  source.relative_table = table(kRelativeBuckets);
  source.x_table = table(kSpatialBuckets);
  source.y_table = table(kSpatialBuckets);
  source.relative_buckets = buckets(problem.sequence_length, kRelativeBuckets, kRelativeMaxDistance);
  source.spatial_buckets = buckets(1023, kSpatialBuckets, kSpatialMaxDistance);
  source.positions = at::arange(problem.sequence_length, Cuda(at::kLong));
  source.boxes = at::randint(0, 1001, {problem.batch, problem.sequence_length, 4}, Cuda(at::kLong));
  source.attention_mask = at::ones({problem.batch, problem.sequence_length}, Cuda(at::kLong));
  return source;
}

// One backend with biases on or off, and what was measured of it.
struct Path {
  const Backend* backend;
  bool biased;
  std::string refusal;  // empty: it runs
  AttentionProblem problem;
  StepTensors step;
  int calls = 1;                      // of a turn
  std::vector<double> forward, both;  // milliseconds of a call, one of each round
};

// q, k and v as parts of one product, and the gradient of the output, as the model has them.
struct Inputs {
  at::Tensor qkv, dout;
};

Inputs MakeInputs(const AttentionProblem& problem) {
  const at::Tensor qkv =
      at::randn({problem.batch, problem.sequence_length, 3, problem.heads, kHeadSize}, Cuda(at::kBFloat16));
  const at::Tensor dout =
      at::randn({problem.batch, problem.sequence_length, problem.heads, kHeadSize}, Cuda(at::kBFloat16));
  return {qkv, dout.transpose(1, 2)};
}

void Call(const Path& path, const Inputs& inputs, bool backward) {
  const auto leaf = [&](int64_t i) { return inputs.qkv.select(2, i).transpose(1, 2).detach().requires_grad_(); };
  const std::vector<at::Tensor> qkv = {leaf(0), leaf(1), leaf(2)};
  const at::Tensor output = path.backend->forward({qkv[0], qkv[1], qkv[2], path.step, path.problem.dropout});
  // Not backward(), which would copy the gradients to the layout of q, k and v. The model does not.
  if (backward) torch::autograd::grad({output}, qkv, {inputs.dout});
}

// Milliseconds of a call.
double Time(CudaDevice& gpu, const Path& path, const Inputs& inputs, bool backward) {
  gpu.Mark();
  for (int i = 0; i < path.calls; ++i) Call(path, inputs, backward);
  gpu.Mark();
  return 1000 * gpu.TakeIntervals().at(0) / path.calls;
}

// Prepares the path, runs it once to warm it up and once more to see how many calls make a turn.
void Begin(CudaDevice& gpu, Path& path, const BiasSource& source, const Inputs& inputs, double sample_milliseconds) {
  try {
    path.step = path.backend->prepare(path.problem, source);
    Call(path, inputs, /*backward=*/true);
    const double once = Time(gpu, path, inputs, /*backward=*/true);
    path.calls = std::max(1, static_cast<int>(sample_milliseconds / once));
  } catch (const c10::OutOfMemoryError&) {
    path.refusal = absl::StrFormat("%s: does not fit the GPU's memory", path.backend->name);
    path.step = {};
  }
}

std::vector<Path> MakePaths(const Options& options, const Shape& shape, int compute_capability) {
  std::vector<Path> paths;
  for (const bool biased : {true, false}) {
    for (const Backend* backend : Backends()) {
      const auto& wanted = options.paths;
      if (!backend->cuda ||
          (!wanted.empty() && std::find(wanted.begin(), wanted.end(), backend->name) == wanted.end())) {
        continue;
      }
      AttentionProblem problem;
      problem.cuda = true;
      problem.type = at::kBFloat16;
      problem.batch = shape.batch;
      problem.heads = options.heads;
      problem.sequence_length = shape.length;
      problem.head_size = kHeadSize;
      problem.relative_bias = problem.spatial_bias = biased;
      problem.compute_capability = compute_capability;
      problem.dropout = options.dropout;
      paths.push_back({backend, biased, backend->refuse(problem).value_or(""), problem, {}, 1, {}, {}});
    }
  }
  return paths;
}

std::string Spread(const std::vector<double>& sample) {
  return absl::StrFormat("%8.3f (%.3f to %.3f)", Quantile(sample, 0.5), Quantile(sample, 0), Quantile(sample, 1));
}

void Print(const std::vector<Path>& paths) {
  absl::PrintF("%-10s %-5s %-28s %s\n", "path", "bias", "forward", "forward + backward");
  for (const Path& path : paths) {
    const char* const bias = path.biased ? "on" : "off";
    if (!path.refusal.empty()) {
      absl::PrintF("%-10s %-5s %s\n", path.backend->name, bias, path.refusal);
    } else {
      absl::PrintF("%-10s %-5s %-28s %s\n", path.backend->name, bias, Spread(path.forward), Spread(path.both));
    }
  }
}

nlohmann::json Json(const std::vector<Path>& paths) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Path& path : paths) {
    nlohmann::json row = {{"path", path.backend->name}, {"bias", path.biased}};
    if (path.refusal.empty()) {
      row["forward_ms"] = path.forward;
      row["forward_backward_ms"] = path.both;
    } else {
      row["refused"] = path.refusal;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Path> Measure(CudaDevice& gpu, const Options& options, const Shape& shape, int compute_capability) {
  std::vector<Path> paths = MakePaths(options, shape, compute_capability);
  if (paths.empty()) return paths;
  const Inputs inputs = MakeInputs(paths.front().problem);
  AttentionProblem biased = paths.front().problem;
  biased.relative_bias = biased.spatial_bias = true;
  const BiasSource source = MakeSource(biased);
  for (Path& path : paths) {
    if (path.refusal.empty()) Begin(gpu, path, source, inputs, options.sample_milliseconds);
  }
  for (int round = 0; round < options.rounds; ++round) {
    for (Path& path : paths) {
      if (!path.refusal.empty()) continue;
      path.forward.push_back(Time(gpu, path, inputs, /*backward=*/false));
      path.both.push_back(Time(gpu, path, inputs, /*backward=*/true));
    }
  }
  return paths;
}

int Main(const Options& options) {
  const auto gpu = OpenCudaDevice();
  if (!gpu.ok()) {
    absl::FPrintF(stderr, "attention_speed: %s\n", gpu.status().message());
    return 1;
  }
  at::manual_seed(1);
  const CudaDeviceInfo info = (*gpu)->Info();
  nlohmann::json all = {{"gpu", info.name},
                        {"driver", info.driver_version},
                        {"cuda", info.cuda_version},
                        {"cudnn", info.cudnn_version},
                        {"heads", options.heads},
                        {"head_size", kHeadSize},
                        {"dropout", options.dropout},
                        {"rounds", options.rounds},
                        {"shapes", nlohmann::json::array()}};
  for (const Shape& shape : options.shapes) {
    absl::PrintF("%dx%d, %d heads of %d, bf16, dropout %g, random boxes; %s; milliseconds, median of %d (range)\n",
                 shape.batch, shape.length, options.heads, kHeadSize, options.dropout, info.name, options.rounds);
    const std::vector<Path> paths = Measure(**gpu, options, shape, info.compute_capability);
    Print(paths);
    absl::PrintF("\n");
    std::fflush(stdout);
    all["shapes"].push_back({{"batch", shape.batch}, {"length", shape.length}, {"paths", Json(paths)}});
  }
  if (options.json.empty()) return 0;
  std::ofstream file(options.json);
  file << all.dump(1) << '\n';
  file.close();
  if (!file) absl::FPrintF(stderr, "attention_speed: cannot write %s\n", options.json);
  return file ? 0 : 1;
}

}  // namespace
}  // namespace attnfleet::trainer

int main(int argc, char** argv) {
  attnfleet::trainer::Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--help") {
      std::fputs(attnfleet::trainer::kHelp, stdout);
      return 0;
    }
    if (!attnfleet::trainer::Parse(argv[i], options)) {
      std::fprintf(stderr, "attention_speed: not understood: %s; see --help\n", argv[i]);
      return 2;
    }
  }
  return attnfleet::trainer::Main(options);
}
