#include "worker/trainer/document_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace attnfleet::trainer {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

constexpr DocumentLimits kLimits{.sequence_length = 4, .vocabulary = 100, .labels = 5};
constexpr char kGood[] = R"({"ids":[0,7,2],"boxes":[[0,0,0,0],[10,20,30,40],[0,0,0,0]],"labels":[-100,3,-100]})";

std::string Write(const std::string& text) {
  const std::string path =
      absl::StrCat(testing::TempDir(), testing::UnitTest::GetInstance()->current_test_info()->name(), ".jsonl");
  std::ofstream(path) << text;
  return path;
}

std::string Error(const std::string& text) {
  const std::string path = Write(text);
  const std::string message(DocumentFile::Read(path, kLimits).status().message());
  EXPECT_THAT(message, StartsWith(path));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message.substr(path.size());
}

struct Filled {
  std::vector<int64_t> ids, boxes, labels, mask;
};

Filled Fill(const DocumentFile& file, int64_t batch, uint64_t seed, uint64_t index) {
  const size_t tokens = static_cast<size_t>(batch) * 4;
  Filled filled{std::vector<int64_t>(tokens), std::vector<int64_t>(4 * tokens), std::vector<int64_t>(tokens),
                std::vector<int64_t>(tokens)};
  file.FillBatch(batch, seed, index,
                 {filled.ids.data(), filled.boxes.data(), filled.labels.data(), filled.mask.data()});
  return filled;
}

TEST(DocumentFile, PadsAndCutsToTheSequenceLength) {
  const std::string longer = R"({"ids":[5,6,7,8,9],"boxes":[[1,1,2,2],[1,1,2,2],[1,1,2,2],[1,1,2,1023],[1,1,2,2]],)"
                             R"("labels":[0,1,2,3,4]})";
  const auto file = DocumentFile::Read(Write(absl::StrCat(kGood, "\n\n", longer)), kLimits);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->size(), 2);
  EXPECT_TRUE(file->padded());
  const Filled batch = Fill(*file, 2, 0, 0);
  EXPECT_THAT(batch.ids, ElementsAre(0, 7, 2, 1, 5, 6, 7, 8));
  EXPECT_THAT(batch.labels, ElementsAre(-100, 3, -100, -100, 0, 1, 2, 3));
  EXPECT_THAT(batch.mask, ElementsAre(1, 1, 1, 0, 1, 1, 1, 1));
  EXPECT_THAT(std::vector<int64_t>(batch.boxes.begin() + 4, batch.boxes.begin() + 8), ElementsAre(10, 20, 30, 40));
  EXPECT_THAT(std::vector<int64_t>(batch.boxes.begin() + 12, batch.boxes.begin() + 16), ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(batch.boxes.back(), 1023);
  EXPECT_FALSE(DocumentFile::Read(Write(longer), kLimits)->padded());
}

TEST(DocumentFile, GoesThroughTheFileInOrderThenShuffledBySeed) {
  std::string text;
  for (int id = 0; id < 7; ++id)
    absl::StrAppend(&text, R"({"ids":[)", id, R"(],"boxes":[[0,0,1,1]],"labels":[0]})", "\n");
  const auto file = DocumentFile::Read(Write(text), kLimits);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto pass = [&](uint64_t seed, uint64_t number) {
    std::vector<int64_t> ids;
    for (uint64_t i = 7 * number; i < 7 * number + 7; ++i) ids.push_back(Fill(*file, 1, seed, i).ids[0]);
    return ids;
  };
  EXPECT_THAT(pass(1, 0), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  std::set<std::vector<int64_t>> orders;
  for (const uint64_t seed : {1, 2}) {
    for (uint64_t number = 1; number < 6; ++number) {
      const std::vector<int64_t> ids = pass(seed, number);
      EXPECT_EQ(std::set<int64_t>(ids.begin(), ids.end()).size(), 7u);  // each once
      orders.insert(ids);
    }
  }
  EXPECT_GE(orders.size(), 9u);
  // A batch can reach over the end of a pass.
  const Filled batch = Fill(*file, 5, 1, 1);
  EXPECT_EQ(batch.ids[0], 5);
  EXPECT_EQ(batch.ids[4], 6);
  EXPECT_EQ(batch.ids[8], pass(1, 1)[0]);
}

TEST(DocumentFile, ErrorsNameLineAndFieldAndWhatIsRight) {
  const auto document = [](const char* ids, const char* boxes, const char* labels) {
    return Error(absl::StrCat(kGood, "\n", R"({"ids":)", ids, R"(,"boxes":)", boxes, R"(,"labels":)", labels, "}"));
  };
  constexpr char kBox[] = "[[0,0,1,1]]";
  EXPECT_EQ(Error(absl::StrCat(kGood, "\nids")),
            ":2: no JSON object; give {\"ids\": [...], \"boxes\": [...], \"labels\": [...]}");
  EXPECT_EQ(Error("{\"ids\":[1]}"), ":1: labels: missing or no list; give a list of integers");
  EXPECT_EQ(document("[1,2]", kBox, "[0,0]"), ":2: boxes: 1 for 2 ids; give one for each");
  EXPECT_EQ(document("[1]", kBox, "[0,0]"), ":2: labels: 2 for 1 ids; give one for each");
  EXPECT_EQ(document("[]", "[]", "[]"), ":2: ids: empty; give at least one token");
  EXPECT_EQ(document("[100]", kBox, "[0]"), ":2: ids[0]: 100 is outside the vocabulary; 0 to 99 is possible");
  EXPECT_EQ(document("[1.5]", kBox, "[0]"), ":2: ids[0]: no integer");
  EXPECT_THAT(document("[1]", kBox, "[5]"), HasSubstr(":2: labels[0]: 5 is no label; 0 to 4 is possible"));
  EXPECT_THAT(document("[1]", "[[0,0,1024,1]]", "[0]"), HasSubstr("boxes[0]: [0, 0, 1024, 1] is outside 0 to 1023"));
  EXPECT_THAT(document("[1]", "[[0,0,-1,1]]", "[0]"), HasSubstr("is outside 0 to 1023"));
  EXPECT_THAT(document("[1]", "[[5,0,4,1]]", "[0]"), HasSubstr("boxes[0]: [5, 0, 4, 1] has x1 < x0"));
  EXPECT_THAT(document("[1]", "[[0,5,1,4]]", "[0]"), HasSubstr("has y1 < y0"));
  EXPECT_THAT(document("[1]", "[[0,5,1]]", "[0]"), HasSubstr("is no box; give [x0, y0, x1, y1]"));
  EXPECT_EQ(Error("\n\n"), ": no document; give one JSON object a line");
  EXPECT_THAT(Error(R"({"ids":[1],"boxes":[[0,0,1,1]],"labels":[-100]})"), HasSubstr(": no label but -100"));
  EXPECT_EQ(Error(std::string(1 << 25, '[')), ":1: longer than 16 MiB; give one document a line");
}

TEST(DocumentFile, MissingFileIsNamed) {
  const absl::Status status = DocumentFile::Read("/nowhere/x.jsonl", kLimits).status();
  EXPECT_EQ(status.message(), "/nowhere/x.jsonl: cannot be read");
  EXPECT_THAT(std::string(DocumentFile::Read("/tmp", kLimits).status().message()), EndsWith("cannot be read"));
}

}  // namespace
}  // namespace attnfleet::trainer
