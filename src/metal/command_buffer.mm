// What every command buffer of Metal does with calls, whoever made the buffer.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

constexpr const char* kTemporary =
    "these images are temporary: only kernels of their command buffer can read them";

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

using Temporaries = std::vector<std::shared_ptr<ImageBatch>>;

void set_read_count(MPSTemporaryImage* image, NSUInteger count) {
  if ([image readCount] != 0 && [image readCount] != count) [image setReadCount:count];
}

/// The temporary images among the inputs of an encode. Whether a kernel lowers a read count once
/// for each image or for each use of it is undocumented, and some are known to forget it. So ours
/// have one more than all uses before the encode, and 1 again after it, until the buffer is
/// committed. Those of others keep the counts that they were given, and are refused at 0.
class ReadCounts {
 public:
  ReadCounts(const LossCall& call, const Temporaries& own) {
    for (const Operand* operand :
         {&call->predictions, &call->labels, &call->weights, &call->source_gradients}) {
      if (operand->images == nullptr) continue;
      const std::int64_t images = operand->shape().images;
      // One image stands for each of the predictions.
      const std::int64_t uses = images == 1 ? call->predictions.shape().images : 1;
      for (std::int64_t i = 0; i < images; ++i) {
        const auto [storage, place] = operand->images->storage(i);
        if (storage->unreadable() != kTemporary) continue;
        auto* const image = (MPSTemporaryImage*)storage->native_handle(place);
        check_alive(*operand, image);
        if (storage->writable()) continue;
        check_own(*operand, storage, own);
        uses_[image] += static_cast<NSUInteger>(uses);
      }
    }
    for (const auto& [image, uses] : uses_) set_read_count(image, 1 + uses);
  }
  ~ReadCounts() {
    for (const auto& [image, uses] : uses_) set_read_count(image, 1);
  }
  ReadCounts(const ReadCounts&) = delete;
  ReadCounts& operator=(const ReadCounts&) = delete;

 private:
  static void check_alive(const Operand& operand, MPSTemporaryImage* image) {
    if ([image readCount] != 0) return;
    throw StateError(
        refusal(operand.name, "be temporary images that have reads left", "one of read count 0"));
  }
  static void check_own(const Operand& operand, const ImageBatch* storage, const Temporaries& own) {
    for (const auto& batch : own) {
      if (batch.get() == storage) return;
    }
    throw StateError(refusal(operand.name,
                             "be read on the command buffer that made them, as they are temporary "
                             "images",
                             "another command buffer"));
  }

  std::map<MPSTemporaryImage*, NSUInteger> uses_;
};

}  // namespace

void check_completed(void* command_buffer) {
  const id<MTLCommandBuffer> buffer = (id<MTLCommandBuffer>)command_buffer;
  if ([buffer status] != MTLCommandBufferStatusCompleted)
    throw DeviceError(describe([buffer error]));
}

std::exception_ptr error_of(void* command_buffer) {
  const autorelease_pool pool;
  try {
    check_completed(command_buffer);
  } catch (const std::exception&) {
    return std::current_exception();
  }
  return nullptr;
}

std::pair<double, double> gpu_times(void* command_buffer) {
  std::pair<double, double> times;
  guarded("reading the times of a command buffer", [&] {
    const id<MTLCommandBuffer> buffer = (id<MTLCommandBuffer>)command_buffer;
    times = {[buffer GPUStartTime], [buffer GPUEndTime]};
  });
  return times;
}

/// The call as Metal can encode it.
ImageCall MetalCommandBuffer::prepared(LossCall call) const {
  if (!call.image_parameters().empty()) {
    throw ValueError(
        "source_states must hold equal values on Metal, as one kernel encodes the whole batch");
  }
  check_call(call);
  auto weights = call->weights.images;
  Shape one_image = call->weights.shape(), full = call->predictions.shape();
  one_image.images = full.images = 1;
  if (weights != nullptr && one_image != full)
    weights = expand(call->weights, call->predictions.shape());
  return {std::move(call), std::move(weights)};
}

void MetalCommandBuffer::do_encode(const LossCall& call) {
  const ImageCall encoded = prepared(call);
  auto& kernel = static_cast<MetalKernel&>(*encoded.call->kernel);
  guarded("encoding", [&] {
    void* const buffer = open();
    const ReadCounts counts(encoded.call, temporaries_);
    kernel.encode_with(encoded.call, [&](void* object) { encode_call(buffer, object, encoded); });
  });
  calls_.push_back(encoded);
}

std::shared_ptr<ImageBatch> MetalCommandBuffer::do_encode(const LossCall& call,
                                                          ResultAllocator allocator) {
  const ImageCall encoded = prepared(call);
  auto& kernel = static_cast<MetalKernel&>(*encoded.call->kernel);
  const bool temporary = allocator == ResultAllocator::temporary_image;
  const auto made =
      temporary ? nullptr : make_images(device(), result_descriptor(*encoded.call), false);
  std::shared_ptr<ImageBatch> results;
  guarded("encoding", [&] {
    void* const buffer = open();
    const ReadCounts counts(encoded.call, temporaries_);
    kernel.encode_with(encoded.call, [&](void* object) {
      void* const images = encode_returning(buffer, object, encoded, made.get());
      results = hold_images(device(), result_descriptor(*encoded.call), images, !temporary,
                            temporary ? kTemporary : "");
    });
  });
  calls_.push_back(encoded);
  (temporary ? temporaries_ : returned_).push_back(results);
  return results;
}

void MetalCommandBuffer::release_temporaries() {
  guarded("releasing temporary images", [&] {
    for (const auto& batch : temporaries_) {
      for (std::int64_t i = 0; i < batch->shape().images; ++i)
        set_read_count((MPSTemporaryImage*)batch->native_handle(i), 0);
    }
  });
  temporaries_.clear();
}

void MetalCommandBuffer::complete(void* command_buffer, std::exception_ptr error) {
  const autorelease_pool pool;
  try {
    if (error == nullptr) error = error_of(command_buffer);
    if (error != nullptr) return end(error);
    for (const ImageCall& encoded : calls_) {
      for (const Operand* output : {&encoded.call->loss, &encoded.call->gradient}) {
        if (output->images != nullptr) output->images->written();
      }
    }
  } catch (const std::exception& failure) {
    error = device_failure(failure.what());
  }
  end(error);
}

void MetalCommandBuffer::end(std::exception_ptr error) {
  forget();
  set_result(error);
  // A handler may wait for another buffer, whose own handler needs this thread of the driver.
  complete_elsewhere();
}

void MetalCommandBuffer::check_queue() const {
  if (made_in_ == forks()) return;
  throw StateError(
      "command_buffer must not be used in this process, which was forked after the buffer was "
      "made: Metal does not work in a child");
}

}  // namespace mpsnn_loss::metal
