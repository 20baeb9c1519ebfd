// Command queues and command buffers of Metal.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/queue_order.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

/// A queue's commandBuffer blocks for ever where the caller itself holds so many that it never
/// committed.
constexpr int kMostOpenBuffers = 64;

std::string describe(NSError* error) {
  if (error == nil) return "the command buffer did not complete";
  return std::string([[error domain] UTF8String]) + " " + std::to_string([error code]) + ": " +
         [[error localizedDescription] UTF8String];
}

/// Weights of the predictions' full shape, as broadcasting them is undocumented. Over the batch
/// alone it is not needed: one image stands for all.
std::shared_ptr<ImageBatch> expand(const Operand& weights, const Shape& full) {
  weights.images->check_readable();
  const BatchDescriptor& from = weights.descriptor;
  BatchDescriptor to{full, from.format};
  to.shape.images = from.shape.images;
  const auto size = static_cast<std::size_t>(info(from.format).size);
  std::vector<std::byte> source(static_cast<std::size_t>(from.bytes())),
      target(static_cast<std::size_t>(to.bytes()));
  weights.images->download(0, from.shape.images, source.data());
  const auto index = [&](std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
    const Shape& s = from.shape;
    return static_cast<std::size_t>(
        ((n * s.height + (s.height == 1 ? 0 : h)) * s.width + (s.width == 1 ? 0 : w)) * s.channels +
        (s.channels == 1 ? 0 : c));
  };
  std::byte* at = target.data();
  for (std::int64_t n = 0; n < to.shape.images; ++n) {
    for (std::int64_t h = 0; h < full.height; ++h) {
      for (std::int64_t w = 0; w < full.width; ++w) {
        for (std::int64_t c = 0; c < full.channels; ++c, at += size)
          std::memcpy(at, source.data() + index(n, h, w, c) * size, size);
      }
    }
  }
  auto images = make_images(weights.images->device(), to, false);
  images->upload(0, to.shape.images, target.data());
  return images;
}

/// The call as Metal can encode it.
LossCall prepare(LossCall call) {
  if (!call.image_parameters().empty()) {
    throw ValueError(
        "source_states must hold equal values on Metal, as one kernel encodes the whole batch");
  }
  if (!call->weights) return call;
  Shape one_image = call->weights.shape(), full = call->predictions.shape();
  one_image.images = full.images = 1;
  if (one_image == full) return call;
  LossRequest request = *call;
  request.weights =
      make_operand(request.weights.name, expand(request.weights, call->predictions.shape()));
  return LossCall(std::move(request));
}

class MetalCommandBuffer;

class MetalQueue final : public Queue, public std::enable_shared_from_this<MetalQueue> {
 public:
  MetalQueue(std::shared_ptr<Device> device, const std::string& label)
      : Queue(std::move(device), label) {
    guarded("making a command queue", [&] {
      queue_ = objc_ptr<id<MTLCommandQueue>>::adopted(not_nil(
          [(id<MTLDevice>)this->device()->native_handle() newCommandQueue], "MTLCommandQueue"));
      if (!label.empty()) [queue_.get() setLabel:[NSString stringWithUTF8String:label.c_str()]];
    });
  }

  std::shared_ptr<CommandBuffer> make_command_buffer(const std::string& label) override;
  void* native_handle() const override { return queue_.get(); }

  /// A Metal buffer, which takes one of the queue's places until it has completed.
  objc_ptr<id<MTLCommandBuffer>> open_buffer(const std::string& label) {
    if (open_.fetch_add(1) >= kMostOpenBuffers) {
      open_.fetch_sub(1);
      throw StateError(
          "command_queue must have fewer than 64 encoded buffers that were not committed, got 64");
    }
    objc_ptr<id<MTLCommandBuffer>> buffer;
    guarded("making a command buffer", [&] {
      buffer = objc_ptr<id<MTLCommandBuffer>>::retained([queue_.get() commandBuffer]);
      if (buffer && !label.empty())
        [buffer.get() setLabel:[NSString stringWithUTF8String:label.c_str()]];
    });
    if (!buffer) close_buffer();
    return objc_ptr<id<MTLCommandBuffer>>::retained(not_nil(buffer.get(), "MTLCommandBuffer"));
  }
  /// The buffer was committed or dropped.
  void close_buffer() { open_.fetch_sub(1); }

  QueueOrder& order() { return order_; }
  /// Commits every buffer whose turn it is, in order.
  void submit_ready();

 private:
  objc_ptr<id<MTLCommandQueue>> queue_;
  std::atomic<int> open_{0};
  QueueOrder order_;
  std::mutex submission_;
};

class MetalCommandBuffer final : public CommandBuffer {
 public:
  MetalCommandBuffer(std::shared_ptr<MetalQueue> queue, const std::string& label)
      : CommandBuffer(queue->device(), label, queue.get()), queue_(std::move(queue)) {}
  ~MetalCommandBuffer() override {
    discard();
    const autorelease_pool pool;
    buffer_ = {};
  }

  void* native_handle() const override { return buffer_.get(); }
  std::pair<double, double> times() const override {
    if (status() < CommandBufferStatus::completed) return {0.0, 0.0};
    return {[buffer_.get() GPUStartTime], [buffer_.get() GPUEndTime]};
  }

  /// Hands the buffer to Metal, whose handler ends its life.
  void submit() {
    guarded("committing a command buffer", [&] {
      const auto self = std::static_pointer_cast<MetalCommandBuffer>(shared_from_this());
      [buffer_.get() addCompletedHandler:^(id<MTLCommandBuffer> buffer) {
        self->complete(buffer);
      }];
      [buffer_.get() commit];
    });
    queue_->close_buffer();
  }

 private:
  void open() {
    if (!buffer_) buffer_ = queue_->open_buffer(label());
  }
  void do_encode(LossCall call) override {
    open();
    LossCall prepared = prepare(std::move(call));
    guarded("encoding", [&] { encode_call(buffer_.get(), prepared); });
    calls_.push_back(std::move(prepared));
  }
  void do_enqueue() override {
    open();
    queue_->order().add(this);
  }
  void do_commit() override {
    queue_->order().commit(shared_from_this());
    queue_->submit_ready();
  }
  void do_discard() override {
    queue_->order().remove(this);
    if (buffer_) queue_->close_buffer();
    calls_.clear();
    queue_->submit_ready();  // it may have stood before others
  }

  /// On a thread of the driver: results to the host, then status and handlers.
  void complete(id<MTLCommandBuffer> buffer) {
    const autorelease_pool pool;
    std::exception_ptr error;
    try {
      if ([buffer status] != MTLCommandBufferStatusCompleted)
        throw DeviceError(describe([buffer error]));
      for (const LossCall& call : calls_) {
        for (const Operand* output : {&call->loss, &call->gradient}) {
          if (output->images != nullptr) output->images->written();
        }
      }
    } catch (const DeviceError&) {
      error = std::current_exception();
    } catch (const std::exception& failure) {
      error = std::make_exception_ptr(DeviceError(failure.what()));
    }
    calls_.clear();
    set_result(error);
    finish();
  }

  const std::shared_ptr<MetalQueue> queue_;
  objc_ptr<id<MTLCommandBuffer>> buffer_;  // made at the first encode
  std::vector<LossCall> calls_;            // keeps the images until completion
};

std::shared_ptr<CommandBuffer> MetalQueue::make_command_buffer(const std::string& label) {
  return std::make_shared<MetalCommandBuffer>(shared_from_this(), label);
}

void MetalQueue::submit_ready() {
  const std::lock_guard lock(submission_);
  while (const auto buffer = order_.take()) static_cast<MetalCommandBuffer&>(*buffer).submit();
}

}  // namespace

std::shared_ptr<Queue> make_queue(std::shared_ptr<Device> device, const std::string& label) {
  return std::make_shared<MetalQueue>(std::move(device), label);
}

}  // namespace mpsnn_loss::metal
