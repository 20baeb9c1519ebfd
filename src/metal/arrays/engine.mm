#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "metal/arrays/engine.hpp"
#include "metal/arrays/packed_call.hpp"
#include "metal/mps/channel_format.hpp"
#include "metal/mps/limits.hpp"
#include "metal/mps/objc_guard.hpp"

namespace mpsnn_loss::metal {
namespace {

std::string unsupported_format(Format format) {
  if (has_channel_format(format)) return {};
  return std::string("metal: ") + info(format).name +
         " is not a storage format of Metal images; float16 and float32 are";
}

std::string unsupported_loss(const LossDescriptor& descriptor) {
  const LossInfo& loss = info(descriptor.loss_type);
  if (!loss.is_apples) return std::string("metal: ") + loss.name + " is not a loss of Apple's";
  if (@available(macOS 11.0, *)) return {};
  return descriptor.reduces_across_batch() ? "metal: reduce_across_batch needs macOS 11 or newer"
                                           : "";
}

/// Pixels go into rectangles of any size, and so do elements that do not depend on their
/// neighbours.
std::string unsupported_array(const LossDescriptor& descriptor, const Shape& shape) {
  if (!info(descriptor.loss_type).keeps_channels_together()) return {};
  return unsupported_size({1, 1, 1, shape.channels});
}

}  // namespace

MetalEngine::MetalEngine(std::shared_ptr<OwnQueue> queue)
    : name_([[queue->device() name] UTF8String]), queue_(std::move(queue)) {}

std::string MetalEngine::supports(const Need& need) const {
  std::string reason;
  if (need.format) reason = unsupported_format(*need.format);
  if (reason.empty() && need.work == Work::initial_gradient)
    reason = "metal: an initial gradient is made by its kernel alone";
  if (reason.empty() && need.work == Work::gradient_and_hessian)
    reason = "metal: Apple's kernels compute no Hessian";
  if (reason.empty() && need.loss) reason = unsupported_loss(*need.loss);
  if (reason.empty() && need.loss && need.shape)
    reason = unsupported_array(*need.loss, *need.shape);
  return reason;
}

std::int64_t MetalEngine::most_bytes() const {
  // A quarter of what Metal recommends: the images of the buffer before may still be there.
  constexpr std::uint64_t kUnknown = std::uint64_t{1} << 30, kShare = 4;
  const std::uint64_t whole = [device() recommendedMaxWorkingSetSize];
  return static_cast<std::int64_t>((whole == 0 ? kUnknown : whole) / kShare);
}

void MetalEngine::compute(const Computation& computation, Waiting waiting) {
  guarded("computing", [&] { compute_packed(*this, computation, waiting); });
}

}  // namespace mpsnn_loss::metal
