#include "server/store_backup.h"

#include <fcntl.h>
#include <google/protobuf/io/gzip_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/util/delimited_message_util.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/support/state_dir.h"
#include "proto/version.h"

namespace attnfleet::server {
namespace {

using google::protobuf::io::FileInputStream;
using google::protobuf::io::FileOutputStream;
using google::protobuf::io::GzipInputStream;
using google::protobuf::io::GzipOutputStream;

constexpr uint32_t kFormat = 1;
// A batch is one statement of a database, with a time limit. A record that is larger goes in one of its own.
constexpr size_t kRecordsPerBatch = 1'000;
constexpr size_t kBytesPerBatch = size_t{8} << 20;

absl::Status FileError(const std::string& path, const std::string& what, int error) {
  const std::string text = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  if (error == EEXIST) return absl::AlreadyExistsError(text);
  if (error == ENOENT) return absl::NotFoundError(text);
  if (error == ENOSPC) return absl::ResourceExhaustedError(text);
  return absl::PermissionDeniedError(text);
}

class Writer : public RowReader {
 public:
  Writer(std::string path, int descriptor) : path_(std::move(path)), file_(descriptor), gzip_(&file_) {}

  absl::Status Begin() {
    v1::BackupRecord record;
    record.mutable_header()->set_format(kFormat);
    record.mutable_header()->set_version(kVersion);
    record.mutable_header()->set_created_unix_ms(absl::ToUnixMillis(absl::Now()));
    return Write(record);
  }

  absl::Status TakeSetting(std::string_view name, std::string_view value) override {
    v1::BackupRecord record;
    record.mutable_setting()->set_name(std::string(name));
    record.mutable_setting()->set_value(std::string(value));
    end_.set_settings(end_.settings() + 1);
    return Write(record);
  }

  absl::Status TakeBenchmark(const BenchmarkRow& row) override {
    v1::BackupRecord record;
    if (!record.mutable_benchmark()->mutable_benchmark()->ParseFromArray(row.message.data(),
                                                                         static_cast<int>(row.message.size()))) {
      return Damaged(absl::StrCat("benchmark ", row.id));
    }
    record.mutable_benchmark()->set_request_id(std::string(row.request_id));
    end_.set_benchmarks(end_.benchmarks() + 1);
    return Write(record);
  }

  absl::Status TakeRun(const RunRow& row) override {
    v1::BackupRecord record;
    if (!record.mutable_run()->ParseFromArray(row.message.data(), static_cast<int>(row.message.size()))) {
      return Damaged(absl::StrCat("run ", row.benchmark_id, "/", row.job_index, "/", row.repetition));
    }
    end_.set_runs(end_.runs() + 1);
    return Write(record);
  }

  absl::StatusOr<v1::BackupEnd> Finish() {
    v1::BackupRecord record;
    *record.mutable_end() = end_;
    if (absl::Status status = Write(record); !status.ok()) return status;
    if (!gzip_.Close() || !file_.Flush()) return FileError(path_, "cannot be written", file_.GetErrno());
    return end_;
  }

 private:
  absl::Status Write(const v1::BackupRecord& record) {
    if (google::protobuf::util::SerializeDelimitedToZeroCopyStream(record, &gzip_)) return absl::OkStatus();
    return FileError(path_, "cannot be written", file_.GetErrno());
  }

  static absl::Status Damaged(const std::string& what) {
    return absl::DataLossError(absl::StrCat(what, " is damaged; see attnfleet-server check"));
  }

  const std::string path_;
  FileOutputStream file_;
  GzipOutputStream gzip_;
  v1::BackupEnd end_;
};

absl::StatusOr<v1::BackupEnd> WriteTo(JobStore& store, const std::string& path, int descriptor) {
  Writer writer(path, descriptor);
  if (absl::Status status = writer.Begin(); !status.ok()) return status;
  if (absl::Status status = store.Read({}, writer); !status.ok()) return status;
  absl::StatusOr<v1::BackupEnd> end = writer.Finish();
  if (end.ok() && fsync(descriptor) != 0) return FileError(path, "cannot be written", errno);
  return end;
}

// Leaves alone what has come to be at `to` meanwhile, where the file system can do that.
bool PutInPlace(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  return errno == EINVAL && std::rename(from.c_str(), to.c_str()) == 0;
}

class Reader {
 public:
  Reader(std::string path, int descriptor) : path_(std::move(path)), file_(descriptor), gzip_(&file_) {}

  absl::Status Begin() {
    absl::StatusOr<v1::BackupRecord> record = Next();
    if (!record.ok()) return record.status();
    if (!record->has_header()) return Damaged("it is no backup of attnfleet");
    if (record->header().format() == kFormat) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(path_, ": attnfleet ", record->header().version(),
                                                      " wrote it, in a format that this program does not know; restore "
                                                      "it with that version"));
  }

  // A batch for the store; false at the end, which was seen and agrees with what came before it.
  absl::StatusOr<bool> Fill(StoreChanges& changes) {
    benchmarks_.clear();
    runs_.clear();
    size_t bytes = 0;
    for (size_t count = 0; count < kRecordsPerBatch && bytes < kBytesPerBatch; ++count) {
      absl::StatusOr<v1::BackupRecord> record = Next();
      if (!record.ok()) return record.status();
      bytes += record->ByteSizeLong();
      if (record->has_setting()) {
        changes.settings.push_back({record->setting().name(), record->setting().value()});
        seen_.set_settings(seen_.settings() + 1);
      } else if (record->has_benchmark()) {
        benchmarks_.push_back(std::move(*record->mutable_benchmark()));
        changes.benchmarks.push_back({&benchmarks_.back().benchmark(), benchmarks_.back().request_id()});
        seen_.set_benchmarks(seen_.benchmarks() + 1);
      } else if (record->has_run()) {
        runs_.push_back(std::move(*record->mutable_run()));
        changes.runs.push_back(&runs_.back());
        seen_.set_runs(seen_.runs() + 1);
      } else if (record->has_end()) {
        if (record->end().SerializeAsString() != seen_.SerializeAsString()) return Damaged("records are missing");
        if (absl::Status status = ReadToTheEnd(); !status.ok()) return status;
        at_end_ = true;
        break;
      } else {
        return Damaged("it holds a record of an unknown kind");
      }
    }
    return !changes.settings.empty() || !changes.benchmarks.empty() || !changes.runs.empty();
  }

  const v1::BackupEnd& seen() const { return seen_; }

 private:
  absl::StatusOr<v1::BackupRecord> Next() {
    v1::BackupRecord record;
    if (at_end_) {
      *record.mutable_end() = seen_;
      return record;
    }
    bool clean_end = false;
    if (google::protobuf::util::ParseDelimitedFromZeroCopyStream(&record, &gzip_, &clean_end)) return record;
    return Damaged("it is truncated, damaged or no backup of attnfleet");
  }

  // Behind the last record stands gzip's checksum of all, which is looked at when it is reached.
  absl::Status ReadToTheEnd() {
    const void* data = nullptr;
    int size = 0;
    while (gzip_.Next(&data, &size)) {
      if (size > 0) return Damaged("something follows its end");
    }
    return gzip_.ZlibErrorCode() == Z_DATA_ERROR ? Damaged("its checksum is wrong") : absl::OkStatus();
  }

  absl::Status Damaged(const std::string& what) const { return absl::DataLossError(absl::StrCat(path_, ": ", what)); }

  const std::string path_;
  FileInputStream file_;
  GzipInputStream gzip_;
  v1::BackupEnd seen_;
  bool at_end_ = false;
  // Of the current batch; their addresses are kept.
  std::deque<v1::StoredBenchmarkRow> benchmarks_;
  std::deque<v1::Run> runs_;
};

}  // namespace

absl::StatusOr<v1::BackupEnd> WriteBackup(JobStore& store, const std::string& path) {
  if (access(path.c_str(), F_OK) == 0) return FileError(path, "cannot be written", EEXIST);
  std::string partial = path + ".partial-XXXXXX";
  const int descriptor = mkostemp(partial.data(), O_CLOEXEC);
  if (descriptor < 0) return FileError(path, "cannot be written", errno);
  absl::StatusOr<v1::BackupEnd> end = WriteTo(store, path, descriptor);
  close(descriptor);
  if (end.ok() && !PutInPlace(partial, path)) end = FileError(path, "cannot be written", errno);
  if (!end.ok()) {
    unlink(partial.c_str());
    return end;
  }
  if (absl::Status status = SyncFolderOf(path); !status.ok()) return status;
  return end;
}

absl::StatusOr<v1::BackupEnd> RestoreBackup(JobStore& store, const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return FileError(path, "cannot be read", errno);
  Reader reader(path, descriptor);
  absl::Status status = reader.Begin();
  if (status.ok()) status = store.Fill([&reader](StoreChanges& changes) { return reader.Fill(changes); });
  close(descriptor);
  if (!status.ok()) return status;
  return reader.seen();
}

}  // namespace attnfleet::server
