// What a call on host arrays borrows from Metal while it lasts. For .mm files only, after they have
// imported Metal.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "core/completion.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {

/// So many seconds a wait goes on before it looks up.
inline constexpr double kSlice = 0.1;

/// A command buffer that is encoded into, run and waited for in one go.
class ShortBuffer {
 public:
  explicit ShortBuffer(ArrayWorkshop& workshop)
      : buffer_(objc_ptr<id<MTLCommandBuffer>>::retained(
            not_nil([(id<MTLCommandQueue>)workshop.queue() commandBuffer], "MTLCommandBuffer"))) {}

  void* get() const { return buffer_.get(); }
  /// What `waiting` throws leaves the buffer to itself: it keeps what it works on.
  void run(Waiting waiting) {
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

/// A kernel object of the workshop while a call uses it.
class BorrowedKernel {
 public:
  BorrowedKernel(ArrayWorkshop& workshop, KernelKind kind, const LossDescriptor& descriptor)
      : workshop_(workshop),
        kind_(kind),
        descriptor_(descriptor),
        object_(workshop.take_kernel(kind, descriptor)) {}
  ~BorrowedKernel() { workshop_.give_back(kind_, descriptor_, object_); }
  BorrowedKernel(const BorrowedKernel&) = delete;
  BorrowedKernel& operator=(const BorrowedKernel&) = delete;
  void* get() const { return object_; }

 private:
  ArrayWorkshop& workshop_;
  const KernelKind kind_;
  const LossDescriptor descriptor_;
  void* const object_;
};

}  // namespace mpsnn_loss::metal
