// The interface between meaning and engines, in Apple's shape: a device makes images, kernels and
// queues; a queue makes command buffers; a command buffer encodes calls, is committed and waited
// for.
//
// Ownership. Everything is held by shared_ptr. Images, kernels and queues keep their device alive,
// a command buffer keeps its queue, and every image of its calls until it has completed.
//
// Threads. A command buffer serialises its own encode and commit. Different objects are
// independent. What happens to images that several buffers use stands in core/image_uses.hpp.
//
// Errors. Misuse throws before anything is written (core/error.hpp). Work that fails after commit
// is kept by its command buffer: wait throws it, and so does reading an image it should have
// written.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/image.hpp"
#include "core/image_uses.hpp"
#include "core/kernel_properties.hpp"
#include "core/loss_descriptor.hpp"

namespace mpsnn_loss {

class Device;
class LossCall;
class Queue;
struct Image;
struct LossRequest;

/// What makes the images of an encode that is given no destination (MPSImageAllocator).
enum class ResultAllocator { image, temporary_image };

/// What an object from outside is said to be (of Metal: an id).
enum class ForeignKind { device, queue, command_buffer, image, image_batch };

/// N images of one shape and format. An MPSImage is an index into one.
class ImageBatch {
 public:
  ImageBatch(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, bool writable)
      : device_(std::move(device)),
        descriptor_(descriptor),
        writable_(writable),
        uses_(descriptor.shape.images) {}
  virtual ~ImageBatch() = default;
  ImageBatch(const ImageBatch&) = delete;
  ImageBatch& operator=(const ImageBatch&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }
  const BatchDescriptor& descriptor() const { return descriptor_; }
  const Shape& shape() const { return descriptor_.shape; }
  bool writable() const { return writable_; }

  /// The host memory of all images, C-contiguous; null where they are not so in memory.
  virtual std::byte* data() const = 0;
  /// The host memory of one image; null where the device keeps it.
  virtual std::byte* image_data(std::int64_t image) const = 0;
  /// Of a view: the image that stands at this place, an image of a storage; else null.
  virtual const Image* source(std::int64_t) const { return nullptr; }
  /// The storage and the place in it that the image really occupies.
  virtual std::pair<const ImageBatch*, std::int64_t> storage(std::int64_t image) const {
    return {this, image};
  }
  /// The addresses that an image occupies, for telling overlaps: its host memory, or those of the
  /// object that stands for it.
  virtual std::pair<std::uintptr_t, std::uintptr_t> extent(std::int64_t image) const;
  /// Copies images [first, first + count) out of or into the storage, in the storage format.
  virtual void download(std::int64_t first, std::int64_t count, std::byte* to) const = 0;
  virtual void upload(std::int64_t first, std::int64_t count, const std::byte* from) = 0;
  /// The engine's own object for one image (Metal: MPSImage*), or null.
  virtual void* native_handle(std::int64_t image) const = 0;

  /// The work that writes these images is done: an engine that borrowed host memory for the results
  /// fills it now.
  virtual void written() {}
  /// Why the host can never read or write these images; empty where it can.
  virtual std::string unreadable() const { return {}; }
  /// Calls `f` with the uses of each storage that the images lie in, and their places there.
  virtual void for_each_use(ImageRange images,
                            const std::function<void(ImageUses&, ImageRange)>& f) const {
    f(uses_, images);
  }
  // The rules of core/image_uses.hpp, for images of any storage.
  void check_readable(ImageRange images) const;
  void check_readable() const { check_readable(all()); }
  void check_usable() const;
  ImageRange all() const { return {0, shape().images}; }

  virtual std::string label(std::int64_t image) const;
  virtual void set_label(std::int64_t image, const std::string& label);

 private:
  const std::shared_ptr<Device> device_;
  const BatchDescriptor descriptor_;
  const bool writable_;
  mutable std::mutex mutex_;
  mutable ImageUses uses_;
  std::map<std::int64_t, std::string> labels_;
};

/// One image of a storage, never of a view: views of views would grow with every step of a loop.
struct Image {
  std::shared_ptr<ImageBatch> batch;
  std::int64_t index = 0;
};

/// The image at a place of any batch.
inline Image image_at(const std::shared_ptr<ImageBatch>& batch, std::int64_t index) {
  const Image* const source = batch->source(index);
  return source != nullptr ? *source : Image{batch, index};
}

/// The values that one forward encode captured for one image, or for the whole batch (MPSState).
struct LossState {
  std::shared_ptr<Device> device;
  std::optional<LossParameters> values;  // empty until a forward encode fills it
  std::shared_ptr<void> native;          // the engine's own state (Metal: MPSState*), or null
  std::string label;
};

/// What an encode captures of a kernel.
struct KernelCapture {
  LossDescriptor descriptor;  // with the properties as they are at that moment
  bool compute_label_gradients = false;
};

/// What a user holds as MPSNNLossGradient and the like. On Metal exactly one kernel object.
class Kernel {
 public:
  Kernel(std::shared_ptr<Device> device, KernelKind kind, const LossDescriptor& descriptor)
      : device_(std::move(device)), kind_(kind), descriptor_(descriptor) {
    properties_.parameters = descriptor.parameters;
  }
  virtual ~Kernel() = default;
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }
  KernelKind kind() const { return kind_; }

  /// The descriptor with the properties as they are at this moment.
  LossDescriptor descriptor() const;
  /// The descriptor that the kernel was made with.
  const LossDescriptor& initial_descriptor() const { return descriptor_; }
  KernelProperties properties() const;
  /// The value of an inherited row.
  PropertyValue inherited(std::size_t row) const;
  /// Throws ValueError naming the first inherited property that was moved away from what a fresh
  /// kernel has: the header calls the result of encoding with one undefined.
  KernelCapture capture() const;
  /// Changes properties under the kernel's mutex. `change` checks and throws before it writes.
  void update(const std::function<void(KernelProperties&)>& change);

  /// NSCopying: a kernel on `device` with every property of this one.
  std::shared_ptr<Kernel> copy(const std::shared_ptr<Device>& device) const;
  virtual void* native_handle() const { return nullptr; }
  /// The archive of the platform's own keyed archiver. StateError where the engine has none.
  virtual std::string archived_data() const;

 protected:
  /// Called under the mutex after a change (Metal: writes it through to the kernel object).
  virtual void store(const KernelProperties&) {}
  /// Called under the mutex before properties are returned (Metal: reads them from the kernel
  /// object).
  virtual void load(KernelProperties&) const {}
  /// What a fresh kernel has in an inherited row.
  virtual PropertyValue fresh_value(std::size_t row) const {
    return inherited_properties(kind_)[row].default_value;
  }
  std::mutex& mutex() const { return mutex_; }

 private:
  const std::shared_ptr<Device> device_;
  const KernelKind kind_;
  const LossDescriptor descriptor_;  // its parameters are the initial ones
  mutable std::mutex mutex_;
  mutable KernelProperties properties_;  // loaded before every use
};

/// The life of a command buffer: encode any number of calls, commit once, wait.
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

  /// Throws StateError where a call may no longer be encoded.
  void check_encodable() const { check_open("encoded into"); }
  /// Records a call. Its outputs are unreadable until the buffer has completed. Throws StateError
  /// where a pending buffer of another queue is in the way (core/image_uses.hpp).
  void encode(const LossCall& call);
  /// Records a call without an output and returns the images that its kernel makes for it.
  /// StateError where the engine has no such kernels.
  std::shared_ptr<ImageBatch> encode(const LossCall& call, ResultAllocator allocator);
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
  /// Adds a function that runs once after the work, on the thread that finished it or on another
  /// (core/completion.hpp). What it throws is lost.
  void on_completed(std::function<void()> handler);

  virtual CommandBufferStatus status() const { return progress_->status; }
  std::exception_ptr error() const;
  /// Begin and end of the work in seconds of one monotonic clock; 0 until finished.
  virtual std::pair<double, double> times() const = 0;
  virtual void* native_handle() const { return nullptr; }
  /// The open buffer that stands first in the queue, so that nothing else of it runs; or null.
  virtual std::shared_ptr<CommandBuffer> gate() const { return nullptr; }

 protected:
  // The call is the caller's: freed under the buffer's mutex, it might wait for the GIL.
  virtual void do_encode(const LossCall& call) = 0;
  virtual std::shared_ptr<ImageBatch> do_encode(const LossCall& call, ResultAllocator allocator);
  virtual void do_enqueue() = 0;
  virtual void do_commit() = 0;   // leads to set_result and complete, now or on another thread
  virtual void do_discard() = 0;  // an enqueued buffer gives up its place
  /// Throws StateError where the buffer's queue can do no more work.
  virtual void check_queue() const {}
  // How an engine ends the buffer's life, once each and in this order:
  /// The device has begun.
  void set_scheduled();
  /// The work is done, or failed with `error`: status and results may be seen. It failed as well
  /// where a buffer that should have written one of its inputs has not completed.
  void set_result(std::exception_ptr error) noexcept;
  /// Has the handlers run, then wakes whoever waits.
  void complete() noexcept;
  /// The same for a thread that must not run handlers.
  void complete_elsewhere() noexcept;
  /// True until commit or discard.
  bool is_open() const {
    return !progress_->discarded && status() < CommandBufferStatus::committed;
  }
  bool has_handlers() const;
  /// What destructors do in place of discard: asks nobody but ourselves whether the buffer was
  /// committed, as what tells otherwise may be on its way out.
  void abandon();

 private:
  class Claim;
  static constexpr int kNotBegun = -1;

  void check_open(const char* action) const;
  void check_devices(const LossRequest& request) const;
  std::exception_ptr input_error() const noexcept;
  void check_may_wait() const;
  void finish() noexcept;

  const std::shared_ptr<Device> device_;
  const std::string label_;
  std::weak_ptr<CommandBuffer> self_;
  const std::shared_ptr<Progress> progress_;
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
  virtual void* native_handle() const { return nullptr; }

 private:
  const std::shared_ptr<Device> device_;
  const std::string label_;
};

/// Called now and then, from the calling thread, while a call waits for its device; null where
/// nobody wants to. What it throws ends the wait.
using Waiting = void (*)();

class Device : public std::enable_shared_from_this<Device> {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;
  virtual std::string kind() const = 0;  // "cpu" | "metal"
  /// Empty where the device can do it, else one sentence why not.
  virtual std::string supports(Format format) const = 0;
  virtual std::string supports(const LossDescriptor& descriptor) const = 0;
  /// Of images: their extents.
  virtual std::string supports_images(const Shape&) const { return {}; }
  /// Of a one-call function, which may lay out its arrays as it likes.
  virtual std::string supports_arrays(const LossDescriptor&, const Shape&) const { return {}; }

  /// New images, zero-filled.
  virtual std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) = 0;
  /// Images on the caller's C-contiguous memory. An engine that shares the memory keeps `owner` as
  /// long as the images live; one that does not uploads a copy.
  virtual std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor,
                                                  std::byte* data, bool writable,
                                                  std::shared_ptr<void> owner) = 0;
  virtual std::shared_ptr<Kernel> make_kernel(KernelKind kind,
                                              const LossDescriptor& descriptor) = 0;
  /// A kernel with every property of another.
  virtual std::shared_ptr<Kernel> copy_kernel(const Kernel& kernel);
  /// A kernel from Kernel::archived_data. ValueError for anything else.
  virtual std::shared_ptr<Kernel> unarchive_kernel(KernelKind kind, std::string_view data);
  virtual std::shared_ptr<Queue> make_queue(const std::string& label) = 0;
  /// Runs a call on host memory and returns when it is done. Needs no kernel, queue or images.
  virtual void compute(const LossCall& call, Waiting waiting) = 0;
  virtual void* native_handle() const { return nullptr; }

  /// Whether an object from outside is this device or one of its own; TypeError where it is not of
  /// the kind.
  virtual bool owns(ForeignKind, void*) const { return false; }
  // An object of the kind that this device owns, retained. StateError or ValueError where it
  // cannot be worked with.
  virtual std::shared_ptr<Queue> adopt_queue(void* object);
  virtual std::shared_ptr<CommandBuffer> adopt_command_buffer(void* object);
  virtual std::shared_ptr<ImageBatch> adopt_images(ForeignKind kind, void* object);
};

}  // namespace mpsnn_loss
