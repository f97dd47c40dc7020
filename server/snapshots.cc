#include "server/snapshots.h"

namespace attnfleet::server {

Snapshots::Thread::~Thread() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Snapshots::Thread::Do(std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    task_ = std::move(task);
  }
  wake_.notify_one();
}

void Snapshots::Thread::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || task_; });
    if (!task_) return;
    std::function<void()> task = std::exchange(task_, nullptr);
    lock.unlock();
    task();
    task = nullptr;  // what it holds may be large
    lock.lock();
  }
}

Snapshots::Snapshots(Options options) : options_(std::move(options)) {}

void Snapshots::Ask(const Key& key, Reply reply) {
  if (const auto kept = kept_by_key_.find(key); kept != kept_by_key_.end()) {
    kept_.splice(kept_.end(), kept_, kept->second);
    kept->second->asked = options_.now();
    return reply(kept->second->wire);
  }
  Lane& lane = lanes_[options_.is_large(key.first) ? 1 : 0];
  if (lane.refusal) return reply(*lane.refusal);
  // Explanations tell of the whole fleet, which changes by the moment.
  const bool joins =
      lane.making && lane.making->key == key && lane.making->current && key.second != Kind::kExplanations;
  if (joins) {
    lane.making->replies.push_back(std::move(reply));
    return;
  }
  const auto [place, is_new] = lane.waiting.try_emplace(key);
  place->second.push_back(std::move(reply));
  if (is_new) lane.queue.push_back(key);
}

void Snapshots::Changed(uint64_t id) {
  for (const Kind kind : {Kind::kBenchmark, Kind::kWithContaminated}) Drop({id, kind});
  for (Lane& lane : lanes_) {
    if (lane.making && lane.making->key.first == id) lane.making->current = false;
  }
}

void Snapshots::Begin() {
  const Clock::time_point asked_before = options_.now() - options_.kept_for;
  while (!kept_.empty() && kept_.front().asked < asked_before) Drop(kept_.front().key);
  for (Lane& lane : lanes_) {
    while (!lane.making && !lane.queue.empty()) BeginNext(lane);
  }
}

void Snapshots::BeginNext(Lane& lane) {
  const Key key = lane.queue.front();
  lane.queue.pop_front();
  std::vector<Reply> replies = std::move(lane.waiting.extract(key).mapped());
  absl::StatusOr<Make> make = options_.take(key);
  if (!make.ok()) {
    for (const Reply& reply : replies) reply(make.status());
    return;
  }
  lane.making = Making{key, std::move(replies)};
  lane.thread.Do([this, &lane, make = *std::move(make)] {
    options_.post([this, &lane, answer = make()] { Done(lane, answer); });
  });
}

void Snapshots::Done(Lane& lane, const Answer& answer) {
  const Making made = *std::exchange(lane.making, std::nullopt);
  if (answer.ok() && made.current && made.key.second != Kind::kExplanations) Keep(made.key, *answer);
  for (const Reply& reply : made.replies) reply(answer);
}

void Snapshots::Keep(const Key& key, Wire wire) {
  Drop(key);
  kept_bytes_ += wire->size();
  kept_.push_back({key, std::move(wire), options_.now()});
  kept_by_key_[key] = std::prev(kept_.end());
  while (kept_bytes_ > options_.kept_bytes && kept_.size() > 1) Drop(kept_.front().key);
}

void Snapshots::Drop(const Key& key) {
  const auto found = kept_by_key_.find(key);
  if (found == kept_by_key_.end()) return;
  kept_bytes_ -= found->second->wire->size();
  kept_.erase(found->second);
  kept_by_key_.erase(found);
}

void Snapshots::Refuse(const absl::Status& status, Which which) {
  for (size_t i = which == Which::kAll ? 0 : 1; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    lane.refusal = status;
    lane.queue.clear();
    for (const auto& [key, replies] : std::exchange(lane.waiting, {})) {
      for (const Reply& reply : replies) reply(status);
    }
  }
}

bool Snapshots::busy() const {
  for (const Lane& lane : lanes_) {
    if (lane.making || !lane.queue.empty()) return true;
  }
  return false;
}

}  // namespace attnfleet::server
