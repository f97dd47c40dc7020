#include "worker/trainer_output.h"

#include <gmock/gmock.h>

#include <csignal>
#include <vector>

namespace attnfleet::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LineSplitter, PutsLinesTogetherWhereverTheyAreCut) {
  const std::string text = "one\n\nthree\nfour";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    LineSplitter splitter;
    std::vector<std::string> lines;
    for (size_t i = 0; i < text.size(); i += piece) {
      ASSERT_TRUE(splitter.Add(text.substr(i, piece), [&](std::string_view line) { lines.emplace_back(line); }).ok());
    }
    EXPECT_THAT(lines, ElementsAre("one", "", "three"));
    EXPECT_EQ(splitter.rest(), "four");
  }
}

TEST(LineSplitter, GivesUpOnALineWithoutEnd) {
  LineSplitter splitter;
  const std::string piece(1 << 20, 'x');
  size_t taken = 0;
  absl::Status status;
  while (status.ok() && taken < 2 * kMaxLineBytes) {
    status = splitter.Add(piece, [](std::string_view) { FAIL(); });
    taken += piece.size();
  }
  EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
  EXPECT_LE(splitter.rest().size(), kMaxLineBytes);
  EXPECT_FALSE(splitter.Add("\n", [](std::string_view) { FAIL(); }).ok());
}

TEST(LogTail, KeepsTheEnd) {
  LogTail tail;
  for (int i = 0; i < 1000; ++i) tail.Add(std::string(97, static_cast<char>('a' + i % 26)));
  EXPECT_EQ(tail.text().size(), kLogTailBytes);
  tail.Add(std::string(3 * kLogTailBytes, 'x') + "end");
  EXPECT_EQ(tail.text(), std::string(kLogTailBytes - 3, 'x') + "end");
}

TEST(LogTail, LastLineIsTheLastWithSomethingInIt) {
  LogTail tail;
  EXPECT_EQ(tail.LastLine(), "");
  tail.Add("\n \n");
  EXPECT_EQ(tail.LastLine(), "");
  tail.Add("first\n  second \x1b[0m\r\n\n  \n");
  EXPECT_EQ(tail.LastLine(), "second \\x1b[0m");
  tail.Add("third");
  EXPECT_EQ(tail.LastLine(), "third");
}

TEST(ParseTrainerEvent, ReadsWhatATrainerWrites) {
  const auto event = ParseTrainerEvent(
      R"({"result":{"outcome":"OUTCOME_MEASURED","measurement":{"peak_resident_bytes":"123","step_seconds":[0.5,1e-3]}}})");
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->result().outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(event->result().measurement().peak_resident_bytes(), 123);
  EXPECT_EQ(event->result().measurement().step_seconds(1), 1e-3);
}

TEST(ParseTrainerEvent, SkipsWhatItDoesNotKnow) {
  const auto progress = ParseTrainerEvent(R"({"progress":{"steps_done":3,"phase":"TRAINER_PHASE_NEW","mood":"good"}})");
  ASSERT_TRUE(progress.ok()) << progress.status();
  EXPECT_EQ(progress->progress().steps_done(), 3);
  const auto other = ParseTrainerEvent(R"({"confession":{}})");
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->event_case(), v1::TrainerEvent::EVENT_NOT_SET);
}

TEST(ParseTrainerEvent, QuotesWhatIsNoEvent) {
  for (const char* bad : {"Segmentation fault", "{\"result\":", "[]", "", "{\"progress\":3}"}) {
    EXPECT_THAT(std::string(ParseTrainerEvent(bad).status().message()), HasSubstr("no TrainerEvent: \"")) << bad;
  }
  EXPECT_THAT(std::string(ParseTrainerEvent("\x01\"\n").status().message()), HasSubstr("\"\\x01\\\"\\n\""));
  EXPECT_LT(ParseTrainerEvent(std::string(100'000, 'x')).status().message().size(), 300U);
}

TEST(DescribeExit, NamesSignalOrStatusAndTheLastWords) {
  LogTail log;
  EXPECT_EQ(DescribeExit({.status = 0, .signal = SIGKILL}, log), "trainer killed by signal 9 (Killed)");
  EXPECT_EQ(DescribeExit({.status = 3, .signal = 0}, log), "trainer exited with status 3");
  log.Add("loading\nno LibTorch here\n");
  EXPECT_EQ(DescribeExit({.status = 3, .signal = 0}, log), "trainer exited with status 3: no LibTorch here");
}

}  // namespace
}  // namespace attnfleet::worker
