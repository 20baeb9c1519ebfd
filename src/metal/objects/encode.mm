#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "core/error.hpp"
#include "metal/mps/channel_format.hpp"
#include "metal/mps/encode.hpp"
#include "metal/objects/encode.hpp"
#include "metal/objects/expanded_weights.hpp"
#include "metal/objects/inherited_access.hpp"
#include "metal/objects/result_allocator.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss::metal {
namespace {

using States = std::vector<std::shared_ptr<State>>;

objc_ptr<MPSState*>& object_of(State& state) { return static_cast<MetalState&>(state).object; }

/// Metal's own states, one per image; nil where any is missing, as the values are on the kernel
/// anyway.
StateArray state_array(const States& states, std::int64_t images) {
  if (states.empty()) return nil;
  NSMutableArray<MPSState*>* const array =
      [NSMutableArray arrayWithCapacity:static_cast<NSUInteger>(images)];
  for (std::int64_t i = 0; i < images; ++i) {
    State& state = *(states.size() == 1 ? states.front() : states[static_cast<std::size_t>(i)]);
    if (!object_of(state)) return nil;
    [array addObject:object_of(state).get()];
  }
  return array;
}

Operands operands_of(const FullEncode& encode) {
  const std::int64_t images = encode.call.predictions->shape().images;
  const auto array = [&](const std::shared_ptr<ImageBatch>& batch) {
    return batch != nullptr ? image_array(*batch, images) : nil;
  };
  return {array(encode.call.predictions), array(encode.call.labels), array(encode.weights),
          array(encode.call.source_gradients), state_array(encode.call.source_states, images)};
}

/// Keeps the states of a forward encode in ours; there may be fewer, or none.
void keep_states(const States& ours, StateArray states) {
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const bool is_there = states != nil && i < [states count];
    object_of(*ours[i]) =
        is_there ? objc_ptr<MPSState*>::retained([states objectAtIndex:i]) : objc_ptr<MPSState*>();
  }
}

/// Lets the kernel make its own states: now, as no property may change between that and the encode.
StateArray make_states(MPSNNForwardLoss* kernel, const States& ours, ImageArray sources,
                       ImageArray destinations) {
  if (ours.empty()) return nil;
  StateArray states = [kernel resultStateBatchForSourceImage:sources
                                                sourceStates:nil
                                            destinationImage:destinations];
  keep_states(ours, states);
  const bool one_for_all = ours.size() == 1 && [sources count] > 1;
  return one_for_all && states != nil
             ? state_array(ours, static_cast<std::int64_t>([sources count]))
             : states;
}

/// A kernel's allocator and geometry, put back after an encode that overwrites them.
class Untouched {
 public:
  Untouched(KernelKind kind, MPSKernel* kernel, id<MPSImageAllocator> allocator)
      : kind_(kind), kernel_(kernel), before_(get_inherited(kind, kernel)) {
    allocator_ = objc_ptr<id<MPSImageAllocator>>::retained([object() destinationImageAllocator]);
    [object() setDestinationImageAllocator:allocator];
  }
  ~Untouched() {
    [object() setDestinationImageAllocator:allocator_.get()];
    set_inherited(kind_, kernel_, before_);
  }
  Untouched(const Untouched&) = delete;
  Untouched& operator=(const Untouched&) = delete;

 private:
  MPSCNNKernel* object() const {
    return (MPSCNNKernel*)kernel_;
  }  // or a binary one, which has both

  const KernelKind kind_;
  MPSKernel* const kernel_;
  const InheritedValues before_;
  objc_ptr<id<MPSImageAllocator>> allocator_;
};

ImageArray returned_loss(MPSNNForwardLoss* kernel, id<MTLCommandBuffer> buffer, const States& ours,
                         const Operands& o) {
  StateArray states = nil;
  ImageArray results = [kernel encodeBatchToCommandBuffer:buffer
                                             sourceImages:o.predictions
                                                   labels:o.labels
                                                  weights:o.weights
                                        destinationStates:ours.empty() ? nil : &states
                              destinationStateIsTemporary:NO];
  keep_states(ours, states);
  return results;
}

ImageArray returned_results(id<MTLCommandBuffer> buffer, MPSKernel* kernel, const Encode& call,
                            const Operands& o) {
  switch (call.kernel->kind()) {
    case KernelKind::forward_loss:
      return returned_loss((MPSNNForwardLoss*)kernel, buffer, call.destination_states, o);
    case KernelKind::loss_gradient:
      return [(MPSNNLossGradient*)kernel encodeBatchToCommandBuffer:buffer
                                                    sourceGradients:o.source_gradients
                                                       sourceImages:o.predictions
                                                             labels:o.labels
                                                            weights:o.weights
                                                       sourceStates:o.source_states];
    case KernelKind::initial_gradient:
      return [(MPSNNInitialGradient*)kernel encodeBatchToCommandBuffer:buffer
                                                          sourceImages:o.predictions];
  }
  return nil;
}

/// What came back must be what the caller was promised.
void check_results(ImageArray results, const BatchDescriptor& expected) {
  if (static_cast<std::int64_t>([results count]) != expected.shape.images) {
    throw StateError(refusal("the kernel",
                             "return " + std::to_string(expected.shape.images) + " images",
                             std::to_string([results count])));
  }
  for (MPSImage* image in results) {
    const Shape shape{expected.shape.images, static_cast<std::int64_t>([image height]),
                      static_cast<std::int64_t>([image width]),
                      static_cast<std::int64_t>([image featureChannels])};
    if (shape != expected.shape || [image numberOfImages] != 1) {
      throw StateError(refusal("the kernel", "return images of shape " + to_string(expected.shape),
                               to_string(shape)));
    }
    if ([image featureChannelFormat] != channel_format(expected.format)) {
      throw StateError(refusal("the kernel",
                               std::string("return images of ") + info(expected.format).name,
                               "channel format " + std::to_string([image featureChannelFormat])));
    }
  }
}

}  // namespace

FullEncode with_full_weights(const Encode& call) {
  const ImageBatch* const weights = call.weights.get();
  const Shape& full = call.predictions->shape();
  if (weights == nullptr || cover_pixels(weights->shape(), full)) return {call, call.weights};
  weights->check_readable();
  WeightValues read(weights->descriptor());
  weights->download(0, weights->shape().images, read.values.data());
  const WeightValues all = expanded(read.operand("weights"), full);
  const auto images = make_images(weights->device(), all.descriptor);
  images->upload(0, all.descriptor.shape.images, all.values.data());
  return {call, images};
}

void encode_into(id<MTLCommandBuffer> buffer, MPSKernel* kernel, const FullEncode& full) {
  const Encode& call = full.call;
  const Operands o = operands_of(full);
  const ImageArray destinations = image_array(*call.results, call.results->shape().images);
  const KernelKind kind = call.kernel->kind();
  const StateArray states = kind == KernelKind::forward_loss
                                ? make_states((MPSNNForwardLoss*)kernel, call.destination_states,
                                              o.predictions, destinations)
                                : nil;
  encode(buffer, kind, kernel, o, destinations, states);
}

ImageArray encode_returning(id<MTLCommandBuffer> buffer, MPSKernel* kernel, const FullEncode& full,
                            const BatchDescriptor& expected, const MetalImages* made) {
  const Operands o = operands_of(full);
  ImageArray results = nil;
  {
    const ImageArray own = made != nullptr ? image_array(*made, made->shape().images) : nil;
    const Untouched untouched(full.call.kernel->kind(), kernel,
                              result_allocator(expected.format, own));
    results = returned_results(buffer, kernel, full.call, o);
  }
  not_nil(results, "the result images");
  try {
    check_results(results, expected);
  } catch (...) {
    MPSImageBatchIncrementReadCount(results, -1);  // nobody will read them
    throw;
  }
  if (made != nullptr) MPSImageBatchSynchronize(results, buffer);
  return results;
}

}  // namespace mpsnn_loss::metal
