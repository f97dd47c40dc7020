#include "server/fleet.h"

#include <algorithm>

namespace attnfleet::server {

Worker* Fleet::Find(const std::string& name) {
  const auto found = workers_.find(name);
  return found == workers_.end() ? nullptr : found->second.get();
}

const Worker* Fleet::Find(const std::string& name) const {
  const auto found = workers_.find(name);
  return found == workers_.end() ? nullptr : found->second.get();
}

Worker& Fleet::FindOrAdd(const std::string& name, int64_t now) {
  std::unique_ptr<Worker>& worker = workers_[name];
  if (worker == nullptr) {
    worker = std::make_unique<Worker>();
    worker->info.set_name(name);
    worker->heard = now;
    worker->position = held_.insert(held_.end(), worker.get());
  }
  return *worker;
}

Slot* Fleet::FindSlot(Worker& worker, const std::string& id) {
  const auto found = worker.slots.find(id);
  return found == worker.slots.end() ? nullptr : found->second.get();
}

Slot& Fleet::FindOrAddSlot(Worker& worker, const std::string& id) {
  std::unique_ptr<Slot>& slot = worker.slots[id];
  if (slot == nullptr) {
    slot = std::make_unique<Slot>();
    slot->serial = next_serial_++;
    slot->worker = &worker;
    slot->info.set_id(id);
  }
  return *slot;
}

void Fleet::Erase(Worker& worker) {
  (worker.lost ? lost_ : held_).erase(worker.position);
  workers_.erase(workers_.find(worker.name()));
}

void Fleet::Heard(Worker& worker, int64_t now) {
  worker.heard = now;
  held_.splice(held_.end(), worker.lost ? lost_ : held_, worker.position);
  worker.lost = false;
}

void Fleet::Forgive(int64_t silence, int64_t now) {
  for (Worker* worker : held_) worker->heard = std::min(now, worker->heard + silence);
}

void Fleet::MarkLost(Worker& worker) {
  if (worker.lost) return;
  lost_.splice(lost_.end(), held_, worker.position);
  worker.lost = true;
}

}  // namespace attnfleet::server
