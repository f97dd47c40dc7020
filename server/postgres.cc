#include "server/postgres.h"

#include <endian.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/support/log.h"

namespace attnfleet::server {
namespace {

// From PostgreSQL's pg_type.dat, where they are fixed for ever.
constexpr Oid kInt8 = 20;
constexpr Oid kText = 25;
constexpr Oid kBytea = 17;
constexpr Oid kInt8Array = 1016;
constexpr Oid kTextArray = 1009;
constexpr Oid kByteaArray = 1001;

// PostgreSQL takes no message of a gibibyte, and libpq counts in int.
constexpr size_t kMostBytes = 1'000'000'000;

void AppendInt32(std::string& out, size_t value) {
  const uint32_t bytes = htobe32(static_cast<uint32_t>(value));
  out.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
}

std::string BigEndian(int64_t value) {
  const uint64_t bytes = htobe64(static_cast<uint64_t>(value));
  return {reinterpret_cast<const char*>(&bytes), sizeof bytes};
}

// An array of one dimension without NULLs; `element` gives the bytes of one value.
template <typename T, typename F>
std::string ArrayOf(Oid type, const std::vector<T>& values, F element) {
  std::string out;
  AppendInt32(out, values.empty() ? 0 : 1);  // dimensions
  AppendInt32(out, 0);                       // no NULLs
  AppendInt32(out, type);
  if (values.empty()) return out;
  AppendInt32(out, values.size());
  AppendInt32(out, 1);  // the first index
  for (const T& value : values) {
    const auto& bytes = element(value);
    AppendInt32(out, bytes.size());
    out += bytes;
  }
  return out;
}

const std::string& Same(const std::string& value) { return value; }

std::string OneLine(const char* text) {
  std::string line = text;
  absl::RemoveExtraAsciiWhitespace(&line);
  std::replace_if(line.begin(), line.end(), absl::ascii_isspace, ' ');
  return line;
}

}  // namespace

PostgresParameters& PostgresParameters::Add(int64_t value) {
  types_.push_back(kInt8);
  values_.push_back(BigEndian(value));
  return *this;
}

PostgresParameters& PostgresParameters::Add(std::string_view text) {
  types_.push_back(kText);
  values_.emplace_back(text);
  return *this;
}

PostgresParameters& PostgresParameters::Add(const std::vector<int64_t>& values) {
  types_.push_back(kInt8Array);
  values_.push_back(ArrayOf(kInt8, values, BigEndian));
  return *this;
}

PostgresParameters& PostgresParameters::AddTexts(const std::vector<std::string>& values) {
  types_.push_back(kTextArray);
  values_.push_back(ArrayOf(kText, values, Same));
  return *this;
}

PostgresParameters& PostgresParameters::AddBytes(const std::vector<std::string>& values) {
  types_.push_back(kByteaArray);
  values_.push_back(ArrayOf(kBytea, values, Same));
  return *this;
}

int64_t PostgresRows::Int(int row, int column) const {
  uint64_t bytes = 0;
  std::memcpy(&bytes, PQgetvalue(result_.get(), row, column), sizeof bytes);
  return static_cast<int64_t>(be64toh(bytes));
}

std::string_view PostgresRows::Bytes(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column), static_cast<size_t>(PQgetlength(result_.get(), row, column))};
}

absl::Status Postgres::ValidateUrl(const std::string& url) {
  char* error = nullptr;
  PQconninfoOption* options = PQconninfoParse(url.c_str(), &error);
  if (options == nullptr) {
    const std::string why = error != nullptr ? OneLine(error) : "out of memory";
    PQfreemem(error);
    return absl::InvalidArgumentError(why);
  }
  bool password = false;
  for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
    if (std::string_view(option->keyword) == "password" && option->val != nullptr) password = true;
  }
  PQconninfoFree(options);
  if (!password) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "a password on the command line can be read by everybody on this machine; put it into the file that PGPASSFILE "
      "names, or into a service file");
}

std::string Postgres::name() const {
  // Without what a service file or the environment add: it has to be the same with and without a connection.
  std::string host, port, database;
  if (PQconninfoOption* options = PQconninfoParse(url_.c_str(), nullptr)) {
    for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
      if (option->val == nullptr) continue;
      const std::string_view keyword = option->keyword;
      if (keyword == "host") host = option->val;
      if (keyword == "port") port = absl::StrCat(":", option->val);
      if (keyword == "dbname") database = option->val;
      if (keyword == "service") database = absl::StrCat("?service=", option->val);
    }
    PQconninfoFree(options);
  }
  return absl::StrCat("store postgresql://", host, port, "/", database);
}

absl::Status Postgres::Connect() {
  if (connection_ != nullptr && PQstatus(connection_.get()) == CONNECTION_OK) return absl::OkStatus();
  // `url` is expanded as the value of dbname; what follows stands over what it says.
  const std::string seconds = absl::StrCat(std::max<int64_t>(2, limit_.count() / 1000));
  const std::string milliseconds = absl::StrCat(limit_.count());
  const char* const keywords[] = {
      "dbname", "connect_timeout", "tcp_user_timeout", "fallback_application_name", "client_encoding", nullptr};
  const char* const values[] = {url_.c_str(),       seconds.c_str(), milliseconds.c_str(),
                                "attnfleet-server", "UTF8",          nullptr};
  connection_.reset(PQconnectdbParams(keywords, values, /*expand_dbname=*/1));
  if (PQstatus(connection_.get()) != CONNECTION_OK) return Broken(OneLine(PQerrorMessage(connection_.get())));
  PQsetnonblocking(connection_.get(), 1);
  // Else libpq writes warnings to standard error, between the lines of the log.
  PQsetNoticeProcessor(
      connection_.get(), [](void*, const char* text) { LogWarning(OneLine(text)); }, nullptr);
  ++connections_;
  // As statements: the parameter `options` is the user's, who may give it in the URL, a service file or PGOPTIONS.
  const std::string ours = absl::StrCat(
      "SET client_min_messages = warning; SET jit = off; SET idle_in_transaction_session_timeout = ", milliseconds,
      "; SET lock_timeout = ", milliseconds);
  if (PQsendQuery(connection_.get(), ours.c_str()) == 0) return Broken(OneLine(PQerrorMessage(connection_.get())));
  absl::Status status = Receive().status();
  if (!status.ok()) connection_.reset();
  return status;
}

absl::Status Postgres::Broken(const std::string& why) {
  absl::Status status = absl::UnavailableError(absl::StrCat(name(), ": ", why));
  connection_.reset();
  return status;
}

absl::Status Postgres::Error(const PGresult* result) {
  const char* field = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const std::string_view state = field != nullptr ? field : "";
  const std::string text = absl::StrCat(name(), ": ", OneLine(PQresultErrorMessage(result)));
  if (state == "23505") return absl::AlreadyExistsError(text);
  if (state == "53100") return absl::ResourceExhaustedError(absl::StrCat(text, " (its disk is full: free some space)"));
  if (state == "XX001" || state == "XX002") return absl::DataLossError(text);
  if (state == "42501") return absl::PermissionDeniedError(text);
  return absl::UnavailableError(text);
}

// Sends what is queued and waits for the statement's last result, up to the time limit.
absl::StatusOr<PostgresRows> Postgres::Receive() {
  const auto deadline = std::chrono::steady_clock::now() + limit_;
  PostgresRows last(nullptr);
  absl::Status failure;
  for (;;) {
    const int unsent = PQflush(connection_.get());
    if (unsent < 0) return Broken(OneLine(PQerrorMessage(connection_.get())));
    while (PQisBusy(connection_.get()) == 0) {
      PGresult* result = PQgetResult(connection_.get());
      if (result == nullptr) {
        if (PQstatus(connection_.get()) != CONNECTION_OK) return Broken("the connection broke");
        if (!failure.ok()) return failure;
        return last;
      }
      last = PostgresRows(result);
      const ExecStatusType status = PQresultStatus(result);
      if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && failure.ok()) failure = Error(result);
    }
    const int64_t left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    if (left <= 0) return Broken(absl::StrCat("no answer within ", limit_.count(), " ms"));
    pollfd waiting{PQsocket(connection_.get()), static_cast<short>(unsent > 0 ? POLLIN | POLLOUT : POLLIN), 0};
    if (poll(&waiting, 1, static_cast<int>(left)) < 0 && errno != EINTR) return Broken(std::strerror(errno));
    if (waiting.revents != 0 && PQconsumeInput(connection_.get()) == 0) {
      return Broken(OneLine(PQerrorMessage(connection_.get())));
    }
  }
}

absl::Status Postgres::Send(std::string_view sql, const PostgresParameters& parameters) {
  size_t bytes = 0;
  for (const std::string& value : parameters.values_) bytes += value.size();
  if (bytes > kMostBytes) {
    return absl::OutOfRangeError(absl::StrCat(name(), ": ", bytes, " bytes are more than a statement can take"));
  }
  if (absl::Status status = Connect(); !status.ok()) return status;
  std::vector<const char*> values;
  std::vector<int> lengths;
  for (const std::string& value : parameters.values_) {
    values.push_back(value.data());
    lengths.push_back(static_cast<int>(value.size()));
  }
  const std::vector<int> formats(values.size(), 1);
  if (PQsendQueryParams(connection_.get(), std::string(sql).c_str(), static_cast<int>(values.size()),
                        parameters.types_.data(), values.data(), lengths.data(), formats.data(),
                        /*resultFormat=*/1) == 0 ||
      PQflush(connection_.get()) < 0) {
    return Broken(OneLine(PQerrorMessage(connection_.get())));
  }
  return absl::OkStatus();
}

absl::StatusOr<PostgresRows> Postgres::Execute(std::string_view sql, const PostgresParameters& parameters) {
  if (absl::Status status = Send(sql, parameters); !status.ok()) return status;
  return Receive();
}

absl::Status Postgres::Script(const std::string& sql) {
  if (absl::Status status = Connect(); !status.ok()) return status;
  if (PQsendQuery(connection_.get(), sql.c_str()) == 0) {
    return Broken(OneLine(PQerrorMessage(connection_.get())));
  }
  return Receive().status();
}

}  // namespace attnfleet::server
