#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "core/error.hpp"
#include "metal/mps/encode.hpp"

namespace mpsnn_loss::metal {
namespace {

std::string describe(NSError* error) {
  if (error == nil) return "the command buffer did not complete";
  return std::string([[error domain] UTF8String]) + " " + std::to_string([error code]) + ": " +
         [[error localizedDescription] UTF8String];
}

}  // namespace

void encode(id<MTLCommandBuffer> buffer, KernelKind kind, MPSKernel* kernel, const Operands& o,
            ImageArray destinations, StateArray destination_states) {
  switch (kind) {
    case KernelKind::forward_loss:
      [(MPSNNForwardLoss*)kernel encodeBatchToCommandBuffer:buffer
                                               sourceImages:o.predictions
                                                     labels:o.labels
                                                    weights:o.weights
                                          destinationStates:destination_states
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

void check_completed(id<MTLCommandBuffer> buffer) {
  if ([buffer status] != MTLCommandBufferStatusCompleted)
    throw DeviceError(describe([buffer error]));
}

}  // namespace mpsnn_loss::metal
