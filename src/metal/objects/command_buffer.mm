#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <map>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "metal/mps/objc_guard.hpp"
#include "metal/objects/command_buffer.hpp"

namespace mpsnn_loss::metal {
namespace {

using Temporaries = std::vector<std::shared_ptr<MetalImages>>;

void set_read_count(MPSTemporaryImage* image, NSUInteger count) {
  if ([image readCount] != 0 && [image readCount] != count) [image setReadCount:count];
}

/// The temporary images among the inputs of an encode. Whether a kernel lowers a read count once
/// for each image or for each use of it is undocumented, and some are known to forget it. So ours
/// have one more than all uses before the encode, and 1 again after it, until the buffer is
/// committed. Those of others keep the counts that they were given, and are refused at 0.
class ReadCounts {
 public:
  ReadCounts(const FullEncode& encode, const Temporaries& own) {
    const std::int64_t predictions = encode.call.predictions->shape().images;
    for_each_input(encode.call, [&](const char* name, const ImageBatch& batch) {
      const std::int64_t images = batch.shape().images;
      // One image stands for each of the predictions.
      const std::int64_t uses = images == 1 ? predictions : 1;
      for (std::int64_t i = 0; i < images; ++i) {
        const auto [storage, place] = metal_storage(batch, i);
        if (storage->access() != Access::temporary) continue;
        auto* const image = (MPSTemporaryImage*)storage->image(place);
        check_alive(name, image);
        if (storage->writable()) continue;
        check_own(name, storage, own);
        uses_[image] += static_cast<NSUInteger>(uses);
      }
    });
    for (const auto& [image, uses] : uses_) set_read_count(image, 1 + uses);
  }
  ~ReadCounts() {
    for (const auto& [image, uses] : uses_) set_read_count(image, 1);
  }
  ReadCounts(const ReadCounts&) = delete;
  ReadCounts& operator=(const ReadCounts&) = delete;

 private:
  static void check_alive(const char* name, MPSTemporaryImage* image) {
    if ([image readCount] != 0) return;
    throw StateError(
        refusal(name, "be temporary images that have reads left", "one of read count 0"));
  }
  static void check_own(const char* name, const MetalImages* storage, const Temporaries& own) {
    for (const auto& batch : own) {
      if (batch.get() == storage) return;
    }
    throw StateError(refusal(name,
                             "be read on the command buffer that made them, as they are temporary "
                             "images",
                             "another command buffer"));
  }

  std::map<MPSTemporaryImage*, NSUInteger> uses_;
};

}  // namespace

std::exception_ptr error_of(id<MTLCommandBuffer> buffer) {
  const autorelease_pool pool;
  try {
    check_completed(buffer);
  } catch (const std::exception&) {
    return std::current_exception();
  }
  return nullptr;
}

std::pair<double, double> gpu_times(id<MTLCommandBuffer> buffer) {
  std::pair<double, double> times;
  guarded("reading the times of a command buffer",
          [&] { times = {[buffer GPUStartTime], [buffer GPUEndTime]}; });
  return times;
}

std::shared_ptr<ImageBatch> MetalCommandBuffer::do_encode(
    const std::shared_ptr<const EncodedCall>& encoded) {
  const Encode& call = encoded->call;
  const Computation& computation = encoded->computation;
  if (!computation->image_parameters.empty()) {
    throw ValueError(
        "source_states must hold equal values on Metal, as one kernel encodes the whole batch");
  }
  const FullEncode encode = with_full_weights(call);
  auto& kernel = static_cast<MetalKernel&>(*call.kernel);
  const BatchDescriptor expected = result_descriptor(*computation);
  const bool temporary = call.allocator == ResultAllocator::temporary_image;
  const auto made = call.allocator && !temporary ? make_images(device(), expected) : nullptr;
  std::shared_ptr<MetalImages> returned;
  if (encodes_.size() == encodes_.capacity()) encodes_.reserve(2 * encodes_.size() + 1);
  guarded("encoding", [&] {
    const id<MTLCommandBuffer> buffer = open();
    const ReadCounts counts(encode, temporaries_);
    kernel.encode_with(*computation, [&](MPSKernel* object) {
      if (!call.allocator) return encode_into(buffer, object, encode);
      const ImageArray images = encode_returning(buffer, object, encode, expected, made.get());
      returned =
          std::make_shared<MetalImages>(device(), expected, objc_ptr<ImageArray>::retained(images),
                                        !temporary, temporary ? Access::temporary : Access::host);
    });
  });
  encodes_.push_back(encode);
  if (returned == nullptr) return nullptr;
  (temporary ? temporaries_ : returned_).push_back(returned);
  return returned;
}

void MetalCommandBuffer::release_temporaries() {
  guarded("releasing temporary images", [&] {
    for (const auto& batch : temporaries_) {
      for (std::int64_t i = 0; i < batch->shape().images; ++i)
        set_read_count((MPSTemporaryImage*)batch->image(i), 0);
    }
  });
  temporaries_.clear();
}

void MetalCommandBuffer::complete(id<MTLCommandBuffer> buffer, std::exception_ptr error) {
  const autorelease_pool pool;
  try {
    if (error == nullptr) error = error_of(buffer);
    if (error != nullptr) return end(error);
    for (const FullEncode& encode : encodes_) {
      const auto& results = encode.call.results;
      if (results != nullptr) results->work_ended(results->all());
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
