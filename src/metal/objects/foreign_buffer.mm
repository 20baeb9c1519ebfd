// Command buffers that somebody else made, and may commit without our seeing it.
//
// The buffer's completed handler owns our object, which keeps the images alive and does not own the
// buffer: so a buffer that is dropped frees both. What callers hold owns the buffer too.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "core/error.hpp"
#include "metal/mps/objc_guard.hpp"
#include "metal/objects/command_buffer.hpp"
#include "metal/objects/foreign_objects.hpp"

namespace mpsnn_loss::metal {
namespace {

/// The buffer that is really committed: an MPSCommandBuffer goes on with another after
/// commitAndContinue.
id<MTLCommandBuffer> root_of(id<MTLCommandBuffer> buffer) {
  if (![(id)buffer isKindOfClass:[MPSCommandBuffer class]]) return buffer;
  return [(MPSCommandBuffer*)buffer rootCommandBuffer];
}

bool has_destination(const ImageBatch& batch) {
  for (std::int64_t i = 0; i < batch.shape().images; ++i) {
    if (metal_storage(batch, i).first->has_destination()) return true;
  }
  return false;
}

class ForeignCommandBuffer final : public MetalCommandBuffer {
 public:
  ForeignCommandBuffer(std::shared_ptr<Device> device, const std::string& label,
                       id<MTLCommandBuffer> buffer)
      : MetalCommandBuffer(std::move(device), label, nullptr),
        buffer_(buffer),
        root_(root_of(buffer)) {}
  ~ForeignCommandBuffer() override { abandon(); }

  /// From now on the handler of the root ends our life.
  void listen() {
    const auto kept = std::static_pointer_cast<ForeignCommandBuffer>(self());
    [root_ addCompletedHandler:^(id<MTLCommandBuffer> completed) {
      kept->ended(completed);
    }];
  }
  /// Nobody is left who asks.
  void let_go() {
    const std::lock_guard lock(root_mutex_);
    continued_ = {};
  }

  id<MTLCommandBuffer> object() const override { return buffer_; }
  /// Completion comes from our handler; whether somebody committed, only the buffer knows.
  CommandBufferStatus status() const override {
    const CommandBufferStatus known = CommandBuffer::status();
    if (known >= CommandBufferStatus::completed || !is_usable()) return known;
    const std::lock_guard lock(root_mutex_);
    const auto seen = static_cast<CommandBufferStatus>([root_ status]);
    return std::max(known, std::min(seen, CommandBufferStatus::scheduled));
  }
  std::pair<double, double> times() const override {
    if (status() < CommandBufferStatus::completed) return {0.0, 0.0};
    return gpu_times(root_);
  }

 private:
  id<MTLCommandBuffer> open() override {
    if (root_of(buffer_) == root_) return buffer_;
    throw StateError(
        "command_buffer must not have been committed and continued since it was adopted: adopt it "
        "again");
  }
  /// On a thread of the driver. A root that the buffer has gone on from ends nothing, but it may
  /// have failed.
  void ended(id<MTLCommandBuffer> completed) {
    std::exception_ptr failure;
    {
      const std::lock_guard lock(root_mutex_);
      if (failure_ == nullptr) failure_ = error_of(completed);
      if (completed != root_) return;
      failure = failure_;
    }
    complete(completed, failure);
  }
  /// An encode, during which no root ends anything.
  class Encoding {
   public:
    explicit Encoding(ForeignCommandBuffer& buffer) : buffer_(buffer), lock_(buffer.root_mutex_) {}
    ~Encoding() { buffer_.follow(); }
    Encoding(const Encoding&) = delete;
    Encoding& operator=(const Encoding&) = delete;

   private:
    ForeignCommandBuffer& buffer_;
    const std::lock_guard<std::mutex> lock_;
  };

  /// Any method may commit an MPSCommandBuffer and go on with another root, an encode too
  /// (MPSCommandBuffer.h): the end of that one is then ours.
  void follow() {
    if (!is_usable()) return;
    @autoreleasepool {
      const id<MTLCommandBuffer> root = root_of(buffer_);
      if (root == root_) return;
      root_ = root;
      continued_ = objc_ptr<id<MTLCommandBuffer>>::retained(root);
      listen();
    }
  }
  std::shared_ptr<ImageBatch> do_encode(
      const std::shared_ptr<const EncodedCall>& encoded) override {
    const Encode& call = encoded->call;
    if (call.allocator == ResultAllocator::temporary_image) {
      throw StateError(
          "allocator must be None or 'image' where the command buffer is another's, got "
          "'temporary_image': temporary images must go before a commit, which is not seen");
    }
    // Nobody would copy results to an array, as nobody of us need be there when they come.
    if (call.results != nullptr && has_destination(*call.results)) {
      throw TypeError(refusal(name_of_results(call.kernel->kind()),
                              "be images where the command buffer is another's", "an array"));
    }
    const Encoding encoding(*this);
    return MetalCommandBuffer::do_encode(encoded);
  }

  void do_enqueue() override {
    guarded("enqueuing a command buffer", [&] { [buffer_ enqueue]; });
  }
  void do_commit() override {
    guarded("committing a command buffer", [&] { [buffer_ commit]; });
  }
  void do_discard() override {}  // it may still be committed, and needs its images then

  const id<MTLCommandBuffer> buffer_;         // not retained
  id<MTLCommandBuffer> root_;                 // not retained either, as its handler owns us
  objc_ptr<id<MTLCommandBuffer>> continued_;  // a later root, while somebody may ask for it
  mutable std::mutex root_mutex_;
  std::exception_ptr failure_;  // of an earlier root
};

}  // namespace

std::shared_ptr<CommandBuffer> adopt_command_buffer(std::shared_ptr<Device> device,
                                                    id<MTLCommandBuffer> given) {
  struct Held {
    objc_ptr<id<MTLCommandBuffer>> buffer, root;
    std::shared_ptr<ForeignCommandBuffer> ours;
    ~Held() {
      const autorelease_pool pool;
      if (ours != nullptr) ours->let_go();
      ours = {};
      root = buffer = {};
    }
  };
  const auto held = std::make_shared<Held>();
  guarded("adopting a command buffer", [&] {
    held->buffer = objc_ptr<id<MTLCommandBuffer>>::retained(given);
    held->root = objc_ptr<id<MTLCommandBuffer>>::retained(root_of(given));
    if ([held->root.get() status] >= MTLCommandBufferStatusCommitted)
      throw StateError("command_buffer must not be committed yet to be adopted");
    const std::string label = [given label] != nil ? [[given label] UTF8String] : "";
    held->ours = CommandBuffer::make<ForeignCommandBuffer>(std::move(device), label, given);
    held->ours->listen();
  });
  return {held, held->ours.get()};
}

}  // namespace mpsnn_loss::metal
