#include "worker/trainer/document.h"

#include <algorithm>
#include <array>

#include "worker/trainer/model_config.h"
#include "worker/trainer/random.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kPage = 1000;  // width and height
constexpr int64_t kBeginId = 0, kEndId = 2;
constexpr int64_t kFirstWordId = 4;  // after <s>, <pad>, </s>, <unk>
constexpr int64_t kShortest = 8;

using Box = std::array<int64_t, 4>;  // x0, y0, x1, y1

// Lays out words, one after the other, on page after page.
class Layout {
 public:
  explicit Layout(Random& random) : random_(random) { BeginPage(); }

  // The box of the next word, of so many letters.
  Box Place(int64_t letters) {
    const int64_t width = std::min(letters * letter_, column_width_);
    if (x_ + width > right()) BeginLine();
    const Box box = {x_, y_, x_ + width, y_ + height_};
    x_ = box[2] + letter_;
    if (random_.Below(40) == 0) x_ += column_width_ / 4;  // a gap, as between the cells of a form
    return box;
  }

 private:
  int64_t left() const { return margin_ + column_ * (column_width_ + gutter_); }
  int64_t right() const { return left() + column_width_; }

  void BeginPage() {
    margin_ = random_.Between(30, 100);
    gutter_ = random_.Between(20, 40);
    columns_ = random_.Between(1, 3);
    column_width_ = (kPage - 2 * margin_ - (columns_ - 1) * gutter_) / columns_;
    height_ = random_.Between(8, 20);
    letter_ = std::max<int64_t>(height_ / 2, 4);
    BeginColumn(0);
  }

  void BeginColumn(int64_t column) {
    column_ = column;
    x_ = left();
    y_ = margin_ + random_.Below(30);
  }

  void BeginLine() {
    const bool paragraph = random_.Below(6) == 0;
    x_ = left() + (paragraph ? 2 * letter_ : 0);
    y_ += height_ + height_ / 3 + (paragraph ? height_ : 0);
    if (y_ + height_ <= kPage - margin_) return;
    if (column_ + 1 < columns_) {
      BeginColumn(column_ + 1);
    } else {
      BeginPage();
    }
  }

  Random& random_;
  // Of the page.
  int64_t margin_ = 0, gutter_ = 0, columns_ = 1, column_width_ = 0;
  int64_t height_ = 0, letter_ = 0;  // of its text
  // Where the next word goes.
  int64_t column_ = 0, x_ = 0, y_ = 0;
};

// One sequence's part of the buffers.
class Writer {
 public:
  Writer(const BatchBuffers& buffers, int64_t first) : buffers_(buffers), next_(first) {}

  void Put(int64_t id, const Box& box, int64_t label, int64_t mask) {
    buffers_.ids[next_] = id;
    std::copy(box.begin(), box.end(), buffers_.boxes + 4 * next_);
    buffers_.labels[next_] = label;
    buffers_.attention_mask[next_] = mask;
    ++next_;
  }

  int64_t next() const { return next_; }

 private:
  const BatchBuffers& buffers_;
  int64_t next_;
};

// 1 to 4 tokens, most often 1.
int64_t TokensOfWord(Random& random) {
  const int64_t draw = random.Below(16);
  return draw < 10 ? 1 : draw < 13 ? 2 : draw < 15 ? 3 : 4;
}

void FillSequence(const SyntheticSpec& spec, Random& random, Writer& writer) {
  const int64_t length = spec.sequence_length;
  const int64_t end = writer.next() + length;
  const bool short_one = length < kShortest;
  const bool full = short_one || random.Below(4) == 0;
  const int64_t real = full ? length : random.Between(std::max(length / 4, kShortest / 2), length);
  const int64_t words_end = writer.next() + real - (short_one ? 0 : 1);
  const int64_t first_id = std::min(kFirstWordId, spec.vocabulary - 1);
  if (!short_one) writer.Put(kBeginId, {}, kIgnoredLabel, 1);
  Layout layout(random);
  while (writer.next() < words_end) {
    const int64_t tokens = std::min(TokensOfWord(random), words_end - writer.next());
    const Box box = layout.Place(random.Between(2, 5) * tokens);
    for (int64_t token = 0; token < tokens; ++token) {
      const int64_t label = token == 0 ? random.Below(spec.labels) : kIgnoredLabel;
      writer.Put(first_id + random.Below(spec.vocabulary - first_id), box, label, 1);
    }
  }
  if (!short_one) writer.Put(kEndId, {}, kIgnoredLabel, 1);
  while (writer.next() < end) writer.Put(kPaddingId, {}, kIgnoredLabel, 0);
}

}  // namespace

void FillDocumentBatch(const SyntheticSpec& spec, uint64_t index, const BatchBuffers& buffers) {
  Random random(spec.seed, index);
  Writer writer(buffers, 0);
  for (int64_t sequence = 0; sequence < spec.batch; ++sequence) FillSequence(spec, random, writer);
}

}  // namespace attnfleet::trainer
