#include "server/benchmark_entry.h"

#include <utility>

namespace attnfleet::server {

bool IsActive(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_ASSIGNED || run.state() == v1::RUN_STATE_RUNNING;
}

v1::RunResult MakeResult(v1::Outcome outcome, const std::string& reason) {
  v1::RunResult result;
  result.set_outcome(outcome);
  result.set_reason(reason);
  return result;
}

BenchmarkEntry::BenchmarkEntry(const v1::Benchmark& head)
    : id_(head.id()),
      packed_(head.SerializeAsString()),
      state_(head.state()),
      paused_(head.paused()),
      every_(head.spec().placement() == v1::PLACEMENT_EVERY),
      priority_(head.spec().priority()),
      max_slots_(static_cast<uint32_t>(head.spec().max_slots())),
      shapes_(static_cast<uint32_t>(head.spec().shapes_size())),
      backends_(static_cast<uint32_t>(head.spec().backends_size())),
      repetitions_(static_cast<uint32_t>(head.spec().repetitions())),
      nodes_(static_cast<uint32_t>(head.nodes_size())),
      deadline_unix_ms_(DeadlineOf(head)),
      submitted_unix_ms_(head.submitted_unix_ms()),
      ended_unix_ms_(head.ended_unix_ms()) {}

int64_t DeadlineOf(const v1::Benchmark& head) {
  if (head.spec().deadline_seconds() <= 0) return 0;
  return head.submitted_unix_ms() + static_cast<int64_t>(head.spec().deadline_seconds() * 1000);
}

void EndUnassignedRuns(v1::Benchmark& benchmark) {
  if (benchmark.state() != v1::BENCHMARK_STATE_CANCELLED) return;
  for (v1::Job& job : *benchmark.mutable_jobs()) {
    for (v1::Run& run : *job.mutable_runs()) {
      if (run.state() == v1::RUN_STATE_ENDED) continue;
      run.set_state(v1::RUN_STATE_ENDED);
      run.set_ended_unix_ms(benchmark.ended_unix_ms());
      run.mutable_result()->set_outcome(v1::OUTCOME_CANCELLED);
      run.mutable_result()->set_reason(benchmark.cancel_reason());
    }
  }
}

v1::Benchmark WithRuns(const Picture& picture) {
  v1::Benchmark benchmark = picture.head;
  for (v1::Job& job : ExpandJobs(benchmark)) *benchmark.add_jobs() = std::move(job);
  for (const std::shared_ptr<const v1::Run>& run : picture.runs) {
    v1::Job& job = *benchmark.mutable_jobs(static_cast<int>(run->key().job_index()));
    *job.mutable_runs(static_cast<int>(run->key().repetition())) = *run;
  }
  EndUnassignedRuns(benchmark);
  return benchmark;
}

uint32_t BenchmarkEntry::runs_total() const { return shapes_ * repetitions_ * backends_ * (nodes_ > 0 ? nodes_ : 1); }

v1::Benchmark BenchmarkEntry::Head() const {
  v1::Benchmark head;
  if (unpacked_ != nullptr) {
    head = *unpacked_;
  } else {
    head.ParseFromString(packed_);
  }
  head.set_state(state_);
  head.set_paused(paused_);
  head.set_runs_total(runs_total());
  head.set_runs_ended(runs_ended_);
  return head;
}

Picture BenchmarkEntry::TakePicture() {
  Picture picture{Head(), {}};
  picture.runs.reserve(runs_.size());
  for (auto& [index, row] : runs_) picture.runs.push_back(Share(row));
  return picture;
}

v1::Run& BenchmarkEntry::Own(Row& row) {
  if (row.shared) row.run = std::make_shared<v1::Run>(*row.run);
  row.shared = false;
  return *row.run;
}

const std::shared_ptr<v1::Run>& BenchmarkEntry::Share(Row& row) {
  row.shared = true;
  return row.run;
}

const v1::BenchmarkSpec& BenchmarkEntry::Spec() {
  if (unpacked_ == nullptr) {
    unpacked_ = std::make_unique<v1::Benchmark>();
    unpacked_->ParseFromString(std::exchange(packed_, {}));
  }
  return unpacked_->spec();
}

void BenchmarkEntry::SetNodes(const std::vector<v1::Node>& nodes) {
  Spec();
  for (const v1::Node& node : nodes) *unpacked_->add_nodes() = node;
  nodes_ = static_cast<uint32_t>(nodes.size());
}

void BenchmarkEntry::End(v1::BenchmarkState state, const std::string& cancel_reason, int64_t now) {
  Spec();
  ended_unix_ms_ = now;
  unpacked_->set_ended_unix_ms(now);
  unpacked_->set_cancel_reason(cancel_reason);
  packed_ = unpacked_->SerializeAsString();
  unpacked_.reset();
  state_ = state;
  ForgetLanes();
}

void BenchmarkEntry::ForgetLanes() {
  runs_ended_ = runs_total();  // what has no row was cancelled with it
  lanes_.clear();
  unbound.clear();
}

void BenchmarkEntry::ForgetRuns() {
  runs_ = {};
  forgot_runs_ = true;
}

bool BenchmarkEntry::Has(const v1::RunKey& key) const {
  return key.benchmark_id() == id_ && key.repetition() < repetitions_ &&
         key.job_index() < shapes_ * backends_ * (nodes_ > 0 ? nodes_ : 1);
}

v1::Run* BenchmarkEntry::FindRun(const v1::RunKey& key) {
  const auto found = Has(key) ? runs_.find(IndexOf(key)) : runs_.end();
  return found == runs_.end() ? nullptr : &Own(found->second);
}

const v1::Run* BenchmarkEntry::FindRun(const v1::RunKey& key) const {
  const auto found = Has(key) ? runs_.find(IndexOf(key)) : runs_.end();
  return found == runs_.end() ? nullptr : found->second.run.get();
}

std::shared_ptr<const v1::Run> BenchmarkEntry::ShareRun(const v1::RunKey& key) {
  return Share(runs_.find(IndexOf(key))->second);
}

v1::Run& BenchmarkEntry::FindOrAddRun(const v1::RunKey& key) {
  const auto [place, is_new] = runs_.try_emplace(IndexOf(key));
  if (!is_new) return Own(place->second);
  place->second.run = std::make_shared<v1::Run>();
  *place->second.run->mutable_key() = key;
  place->second.run->set_state(v1::RUN_STATE_QUEUED);
  return *place->second.run;
}

void BenchmarkEntry::RunEnded(bool was_active) {
  ++runs_ended_;
  if (was_active) --runs_active_;
}

v1::RunKey BenchmarkEntry::KeyOf(uint32_t lane, uint32_t round, uint32_t backend) const {
  v1::RunKey key;
  key.set_benchmark_id(id_);
  const uint32_t shape = lane * lane_shapes() + round / repetitions_;
  key.set_job_index(shape * backends_ + backend);
  key.set_repetition(round % repetitions_);
  return key;
}

Lane* BenchmarkEntry::FindLane(uint32_t index) {
  const auto found = lanes_.find(index);
  return found == lanes_.end() ? nullptr : &found->second;
}

const Lane* BenchmarkEntry::FindLane(uint32_t index) const {
  const auto found = lanes_.find(index);
  return found == lanes_.end() ? nullptr : &found->second;
}

Lane& BenchmarkEntry::FindOrAddLane(uint32_t index) {
  Lane& lane = lanes_[index];
  lane.runs.resize(backends_);
  return lane;
}

BackendSet BenchmarkEntry::Wants(const Lane& lane) const {
  BackendSet wanted = 0;
  for (uint32_t backend = 0; backend < backends_; ++backend) {
    const Lane::Runs& runs = lane.runs[backend];
    if (runs.next < lane_rounds() || !runs.returned.empty()) wanted |= BackendSet{1} << backend;
  }
  return wanted;
}

v1::RunKey BenchmarkEntry::TakeRun(uint32_t index, BackendSet of) {
  Lane& lane = *FindLane(index);
  of &= Wants(lane);
  uint32_t first = 0;
  uint32_t first_round = UINT32_MAX;
  for (uint32_t backend = 0; backend < backends_; ++backend) {
    if (((of >> backend) & 1) == 0) continue;
    const Lane::Runs& runs = lane.runs[backend];
    const uint32_t round = runs.returned.empty() ? runs.next : *runs.returned.begin();
    if (round >= first_round) continue;
    first = backend;
    first_round = round;
  }
  Lane::Runs& runs = lane.runs[first];
  if (runs.returned.erase(first_round) == 0) ++runs.next;
  return KeyOf(index, first_round, first);
}

void BenchmarkEntry::ReturnRun(const v1::RunKey& key) {
  FindLane(LaneOf(key))->runs[BackendOf(key)].returned.insert(RoundOf(key));
}

template <typename Look>
void BenchmarkEntry::ForEachMeasured(uint32_t index, Look look) const {
  const Lane& lane = *FindLane(index);
  for (uint32_t backend = 0; backend < backends_; ++backend) {
    for (uint32_t round = 0; round < lane.runs[backend].next; ++round) {
      const v1::Run* run = FindRun(KeyOf(index, round, backend));
      if (run != nullptr && run->result().outcome() == v1::OUTCOME_MEASURED) look(*run);
    }
  }
}

bool BenchmarkEntry::HasMeasured(uint32_t index, const std::string& worker) const {
  bool found = false;
  ForEachMeasured(index, [&](const v1::Run& run) { found = found || run.worker() == worker; });
  return found;
}

const v1::Run* BenchmarkEntry::LastMeasured(uint32_t index) const {
  const v1::Run* last = nullptr;
  ForEachMeasured(index, [&last](const v1::Run& run) {
    if (last == nullptr || run.started_unix_ms() > last->started_unix_ms()) last = &run;
  });
  return last;
}

bool BenchmarkEntry::HasLane(const Need& need) const {
  if (next_lane < lane_count() && need == first_need()) return true;
  const auto first = unbound.lower_bound({need, 0});
  return first != unbound.end() && first->first == need;
}

}  // namespace attnfleet::server
