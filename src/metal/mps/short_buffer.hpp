// Command buffers that are encoded into, run and waited for in one go. For .mm files only, after
// they have imported MetalPerformanceShaders.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "core/engine.hpp"
#include "metal/mps/encode.hpp"
#include "metal/mps/objc_ptr.hpp"
#include "objects/completion.hpp"

namespace mpsnn_loss::metal {

/// A device, and a queue of its own for what is run in one go; made at the first use.
class OwnQueue {
 public:
  explicit OwnQueue(objc_ptr<id<MTLDevice>> device) : device_(std::move(device)) {}

  id<MTLDevice> device() const { return device_.get(); }
  id<MTLCommandQueue> get() {
    const std::lock_guard lock(mutex_);
    if (!queue_) {
      queue_ = objc_ptr<id<MTLCommandQueue>>::adopted(
          not_nil([device_.get() newCommandQueue], "MTLCommandQueue"));
    }
    return queue_.get();
  }

 private:
  const objc_ptr<id<MTLDevice>> device_;
  std::mutex mutex_;
  objc_ptr<id<MTLCommandQueue>> queue_;
};

class ShortBuffer {
 public:
  explicit ShortBuffer(OwnQueue& queue)
      : buffer_(objc_ptr<id<MTLCommandBuffer>>::retained(
            not_nil([queue.get() commandBuffer], "MTLCommandBuffer"))) {}

  id<MTLCommandBuffer> get() const { return buffer_.get(); }
  /// What `waiting` throws leaves the buffer to itself: it keeps what it works on.
  void run(Waiting waiting) {
    constexpr double kSlice = 0.1;  // seconds a wait goes on before it looks up
    const auto end = std::make_shared<End>();
    [buffer_.get() addCompletedHandler:^(id<MTLCommandBuffer>) {
      const std::lock_guard lock(end->mutex);
      end->has_come = true;
      end->changed.notify_all();
      end->work.reset();
    }];
    [buffer_.get() commit];
    std::unique_lock lock(end->mutex);
    const auto has_come = [&] { return end->has_come; };
    while (!end->changed.wait_for(lock, std::chrono::duration<double>(kSlice), has_come)) {
      if (waiting == nullptr) continue;
      lock.unlock();
      waiting();
      lock.lock();
    }
    check_completed(buffer_.get());
  }

 private:
  struct End {
    std::mutex mutex;
    std::condition_variable changed;
    bool has_come = false;
    std::optional<WorkInFlight> work{std::in_place};
  };

  const objc_ptr<id<MTLCommandBuffer>> buffer_;
};

}  // namespace mpsnn_loss::metal
