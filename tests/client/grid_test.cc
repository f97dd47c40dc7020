#include "client/grid.h"

#include <gtest/gtest.h>

namespace attnfleet::client {
namespace {

Grid Sample() {
  Grid grid;
  grid.columns = {{"Name"}, {"eager", true, "it/s"}, {"sdpa", true, "it/s"}};
  grid.rows = {{{"a"}, {"1.00"}, {"2.50 ±0.10", Style::kGood}}, {{"longer"}, {"OOM", Style::kBad}, {"-"}}};
  return grid;
}

TEST(Grid, AlignsColumnsUnderTheirGroup) {
  EXPECT_EQ(GridText(Sample(), false),
            "         it/s ------------\n"
            "Name     eager        sdpa\n"
            "a         1.00  2.50 ±0.10\n"
            "longer     OOM           -\n");
  EXPECT_EQ(GridWidth(Sample()), 26);
}

TEST(Grid, WithoutRowsTextSaysWhyWhereThatIsKnown) {
  Grid grid = Sample();
  grid.rows.clear();
  EXPECT_EQ(GridText(grid, false), "       it/s ------\nName   eager  sdpa\n");
  grid.empty = "nobody is here";
  EXPECT_EQ(GridText(grid, true), "nobody is here\n");
  EXPECT_EQ(GridCsv(grid), "Name,eager,sdpa\n");
}

TEST(Grid, ColorChangesNoColumn) {
  std::string text = GridText(Sample(), true);
  EXPECT_NE(text.find("\033[31mOOM\033[0m"), std::string::npos);
  for (const char* code : {"\033[0m", "\033[1m", "\033[31m", "\033[32m"}) {
    for (size_t at; (at = text.find(code)) != std::string::npos;) text.erase(at, std::string(code).size());
  }
  EXPECT_EQ(text, GridText(Sample(), false));
}

TEST(Grid, AWideGroupTitleWidensItsColumns) {
  Grid grid;
  grid.columns = {{"a", true, "peak allocated, GB"}, {"b"}};
  grid.rows = {{{"1"}, {"2"}}};
  EXPECT_EQ(GridText(grid, false), "peak allocated, GB\n                 a   b\n                 1   2\n");
}

// As `attnfleet explain` shows, with a column that is empty.
Grid Explained() {
  Grid grid;
  grid.columns = {{"Shape"}, {"Runs", true}, {"Name"}, {"Why they wait"}};
  grid.rows = {{{"32x128"}, {"1 of 3"}, {""}, {"every slot that fits is busy"}},
               {{"64x1024"}, {"0 of 3"}, {""}, {"paused", Style::kBad}}};
  return grid;
}

TEST(Grid, ThatFitsIsLeftAsItIs) {
  const std::string whole =
      "Shape      Runs  Name  Why they wait\n"
      "32x128   1 of 3        every slot that fits is busy\n"
      "64x1024  0 of 3        paused\n";
  EXPECT_EQ(GridText(Explained(), false), whole);
  EXPECT_EQ(GridText(Explained(), false, 51), whole);
}

TEST(Grid, ThatIsTooWideLeavesOutWhatIsEmpty) {
  EXPECT_EQ(GridText(Explained(), false, 50),
            "Shape      Runs  Why they wait\n"
            "32x128   1 of 3  every slot that fits is busy\n"
            "64x1024  0 of 3  paused\n");
}

TEST(Grid, ThatIsTooWideBreaksTextAtSpaces) {
  EXPECT_EQ(GridText(Explained(), false, 32),
            "Shape      Runs  Why they wait\n"
            "32x128   1 of 3  every slot that\n"
            "                 fits is busy\n"
            "64x1024  0 of 3  paused\n");
  EXPECT_EQ(GridText(Explained(), true, 29),
            "\033[1mShape      Runs  Why they\n"
            "                 wait\n\033[0m"
            "32x128   1 of 3  every slot\n"
            "                 that fits is\n"
            "                 busy\n"
            "64x1024  0 of 3  \033[31mpaused\033[0m\n");
}

TEST(Grid, ThatCannotFitIsABlockForEachRow) {
  EXPECT_EQ(GridText(Explained(), false, 22),
            "Shape: 32x128\n"
            "Runs: 1 of 3\n"
            "Why they wait: every\n"
            "slot that fits is busy\n"
            "\n"
            "Shape: 64x1024\n"
            "Runs: 0 of 3\n"
            "Why they wait: paused\n");
}

TEST(Grid, MarkdownPutsTheGroupBehindTheTitleAndEscapes) {
  Grid grid = Sample();
  grid.rows = {{{"a|b"}, {"<TBA>"}, {"x\ny"}}};
  EXPECT_EQ(GridMarkdown(grid),
            "| Name | eager it/s | sdpa it/s |\n"
            "| --- | ---: | ---: |\n"
            "| a\\|b | &lt;TBA> | x?y |\n");
}

TEST(Csv, QuotesAsInRfc4180) {
  EXPECT_EQ(CsvLine({"plain", "with,comma", "with \"quote\"", ""}), "plain,\"with,comma\",\"with \"\"quote\"\"\",\n");
}

TEST(Csv, GivesASpreadsheetNoFormula) {
  EXPECT_EQ(CsvLine({"=1+1", "@x", "+x", "-x", "-1.5", "1e-05"}), "'=1+1,'@x,'+x,'-x,-1.5,1e-05\n");
  EXPECT_EQ(CsvLine({"=HYPERLINK(\"a\",1)"}), "\"'=HYPERLINK(\"\"a\"\",1)\"\n");
}

}  // namespace
}  // namespace attnfleet::client
