// Command queues of Metal and the command buffers that they make.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "core/error.hpp"
#include "metal/mps/objc_guard.hpp"
#include "metal/objects/command_buffer.hpp"
#include "metal/objects/device.hpp"
#include "metal/objects/queue.hpp"
#include "objects/queue_order.hpp"

namespace mpsnn_loss::metal {
namespace {

/// A queue's commandBuffer blocks for ever where the caller itself holds so many that it never
/// committed.
constexpr int kMostOpenBuffers = 64;

/// The places of one command queue object, which all who wrap it share. Others may hold some too.
class Places {
 public:
  static std::shared_ptr<Places> of(const void* queue) {
    static std::mutex mutex;
    static auto& known = *new std::map<const void*, std::weak_ptr<Places>>;
    const std::lock_guard lock(mutex);
    std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
    auto places = known[queue].lock();
    if (places == nullptr) known[queue] = places = std::make_shared<Places>();
    return places;
  }

  void take() {
    const std::lock_guard lock(mutex_);
    if (open_ >= kMostOpenBuffers) {
      throw StateError(
          "command_queue must have fewer than 64 command buffers that were encoded into and not "
          "committed, got 64");
    }
    ++open_;
  }
  /// The buffer was committed or dropped.
  void give() {
    const std::lock_guard lock(mutex_);
    --open_;
  }

 private:
  std::mutex mutex_;
  int open_ = 0;
};

class MetalQueue final : public Queue, public std::enable_shared_from_this<MetalQueue> {
 public:
  MetalQueue(std::shared_ptr<Device> device, const std::string& label,
             objc_ptr<id<MTLCommandQueue>> queue)
      : Queue(std::move(device), label),
        queue_(std::move(queue)),
        places_(Places::of(queue_.get())) {}
  ~MetalQueue() override {
    const autorelease_pool pool;
    places_ = {};  // before the address may be that of another queue
    queue_ = {};
  }

  std::shared_ptr<CommandBuffer> make_command_buffer(const std::string& label) override;
  id<MTLCommandQueue> object() const { return queue_.get(); }

  /// A Metal buffer, which takes one of the queue's places until it is done.
  objc_ptr<id<MTLCommandBuffer>> open_buffer(const std::string& label) {
    places_->take();
    objc_ptr<id<MTLCommandBuffer>> buffer;
    try {
      guarded("making a command buffer", [&] {
        buffer = objc_ptr<id<MTLCommandBuffer>>::retained(
            not_nil([queue_.get() commandBuffer], "MTLCommandBuffer"));
        if (!label.empty()) [buffer.get() setLabel:[NSString stringWithUTF8String:label.c_str()]];
      });
    } catch (...) {
      places_->give();
      throw;
    }
    return buffer;
  }
  Places& places() { return *places_; }

  QueueOrder& order() { return order_; }
  /// Commits every buffer whose turn it is, in order.
  void submit_ready();

 private:
  objc_ptr<id<MTLCommandQueue>> queue_;
  std::shared_ptr<Places> places_;
  QueueOrder order_;
  std::mutex submission_;
};

class OwnCommandBuffer final : public MetalCommandBuffer {
 public:
  OwnCommandBuffer(std::shared_ptr<MetalQueue> queue, const std::string& label)
      : MetalCommandBuffer(queue->device(), label, queue.get()), queue_(std::move(queue)) {}
  ~OwnCommandBuffer() override {
    abandon();
    const autorelease_pool pool;
    buffer_ = {};
  }

  id<MTLCommandBuffer> object() const override {
    const std::lock_guard lock(opening_);
    return buffer_.get();
  }
  std::pair<double, double> times() const override {
    if (status() < CommandBufferStatus::completed) return {0.0, 0.0};
    return gpu_times(buffer_.get());
  }

  std::shared_ptr<CommandBuffer> gate() const override { return queue_->order().gate(); }

  /// Hands the buffer to Metal, whose handler ends its life.
  void submit() {
    try {
      guarded("committing a command buffer", [&] {
        const auto kept = std::static_pointer_cast<OwnCommandBuffer>(self());
        const auto in_flight = std::make_shared<std::optional<WorkInFlight>>(std::in_place);
        const id<MTLCommandBuffer> buffer = open();
        release_temporaries();
        [buffer addCompletedHandler:^(id<MTLCommandBuffer> completed) {
          kept->complete(completed);
          in_flight->reset();
        }];
        [buffer commit];
      });
    } catch (const std::exception& failure) {
      end(device_failure(failure.what()));
    }
    if (object() != nil) queue_->places().give();
  }

 private:
  id<MTLCommandBuffer> open() override {
    const std::lock_guard lock(opening_);
    if (!buffer_) buffer_ = queue_->open_buffer(label());
    return buffer_.get();
  }
  void do_enqueue() override { place_ = queue_->order().add(this); }
  void do_commit() override {
    queue_->order().commit(*place_, self());
    queue_->submit_ready();
  }
  void do_discard() override {
    if (!is_usable()) return forget();
    if (place_) queue_->order().remove(*place_);
    release_temporaries();
    forget();
    if (buffer_) {
      const autorelease_pool pool;
      buffer_ = {};  // which ends Metal's hold on the place
      queue_->places().give();
    }
    queue_->submit_ready();  // it may have stood before others
  }

  const std::shared_ptr<MetalQueue> queue_;
  std::optional<QueueOrder::Place> place_;  // in the queue, from enqueue to commit
  mutable std::mutex opening_;
  objc_ptr<id<MTLCommandBuffer>> buffer_;  // made at the first encode, or at commit
};

std::shared_ptr<CommandBuffer> MetalQueue::make_command_buffer(const std::string& label) {
  return CommandBuffer::make<OwnCommandBuffer>(shared_from_this(), label);
}

void MetalQueue::submit_ready() {
  const std::lock_guard lock(submission_);
  const auto may_begin = [] { return true; };
  while (const auto buffer = order_.take(may_begin))
    static_cast<OwnCommandBuffer&>(*buffer).submit();
}

}  // namespace

std::shared_ptr<Queue> make_queue(std::shared_ptr<Device> device, const std::string& label) {
  objc_ptr<id<MTLCommandQueue>> queue;
  guarded("making a command queue", [&] {
    queue = objc_ptr<id<MTLCommandQueue>>::adopted(
        not_nil([metal_device(*device) newCommandQueue], "MTLCommandQueue"));
    if (!label.empty()) [queue.get() setLabel:[NSString stringWithUTF8String:label.c_str()]];
  });
  return std::make_shared<MetalQueue>(std::move(device), label, std::move(queue));
}

id<MTLCommandQueue> queue_object(const Queue& queue) {
  return static_cast<const MetalQueue&>(queue).object();
}

std::shared_ptr<Queue> adopt_queue(std::shared_ptr<Device> device, id<MTLCommandQueue> queue) {
  std::string label;
  objc_ptr<id<MTLCommandQueue>> held;
  guarded("adopting a command queue", [&] {
    held = objc_ptr<id<MTLCommandQueue>>::retained(queue);
    if ([held.get() label] != nil) label = [[held.get() label] UTF8String];
  });
  return std::make_shared<MetalQueue>(std::move(device), label, std::move(held));
}

}  // namespace mpsnn_loss::metal
