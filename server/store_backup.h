#ifndef ATTNFLEET_SERVER_STORE_BACKUP_H_
#define ATTNFLEET_SERVER_STORE_BACKUP_H_

#include <string>

#include "absl/status/statusor.h"
#include "attnfleet/v1/backup.pb.h"
#include "server/job_store.h"

namespace attnfleet::server {

// Writes all that the store holds, as of one moment, to `path` (see backup.proto), which appears when it is complete
// and on disk; until then it is `path`.partial-XXXXXX, which kill -9 leaves behind. A server may use the store
// meanwhile. ALREADY_EXISTS: the file is there already.
absl::StatusOr<v1::BackupEnd> WriteBackup(JobStore& store, const std::string& path);

// Puts a backup into an empty store, wholly or not at all. DATA_LOSS: the file is damaged, truncated or no backup;
// FAILED_PRECONDITION: the store is not empty, or a newer attnfleet wrote the file.
absl::StatusOr<v1::BackupEnd> RestoreBackup(JobStore& store, const std::string& path);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STORE_BACKUP_H_
