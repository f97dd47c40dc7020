#ifndef ATTNFLEET_WORKER_TRAINER_PREFETCH_QUEUE_H_
#define ATTNFLEET_WORKER_TRAINER_PREFETCH_QUEUE_H_

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace attnfleet::trainer {

// Makes item 0, 1, 2, ... on several threads and hands them out in that order, at most `capacity` ahead.
template <typename Item>
class PrefetchQueue {
 public:
  // `make` is called from every thread at once; each makes the lowest number that nobody has begun. With no thread,
  // Next() makes the item itself.
  PrefetchQueue(int threads, uint64_t capacity, std::function<Item(uint64_t)> make)
      : make_(std::move(make)), capacity_(capacity) {
    threads_.reserve(static_cast<size_t>(threads));
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  }

  ~PrefetchQueue() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  PrefetchQueue(const PrefetchQueue&) = delete;
  PrefetchQueue& operator=(const PrefetchQueue&) = delete;

  // The next item; waits for it. Rethrows what its maker threw.
  Item Next() {
    if (threads_.empty()) return make_(handed_out_++);
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return error_ || finished_.contains(handed_out_); });
    if (error_) std::rethrow_exception(error_);
    Item item = std::move(finished_.extract(handed_out_).mapped());
    ++handed_out_;
    lock.unlock();
    room_.notify_one();
    return item;
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    while (true) {
      room_.wait(lock, [this] { return stopping_ || begun_ < handed_out_ + capacity_; });
      if (stopping_) return;
      const uint64_t number = begun_++;
      lock.unlock();
      try {
        Item item = make_(number);
        lock.lock();
        finished_.emplace(number, std::move(item));
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        error_ = std::current_exception();
        stopping_ = true;
      }
      ready_.notify_one();
    }
  }

  // Constant after construction.
  const std::function<Item(uint64_t)> make_;
  const uint64_t capacity_;

  std::mutex mutex_;
  std::condition_variable room_;   // for the makers
  std::condition_variable ready_;  // for Next()
  // Guarded by mutex_ (handed_out_ by nothing where there are no threads).
  std::map<uint64_t, Item> finished_;
  uint64_t begun_ = 0;
  uint64_t handed_out_ = 0;
  bool stopping_ = false;
  std::exception_ptr error_;

  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_PREFETCH_QUEUE_H_
