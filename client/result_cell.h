#ifndef ATTNFLEET_CLIENT_RESULT_CELL_H_
#define ATTNFLEET_CLIENT_RESULT_CELL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// One cell of the results as text, before any layout. "-" where there is no figure, "unknown" where a measured run
// could not tell it.
struct ResultCell {
  std::string speed;      // it/s, or "OOM", "unsupported", "failed", "running", ...; ends in ! if contaminated
  std::string spread;     // "±0.53", or ""
  std::string ratio;      // "1.16x", or "-"
  std::string interval;   // of the ratio: "[1.15, 1.17]", or ""
  bool doubtful = false;  // which of the two is faster is not told: the interval holds 1, or one pair alone has none
  std::string mfu;        // "41.2 %"
  std::string memory;     // GB: peak allocated or peak resident; or "OOM"
  std::string reserved;   // GB
  std::string sampled;    // GB
  std::string note;       // "[1]", or ""
  bool fastest = false;   // told apart from all others at its shape, with results that are right
  bool bad = false;       // ended without a figure
};

// Footnotes: one for each text, with the cells that it is about.
class Notes {
 public:
  // Returns the mark for the cell.
  std::string Add(const std::string& text, const std::string& cell);

  // "[1] eager 64x1024: OOM: ..."
  std::vector<std::string> Lines() const;

 private:
  struct Note {
    std::string text;
    std::vector<std::string> cells;
  };
  std::vector<Note> notes_;
};

// Whether the repetitions leave open which of the job and eager is faster.
bool HasDoubtfulRatio(const v1::Job& job);

// Whether the ratio to eager is of one repetition alone, which tells no interval.
bool HasSingleRatio(const v1::Job& job);

// The runs that the job's figures are of.
uint32_t CountedRuns(const v1::JobSummary& summary);

// `allocated`: the device has a figure for allocated memory; else the trainer's resident set stands for it.
ResultCell MakeResultCell(const v1::Job& job, bool allocated, Notes& notes);

// "5.13"; GB is 1e9 bytes, GiB 2^30.
std::string FormatGigabytes(int64_t bytes);
std::string FormatGibibytes(int64_t bytes);

// With the digits that suit a speed of `iterations_per_second`.
std::string FormatSpeed(double value, double iterations_per_second);

// Of the mean it/s: "[27.40, 30.54]", or "".
std::string FormatMeanInterval(const v1::JobSummary& summary);

// "[1.15, 1.17]"; "" for an interval of 0, 0: there is none.
std::string FormatInterval(double low, double high, int digits);

// "41.2 %"
std::string FormatPercent(double part);

// "2026-09-21 14:18:20 +00:00"
std::string FormatUnixMs(int64_t unix_ms, absl::TimeZone zone);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_CELL_H_
