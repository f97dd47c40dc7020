#ifndef ATTNFLEET_WORKER_TRAINER_MODEL_CONFIG_H_
#define ATTNFLEET_WORKER_TRAINER_MODEL_CONFIG_H_

#include <cstdint>

namespace attnfleet::trainer {

// What attention dropout drops: the model as it is defined, or the output of attention.
enum class DropoutPlacement { kProbabilities, kOutput };

// LayoutLMv3's dimensions, named as in Hugging Face's LayoutLMv3Config. The defaults are layoutlmv3-base.
struct ModelConfig {
  int64_t hidden_size = 768;
  int64_t layers = 12;
  int64_t heads = 12;
  int64_t intermediate_size = 3072;
  int64_t vocabulary = 50265;
  int64_t max_positions = 514;  // of the embedding; position ids start at 2
  int64_t type_vocabulary = 1;
  int64_t max_2d_positions = 1024;
  int64_t coordinate_size = 128;  // of the x and y tables
  int64_t shape_size = 128;       // of the h and w tables; 4 coordinate_size + 2 shape_size = hidden_size
  double layer_norm_epsilon = 1e-5;
  double hidden_dropout = 0.1;
  double attention_dropout = 0.1;
  DropoutPlacement dropout_placement = DropoutPlacement::kProbabilities;
  bool relative_bias = true;       // 1-D
  bool spatial_bias = true;        // 2-D
  bool train_bias_tables = false;  // as in Microsoft's model; Hugging Face looks them up without a gradient
  bool image = false;              // visual tokens behind the text: one for each patch, and one for the whole
  int64_t image_size = 224;
  int64_t patch_size = 16;
  int64_t labels = 10;

  int64_t head_size() const { return hidden_size / heads; }
  // Hugging Face's rule for token classification: one Linear below ten labels, else dense, tanh, out_proj.
  bool two_layer_head() const { return labels >= 10; }
  int64_t patches_per_side() const { return image_size / patch_size; }
  int64_t visual_tokens() const { return image ? patches_per_side() * patches_per_side() + 1 : 0; }
};

inline constexpr int64_t kPaddingId = 1;
inline constexpr int64_t kIgnoredLabel = -100;
inline constexpr int64_t kImageChannels = 3;
inline constexpr double kVisualNormEpsilon = 1e-6;
inline constexpr double kInitialDeviation = 0.02;
inline constexpr int kRelativeBuckets = 32;
inline constexpr int kRelativeMaxDistance = 128;
inline constexpr int kSpatialBuckets = 64;
inline constexpr int kSpatialMaxDistance = 256;

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_MODEL_CONFIG_H_
