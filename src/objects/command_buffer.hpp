// Command buffers, whatever device runs them, and the queues that make them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "objects/encode.hpp"
#include "objects/image_uses.hpp"

namespace mpsnn_loss {

class Device;
class Queue;

/// The life of a command buffer: encode any number of kernels, commit once, wait.
class CommandBuffer {
 public:
  CommandBuffer(std::shared_ptr<Device> device, std::string label, const Queue* queue)
      : device_(std::move(device)),
        label_(std::move(label)),
        progress_(std::make_shared<Progress>(queue)) {}
  /// A buffer that knows who owns it. Not by enable_shared_from_this, which pybind11 asks before it
  /// looks at the pointer that it is given: what callers hold may own more than the buffer.
  template <class Buffer, class... Arguments>
  static std::shared_ptr<Buffer> make(Arguments&&... arguments) {
    const auto made = std::make_shared<Buffer>(std::forward<Arguments>(arguments)...);
    static_cast<CommandBuffer&>(*made).self_ = made;
    return made;
  }
  std::shared_ptr<CommandBuffer> self() const { return self_.lock(); }
  long owners() const { return self_.use_count(); }
  virtual ~CommandBuffer() = default;
  CommandBuffer(const CommandBuffer&) = delete;
  CommandBuffer& operator=(const CommandBuffer&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }
  const std::string& label() const { return label_; }

  /// Throws StateError where nothing may be encoded any more.
  void check_encodable() const { check_open("encoded into"); }
  /// Records an encode and returns its results, which are unreadable until the buffer has
  /// completed. Throws ValueError, TypeError or StateError that names the argument before anything
  /// is done: where images or states do not fit, are of another device, or have no values, and
  /// where a pending buffer of another queue is in the way (objects/image_uses.hpp).
  std::shared_ptr<ImageBatch> encode(Encode given);
  /// Those of the predictions of all encodes so far.
  std::int64_t elements() const { return elements_; }
  /// Reserves the buffer's place in the queue's order. Enqueuing twice changes nothing.
  void enqueue();
  /// Hands the buffer to the device, at its place in the queue's order.
  void commit();
  /// Drops an uncommitted buffer and all it would have written.
  void discard();
  /// Blocks until the work is done and every handler has returned; throws the work's error, or
  /// TimeoutError after `seconds`.
  void wait(std::optional<double> seconds);
  /// Waits at most so long; true once nothing is left to wait for, an error included.
  bool finished_within(double seconds);
  /// Throws the error of work that has failed.
  void throw_error() const;
  /// Adds a function that runs once after the work, on the thread that finished it or on another
  /// (objects/completion.hpp). What it throws is lost.
  void on_completed(std::function<void()> handler);

  virtual CommandBufferStatus status() const { return progress_->status; }
  std::exception_ptr error() const;
  /// Begin and end of the work in seconds of one monotonic clock; 0 until finished.
  virtual std::pair<double, double> times() const = 0;
  /// The open buffer that stands first in the queue, so that nothing else of it runs; or null.
  virtual std::shared_ptr<CommandBuffer> gate() const { return nullptr; }

 protected:
  /// Encodes what was found valid. Returns the images that the kernel made for an allocator, else
  /// null. It keeps the call, and must free none: freed under the buffer's mutex, images might wait
  /// for the GIL.
  virtual std::shared_ptr<ImageBatch> do_encode(
      const std::shared_ptr<const EncodedCall>& encoded) = 0;
  virtual void do_enqueue() = 0;
  virtual void do_commit() = 0;   // leads to set_result and complete, now or on another thread
  virtual void do_discard() = 0;  // an enqueued buffer gives up its place
  /// Throws StateError where the buffer's queue can do no more work.
  virtual void check_queue() const {}
  // How a device ends the buffer's life, once each and in this order:
  /// The device has begun.
  void set_scheduled();
  /// The work is done, or failed with `error`: status and results may be seen. It failed as well
  /// where a buffer that should have written one of its inputs has not completed.
  void set_result(std::exception_ptr error) noexcept;
  /// Has the handlers run, then wakes whoever waits.
  void complete() noexcept;
  /// The same for a thread that must not run handlers.
  void complete_elsewhere() noexcept;
  bool has_handlers() const;
  /// What destructors do in place of discard. Looks at our own flag alone to know whether the
  /// buffer was committed, as the derived object may be half destroyed.
  void abandon();

 private:
  class Claim;
  static constexpr int kNotBegun = -1;

  void check_open(const char* action) const;
  std::exception_ptr input_error() const noexcept;
  void check_may_wait() const;
  void finish() noexcept;
  void run_handlers(std::vector<std::function<void()>>& handlers) noexcept;

  const std::shared_ptr<Device> device_;
  const std::string label_;
  std::weak_ptr<CommandBuffer> self_;
  const std::shared_ptr<Progress> progress_;
  std::atomic<std::int64_t> elements_ = 0;
  std::set<ProgressPointer> input_writers_;  // pending when their images were read from
  mutable std::mutex mutex_;
  std::condition_variable finished_changed_;
  std::vector<std::function<void()>> handlers_;
  std::atomic<bool> finished_ = false;     // completed, and all handlers have returned
  std::atomic<int> begun_in_ = kNotBegun;  // the process, by number of forks
};

/// Buffers of one queue run in the order in which they were enqueued or committed.
class Queue {
 public:
  Queue(std::shared_ptr<Device> device, std::string label)
      : device_(std::move(device)), label_(std::move(label)) {}
  virtual ~Queue() = default;
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }
  const std::string& label() const { return label_; }
  virtual std::shared_ptr<CommandBuffer> make_command_buffer(const std::string& label) = 0;

 private:
  const std::shared_ptr<Device> device_;
  const std::string label_;
};

}  // namespace mpsnn_loss
