// One call onto one command buffer, through the selectors with destinations.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <cstring>
#include <utility>

#include "core/error.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

using ImageArray = NSArray<MPSImage*>*;

ImageArray images_of(const Operand& operand, std::int64_t count) {
  return (ImageArray)image_array(*operand.images, count);
}

/// Metal's own states, one per image; nil where any is missing, as the values are on the kernel
/// anyway.
NSArray<MPSState*>* state_array(const std::vector<std::shared_ptr<LossState>>& states,
                                std::int64_t images) {
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

/// Lets the kernel make its own states and keeps them in ours.
NSArray<MPSState*>* make_states(MPSNNForwardLoss* kernel, const LossRequest& request,
                                ImageArray sources, ImageArray destinations) {
  if (request.destination_states.empty()) return nil;
  NSArray<MPSState*>* const states = [kernel resultStateBatchForSourceImage:sources
                                                               sourceStates:nil
                                                           destinationImage:destinations];
  for (std::size_t i = 0; i < request.destination_states.size(); ++i) {
    auto& native = request.destination_states[i]->native;
    native.reset();
    if (states == nil || i >= [states count]) continue;
    native = {(void*)[[states objectAtIndex:i] retain],
              [](void* state) { [(MPSState*)state release]; }};
  }
  return states;
}

void encode_forward(MPSNNForwardLoss* kernel, id<MTLCommandBuffer> buffer, const LossRequest& r,
                    ImageArray destinations) {
  const std::int64_t images = r.predictions.shape().images;
  const ImageArray sources = images_of(r.predictions, images);
  [kernel encodeBatchToCommandBuffer:buffer
                        sourceImages:sources
                              labels:images_of(r.labels, images)
                             weights:r.weights ? images_of(r.weights, images) : nil
                   destinationStates:make_states(kernel, r, sources, destinations)
                   destinationImages:destinations];
}

void encode_gradient(MPSNNLossGradient* kernel, id<MTLCommandBuffer> buffer, const LossRequest& r,
                     ImageArray destinations) {
  const std::int64_t images = r.predictions.shape().images;
  [kernel encodeBatchToCommandBuffer:buffer
                     sourceGradients:images_of(r.source_gradients, images)
                        sourceImages:images_of(r.predictions, images)
                              labels:images_of(r.labels, images)
                             weights:r.weights ? images_of(r.weights, images) : nil
                        sourceStates:state_array(r.source_states, images)
                destinationGradients:destinations];
}

}  // namespace

void encode_call(void* command_buffer, const LossCall& call) {
  const id<MTLCommandBuffer> buffer = (id<MTLCommandBuffer>)command_buffer;
  const LossRequest& request = *call;
  const Operand& output = request.work == Work::loss ? request.loss : request.gradient;
  const ImageArray destinations = images_of(output, output.shape().images);
  auto& kernel = static_cast<MetalKernel&>(*request.kernel);
  kernel.encode_with(call, [&](void* object) {
    switch (request.work) {
      case Work::loss:
        encode_forward((MPSNNForwardLoss*)object, buffer, request, destinations);
        break;
      case Work::gradient:
        encode_gradient((MPSNNLossGradient*)object, buffer, request, destinations);
        break;
      case Work::initial_gradient:
        [(MPSNNInitialGradient*)object
            encodeBatchToCommandBuffer:buffer
                          sourceImages:images_of(request.predictions,
                                                 request.predictions.shape().images)
                     destinationImages:destinations];
        break;
      case Work::loss_and_gradient: throw StateError("a fused call has no kernel of Apple's");
    }
  });
  // Whoever commits, the results must be visible to the host afterwards (managed storage).
  MPSImageBatchSynchronize(destinations, buffer);
}

}  // namespace mpsnn_loss::metal
