// One call with one kernel onto one command buffer, through either variant of encodeBatch.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "core/error.hpp"
#include "metal/channel_format.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

using ImageArray = NSArray<MPSImage*>*;
using StateArray = NSArray<MPSState*>*;

/// The operands of a call as Metal takes them; nil where there is none.
struct Operands {
  ImageArray predictions, labels, weights, source_gradients;
  StateArray source_states;
};

ImageArray images_of(const Operand& operand, std::int64_t count) {
  return operand ? (ImageArray)image_array(*operand.images, count) : nil;
}

/// Metal's own states, one per image; nil where any is missing, as the values are on the kernel
/// anyway.
StateArray state_array(const std::vector<std::shared_ptr<LossState>>& states, std::int64_t images) {
  if (states.empty()) return nil;
  NSMutableArray<MPSState*>* const array =
      [NSMutableArray arrayWithCapacity:static_cast<NSUInteger>(images)];
  for (std::int64_t i = 0; i < images; ++i) {
    const auto& state = states.size() == 1 ? states.front() : states[static_cast<std::size_t>(i)];
    if (state->native == nullptr) return nil;
    [array addObject:(MPSState*)state->native.get()];
  }
  return array;
}

Operands operands_of(const ImageCall& image_call) {
  const LossRequest& r = *image_call.call;
  const std::int64_t images = r.predictions.shape().images;
  return {images_of(r.predictions, images), images_of(r.labels, images),
          image_call.weights ? (ImageArray)image_array(*image_call.weights, images) : nil,
          images_of(r.source_gradients, images), state_array(r.source_states, images)};
}

/// Keeps the states of a forward encode in ours; there may be fewer, or none.
void keep_states(const std::vector<std::shared_ptr<LossState>>& ours, StateArray states) {
  for (std::size_t i = 0; i < ours.size(); ++i) {
    ours[i]->native.reset();
    if (states == nil || i >= [states count]) continue;
    ours[i]->native = {(void*)[[states objectAtIndex:i] retain], [](void* state) {
                         const autorelease_pool pool;
                         release((id)state);
                       }};
  }
}

/// Lets the kernel make its own states: now, as no property may change between that and the encode.
StateArray make_states(MPSNNForwardLoss* kernel, const LossRequest& request, ImageArray sources,
                       ImageArray destinations) {
  if (request.destination_states.empty()) return nil;
  StateArray states = [kernel resultStateBatchForSourceImage:sources
                                                sourceStates:nil
                                            destinationImage:destinations];
  keep_states(request.destination_states, states);
  const bool one_for_all = request.destination_states.size() == 1 && [sources count] > 1;
  return one_for_all && states != nil
             ? state_array(request.destination_states, static_cast<std::int64_t>([sources count]))
             : states;
}

/// A kernel's allocator and geometry, put back after an encode that overwrites them.
class Untouched {
 public:
  Untouched(KernelKind kind, void* kernel, id<MPSImageAllocator> allocator)
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
  void* const kernel_;
  const InheritedValues before_;
  objc_ptr<id<MPSImageAllocator>> allocator_;
};

KernelKind kind_of(const LossCall& call) {
  switch (call->work) {
    case Work::loss: return KernelKind::forward_loss;
    case Work::gradient: return KernelKind::loss_gradient;
    case Work::initial_gradient: return KernelKind::initial_gradient;
    case Work::loss_and_gradient: break;
  }
  throw StateError("a fused call has no kernel of Apple's");
}

ImageArray returned_loss(MPSNNForwardLoss* kernel, id<MTLCommandBuffer> buffer,
                         const LossRequest& request, const Operands& o) {
  StateArray states = nil;
  const bool wants_states = !request.destination_states.empty();
  ImageArray results = [kernel encodeBatchToCommandBuffer:buffer
                                             sourceImages:o.predictions
                                                   labels:o.labels
                                                  weights:o.weights
                                        destinationStates:wants_states ? &states : nil
                              destinationStateIsTemporary:NO];
  keep_states(request.destination_states, states);
  return results;
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

void encode_call(void* command_buffer, void* kernel, const ImageCall& image_call) {
  const LossCall& call = image_call.call;
  const id<MTLCommandBuffer> buffer = (id<MTLCommandBuffer>)command_buffer;
  const LossRequest& request = *call;
  const Operand& output = request.work == Work::loss ? request.loss : request.gradient;
  const ImageArray destinations = images_of(output, output.shape().images);
  const Operands o = operands_of(image_call);
  switch (kind_of(call)) {
    case KernelKind::forward_loss:
      [(MPSNNForwardLoss*)kernel
          encodeBatchToCommandBuffer:buffer
                        sourceImages:o.predictions
                              labels:o.labels
                             weights:o.weights
                   destinationStates:make_states((MPSNNForwardLoss*)kernel, request, o.predictions,
                                                 destinations)
                   destinationImages:destinations];
      break;
    case KernelKind::loss_gradient:
      [(MPSNNLossGradient*)kernel encodeBatchToCommandBuffer:buffer
                                             sourceGradients:o.source_gradients
                                                sourceImages:o.predictions
                                                      labels:o.labels
                                                     weights:o.weights
                                                sourceStates:o.source_states
                                        destinationGradients:destinations];
      break;
    case KernelKind::initial_gradient:
      [(MPSNNInitialGradient*)kernel encodeBatchToCommandBuffer:buffer
                                                   sourceImages:o.predictions
                                              destinationImages:destinations];
      break;
  }
  // Whoever commits, the results must be visible to the host afterwards (managed storage).
  MPSImageBatchSynchronize(destinations, buffer);
}

void* encode_returning(void* command_buffer, void* kernel, const ImageCall& image_call,
                       const ImageBatch* images) {
  const LossCall& call = image_call.call;
  const id<MTLCommandBuffer> buffer = (id<MTLCommandBuffer>)command_buffer;
  const LossRequest& request = *call;
  const BatchDescriptor expected = result_descriptor(*call);
  const Operands o = operands_of(image_call);
  ImageArray results = nil;
  {
    void* const own = images != nullptr ? image_array(*images, images->shape().images) : nullptr;
    const Untouched untouched(kind_of(call), kernel,
                              (id<MPSImageAllocator>)result_allocator(expected.format, own));
    switch (kind_of(call)) {
      case KernelKind::forward_loss:
        results = returned_loss((MPSNNForwardLoss*)kernel, buffer, request, o);
        break;
      case KernelKind::loss_gradient:
        results = [(MPSNNLossGradient*)kernel encodeBatchToCommandBuffer:buffer
                                                         sourceGradients:o.source_gradients
                                                            sourceImages:o.predictions
                                                                  labels:o.labels
                                                                 weights:o.weights
                                                            sourceStates:o.source_states];
        break;
      case KernelKind::initial_gradient:
        results = [(MPSNNInitialGradient*)kernel encodeBatchToCommandBuffer:buffer
                                                               sourceImages:o.predictions];
        break;
    }
  }
  not_nil(results, "the result images");
  try {
    check_results(results, expected);
  } catch (...) {
    MPSImageBatchIncrementReadCount(results, -1);  // nobody will read them
    throw;
  }
  if (images != nullptr) MPSImageBatchSynchronize(results, buffer);
  return results;
}

}  // namespace mpsnn_loss::metal
