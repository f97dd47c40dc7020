#ifndef ATTNFLEET_TESTS_SERVER_POSTGRES_CLUSTER_H_
#define ATTNFLEET_TESTS_SERVER_POSTGRES_CLUSTER_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet::server {

// A PostgreSQL of the test's own: in a temporary folder, on a Unix socket there, as a user without rights.
class PostgresCluster {
 public:
  static absl::StatusOr<std::unique_ptr<PostgresCluster>> Start();
  ~PostgresCluster();

  // The URL of a new, empty database.
  absl::StatusOr<std::string> NewDatabase();

  // Ends it at once, as a power cut would, and starts it again.
  absl::Status Restart();

 private:
  explicit PostgresCluster(std::string folder) : folder_(std::move(folder)) {}
  absl::Status Launch();
  void Kill();
  std::string Url(const std::string& database) const;

  const std::string folder_;
  pid_t pid_ = -1;
  int databases_ = 0;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_TESTS_SERVER_POSTGRES_CLUSTER_H_
