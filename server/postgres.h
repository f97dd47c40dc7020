#ifndef ATTNFLEET_SERVER_POSTGRES_H_
#define ATTNFLEET_SERVER_POSTGRES_H_

#include <libpq-fe.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet::server {

// A statement's parameters, in PostgreSQL's binary form.
class PostgresParameters {
 public:
  PostgresParameters& Add(int64_t value);
  PostgresParameters& Add(std::string_view text);
  // Arrays: what unnest() makes rows of, so that one statement takes any number of them.
  PostgresParameters& Add(const std::vector<int64_t>& values);
  PostgresParameters& AddTexts(const std::vector<std::string>& values);
  PostgresParameters& AddBytes(const std::vector<std::string>& values);

 private:
  friend class Postgres;
  std::vector<Oid> types_;
  std::vector<std::string> values_;
};

// The rows of an answer. Columns are int8 (Int) or text and bytea (Bytes).
class PostgresRows {
 public:
  explicit PostgresRows(PGresult* result) : result_(result) {}

  int size() const { return PQntuples(result_.get()); }
  int64_t Int(int row, int column) const;
  bool Bool(int row, int column) const { return *PQgetvalue(result_.get(), row, column) != 0; }
  // Lives as long as this.
  std::string_view Bytes(int row, int column) const;

 private:
  struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
  };
  std::unique_ptr<PGresult, Clear> result_;
};

// One connection to PostgreSQL. Connects when it is first used, and again after it broke. A statement has the time
// limit from when it is sent; one that does not finish closes the connection. A call that has to connect takes longer:
// the resolver's own time for the host's name, the limit (in whole seconds, two at least) for each of its addresses,
// and once more for the session's settings. Used by one thread.
class Postgres {
 public:
  // `url` is what libpq takes: postgresql://USER@HOST/DATABASE?... Passwords come from PGPASSFILE, a service file or
  // the environment. INVALID_ARGUMENT if it is none, or holds a password, which ps would show to everyone.
  static absl::Status ValidateUrl(const std::string& url);

  Postgres(std::string url, std::chrono::milliseconds limit) : url_(std::move(url)), limit_(limit) {}

  // "store postgresql://HOST:PORT/DATABASE", for messages.
  std::string name() const;

  // One statement. UNAVAILABLE: no connection, or it broke (then the statement was carried out or not);
  // RESOURCE_EXHAUSTED: its disk is full; OUT_OF_RANGE: parameters of more than 1 GB, nothing was sent; DATA_LOSS,
  // ALREADY_EXISTS (a unique index) and PERMISSION_DENIED as they say.
  absl::StatusOr<PostgresRows> Execute(std::string_view sql, const PostgresParameters& parameters = {});

  // Execute in two halves, so that the caller does something while the database works: each Send has its Receive.
  absl::Status Send(std::string_view sql, const PostgresParameters& parameters = {});
  absl::StatusOr<PostgresRows> Receive();

  // Several statements without parameters, separated by semicolons.
  absl::Status Script(const std::string& sql);

  // Ends the connection, and with it an open transaction.
  void Close() { connection_.reset(); }

  // False after a statement that may have been carried out or not, or may still be.
  bool connected() const { return connection_ != nullptr; }

  // How many connections there have been: a session's locks are gone when this has grown.
  int connections() const { return connections_; }

 private:
  struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };

  absl::Status Connect();
  absl::Status Broken(const std::string& why);
  absl::Status Error(const PGresult* result);

  const std::string url_;
  const std::chrono::milliseconds limit_;
  std::unique_ptr<PGconn, Finish> connection_;
  int connections_ = 0;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_POSTGRES_H_
