#include "server/postgres_store.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attnfleet::server {
namespace {

// So many rows of usual runs are what a socket's buffer holds: then the database need not wait for their reader.
constexpr int kRowsPerFetch = 400;
// Held while the tables are changed. Any number that nothing else in the database uses.
constexpr int64_t kMigrationLock = 0x6174746e'00000001;

// Script i takes the schema from version i to i + 1. A script that was released is never edited.
constexpr std::array<const char*, 1> kMigrations = {
    R"sql(
      CREATE TABLE benchmarks (
        id int8 PRIMARY KEY,
        state int8 NOT NULL,
        submitted_unix_ms int8 NOT NULL,
        request_id text NOT NULL,
        message bytea NOT NULL);  -- Benchmark without jobs
      CREATE UNIQUE INDEX benchmarks_request ON benchmarks (request_id) WHERE request_id <> '';
      CREATE TABLE runs (
        benchmark_id int8 NOT NULL REFERENCES benchmarks (id),
        job_index int8 NOT NULL,
        repetition int8 NOT NULL,
        state int8 NOT NULL,
        message bytea NOT NULL,  -- Run
        PRIMARY KEY (benchmark_id, job_index, repetition));
      CREATE TABLE settings (name text PRIMARY KEY, value bytea NOT NULL);
      -- One row. The epoch is a key, so that FOR KEY SHARE holds up its change and not the heartbeats.
      CREATE TABLE leadership (epoch int8 PRIMARY KEY, beat int8 NOT NULL, address text NOT NULL);
      INSERT INTO leadership VALUES (0, 0, '');
    )sql"};

constexpr char kSave[] = R"sql(
    WITH fence AS (SELECT epoch FROM leadership WHERE epoch = $1 FOR KEY SHARE),
    saved_benchmarks AS (
      INSERT INTO benchmarks SELECT rows.* FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::text[], $6::bytea[])
        AS rows, fence
        ON CONFLICT (id) DO UPDATE SET state = excluded.state, message = excluded.message),
    saved_runs AS (
      INSERT INTO runs SELECT rows.* FROM unnest($7::int8[], $8::int8[], $9::int8[], $10::int8[], $11::bytea[])
        AS rows, fence
        ON CONFLICT (benchmark_id, job_index, repetition)
        DO UPDATE SET state = excluded.state, message = excluded.message),
    saved_settings AS (
      INSERT INTO settings SELECT rows.* FROM unnest($12::text[], $13::bytea[]) AS rows (name, value), fence
        WHERE length(rows.value) > 0
        ON CONFLICT (name) DO UPDATE SET value = excluded.value),
    removed_settings AS (
      DELETE FROM settings USING fence, unnest($12::text[], $13::bytea[]) AS rows (name, value)
        WHERE settings.name = rows.name AND length(rows.value) = 0)
    SELECT count(*) FROM fence)sql";

constexpr char kDelete[] = R"sql(
    WITH fence AS (SELECT epoch FROM leadership WHERE epoch = $1 FOR KEY SHARE),
    deleted_runs AS (DELETE FROM runs USING fence WHERE benchmark_id = ANY ($2::int8[])),
    deleted_benchmarks AS (DELETE FROM benchmarks USING fence WHERE id = ANY ($2::int8[]))
    SELECT count(*) FROM fence)sql";

constexpr char kConfirm[] = "SELECT count(*) FROM leadership WHERE epoch = $1";

PostgresParameters SaveParameters(int64_t epoch, const StoreChanges& changes) {
  std::vector<int64_t> ids, states, submitted;
  std::vector<std::string> requests, messages;
  for (const StoreChanges::ChangedBenchmark& changed : changes.benchmarks) {
    ids.push_back(static_cast<int64_t>(changed.benchmark->id()));
    states.push_back(changed.benchmark->state());
    submitted.push_back(changed.benchmark->submitted_unix_ms());
    requests.push_back(changed.request_id);
    messages.push_back(RowMessage(*changed.benchmark).SerializeAsString());
  }
  std::vector<int64_t> benchmarks, jobs, repetitions, run_states;
  std::vector<std::string> run_messages;
  for (const v1::Run* run : changes.runs) {
    benchmarks.push_back(static_cast<int64_t>(run->key().benchmark_id()));
    jobs.push_back(run->key().job_index());
    repetitions.push_back(run->key().repetition());
    run_states.push_back(run->state());
    run_messages.push_back(run->SerializeAsString());
  }
  std::vector<std::string> names, values;
  for (const StoreChanges::ChangedSetting& changed : changes.settings) {
    names.push_back(changed.name);
    values.push_back(changed.value);
  }
  PostgresParameters parameters;
  parameters.Add(epoch);
  parameters.Add(ids).Add(states).Add(submitted).AddTexts(requests).AddBytes(messages);
  parameters.Add(benchmarks).Add(jobs).Add(repetitions).Add(run_states).AddBytes(run_messages);
  parameters.AddTexts(names).AddBytes(values);
  return parameters;
}

}  // namespace

PostgresStore::PostgresStore(const std::string& url, Leadership* leadership, std::chrono::milliseconds limit)
    : url_(url), postgres_(url, limit), leadership_(leadership) {}

absl::Status PostgresStore::Migrate(const std::string& url) { return PostgresStore(url, nullptr).MigrateTables(); }

absl::StatusOr<int64_t> PostgresStore::SchemaVersion() {
  const absl::StatusOr<PostgresRows> there = postgres_.Execute("SELECT to_regclass('attnfleet_schema') IS NOT NULL");
  if (!there.ok()) return there.status();
  if (!there->Bool(0, 0)) return 0;
  const absl::StatusOr<PostgresRows> version = postgres_.Execute("SELECT version FROM attnfleet_schema");
  if (!version.ok()) return version.status();
  if (version->size() != 1) return absl::DataLossError(absl::StrCat(name(), ": attnfleet_schema has no version"));
  return version->Int(0, 0);
}

absl::Status PostgresStore::MigrateTables() {
  // Released with this object's connection.
  if (absl::Status status =
          postgres_.Execute("SELECT pg_advisory_lock($1)", PostgresParameters().Add(kMigrationLock)).status();
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<int64_t> version = SchemaVersion();
  if (!version.ok()) return version.status();
  for (auto next = static_cast<size_t>(*version); next < kMigrations.size(); ++next) {
    // One message with several statements is one transaction.
    const std::string note = next == 0 ? "CREATE TABLE attnfleet_schema (version int8 NOT NULL);"
                                         "INSERT INTO attnfleet_schema VALUES (1)"
                                       : absl::StrCat("UPDATE attnfleet_schema SET version = ", next + 1);
    if (absl::Status status = postgres_.Script(absl::StrCat(kMigrations[next], note)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PostgresStore>> PostgresStore::Open(const std::string& url, Leadership* leadership,
                                                                   std::chrono::milliseconds limit) {
  std::unique_ptr<PostgresStore> store(new PostgresStore(url, leadership, limit));
  const absl::StatusOr<int64_t> version = store->SchemaVersion();
  if (!version.ok()) return version.status();
  const auto known = static_cast<int64_t>(kMigrations.size());
  if (*version == 0) return absl::FailedPreconditionError(absl::StrCat(store->name(), " holds no attnfleet store"));
  if (*version != known) {
    return absl::FailedPreconditionError(absl::StrCat(
        store->name(), ": ", *version > known ? "a newer" : "an older", " attnfleet wrote it (schema ", *version,
        ", this program knows ", known, "); ", *version > known ? "use that version" : "start the server once"));
  }
  return store;
}

absl::StatusOr<std::unique_ptr<JobStore>> PostgresStore::OpenReader() {
  // Whatever schema there is by now: a newer standby may have changed it, in ways that the one who leads can live with,
  // and it must not lose its ended benchmarks when the store itself goes on.
  return std::unique_ptr<JobStore>(new PostgresStore(url_, nullptr));
}

absl::Status PostgresStore::GiveUpUnanswered() {
  if (!unanswered_) return absl::OkStatus();
  const absl::Status status = leadership_->Renew();
  if (status.ok()) unanswered_ = false;
  return status;
}

absl::Status PostgresStore::Fenced(const char* sql, const PostgresParameters& parameters) {
  const absl::StatusOr<PostgresRows> rows = postgres_.Execute(sql, parameters);
  if (!rows.ok()) {
    if (leadership_ != nullptr && !postgres_.connected()) unanswered_ = true;
    return rows.status();
  }
  if (rows->Int(0, 0) == 1) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(name(), ": this coordinator does not lead (any more)"));
}

absl::Status PostgresStore::ConfirmLead() { return Fenced(kConfirm, PostgresParameters().Add(epoch())); }

absl::Status PostgresStore::Save(const StoreChanges& changes) {
  if (absl::Status status = GiveUpUnanswered(); !status.ok()) return status;
  return Fenced(kSave, SaveParameters(epoch(), changes));
}

absl::Status PostgresStore::Delete(const std::vector<uint64_t>& ids) {
  if (absl::Status status = GiveUpUnanswered(); !status.ok()) return status;
  return Fenced(kDelete, PostgresParameters().Add(epoch()).Add(std::vector<int64_t>(ids.begin(), ids.end())));
}

absl::Status PostgresStore::InTransaction(const std::string& begin, const std::function<absl::Status()>& work) {
  absl::Status status = postgres_.Script(begin);
  if (status.ok()) status = work();
  if (status.ok()) status = postgres_.Script("COMMIT");
  if (!status.ok()) postgres_.Close();
  return status;
}

absl::Status PostgresStore::Fill(const Source& next) {
  return InTransaction("BEGIN", [&] { return FillRows(next); });
}

absl::Status PostgresStore::FillRows(const Source& next) {
  const absl::StatusOr<PostgresRows> used =
      postgres_.Execute("SELECT EXISTS (SELECT FROM benchmarks) OR EXISTS (SELECT FROM settings)");
  if (!used.ok()) return used.status();
  if (used->Bool(0, 0)) return absl::FailedPreconditionError(absl::StrCat(name(), " is not empty"));
  for (;;) {
    StoreChanges changes;
    const absl::StatusOr<bool> more = next(changes);
    if (!more.ok() || !*more) return more.status();
    if (absl::Status status = Fenced(kSave, SaveParameters(epoch(), changes)); !status.ok()) return status;
  }
}

absl::Status PostgresStore::ForEachRow(const std::string& sql,
                                       const std::function<absl::Status(const PostgresRows&, int)>& take) {
  if (absl::Status status = postgres_.Script(absl::StrCat("DECLARE rows NO SCROLL CURSOR FOR ", sql)); !status.ok()) {
    return status;
  }
  const std::string fetch = absl::StrCat("FETCH ", kRowsPerFetch, " FROM rows");
  absl::Status sent = postgres_.Send(fetch);
  while (sent.ok()) {
    const absl::StatusOr<PostgresRows> rows = postgres_.Receive();
    if (!rows.ok()) return rows.status();
    const bool last = rows->size() < kRowsPerFetch;
    if (!last) sent = postgres_.Send(fetch);  // the database looks for the next ones meanwhile
    for (int row = 0; row < rows->size(); ++row) {
      if (absl::Status status = take(*rows, row); !status.ok()) return status;
    }
    if (last) return postgres_.Script("CLOSE rows");
  }
  return sent;
}

absl::Status PostgresStore::Read(const Selection& selection, RowReader& reader) {
  return InTransaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", [&] { return ReadRows(selection, reader); });
}

absl::Status PostgresStore::ReadRows(const Selection& selection, RowReader& reader) {
  if (absl::Status status = ForEachRow("SELECT name, value FROM settings ORDER BY name",
                                       [&](const PostgresRows& rows, int row) {
                                         return reader.TakeSetting(rows.Bytes(row, 0), rows.Bytes(row, 1));
                                       });
      !status.ok() || !selection.benchmarks) {
    return status;
  }
  const std::string one = selection.id == 0 ? "" : absl::StrCat(" AND id = ", selection.id);
  if (absl::Status status = ForEachRow(
          absl::StrCat("SELECT id, state, request_id, message FROM benchmarks WHERE true", one, " ORDER BY id"),
          [&](const PostgresRows& rows, int row) {
            return reader.TakeBenchmark({rows.Int(row, 0), rows.Int(row, 1), rows.Bytes(row, 2), rows.Bytes(row, 3)});
          });
      !status.ok()) {
    return status;
  }
  return ForEachRow(
      absl::StrCat("SELECT runs.* FROM runs",
                   selection.runs_of_ended
                       ? " WHERE true"
                       : absl::StrCat(" JOIN benchmarks ON id = benchmark_id WHERE benchmarks.state NOT IN (",
                                      v1::BENCHMARK_STATE_FINISHED, ", ", v1::BENCHMARK_STATE_CANCELLED, ")"),
                   selection.id == 0 ? "" : absl::StrCat(" AND benchmark_id = ", selection.id),
                   " ORDER BY benchmark_id, job_index, repetition"),
      [&](const PostgresRows& rows, int row) {
        return reader.TakeRun(
            {rows.Int(row, 0), rows.Int(row, 1), rows.Int(row, 2), rows.Int(row, 3), rows.Bytes(row, 4)});
      });
}

}  // namespace attnfleet::server
