// One kernel onto one command buffer. For .mm files only, after they have imported
// MetalPerformanceShaders.
#pragma once

#include "metal/mps/images.hpp"
#include "objects/kernel_properties.hpp"

namespace mpsnn_loss::metal {

using StateArray = NSArray<MPSState*>*;

/// What a kernel reads, one image for each of the predictions; nil where there is none.
struct Operands {
  ImageArray predictions = nil, labels = nil, weights = nil, source_gradients = nil;
  StateArray source_states = nil;
};

/// encodeBatch with destinations, which are synchronised for reading. `destination_states`: of a
/// forward loss, or nil.
void encode(id<MTLCommandBuffer> buffer, KernelKind kind, MPSKernel* kernel, const Operands& o,
            ImageArray destinations, StateArray destination_states = nil);

/// Throws DeviceError unless the buffer has completed.
void check_completed(id<MTLCommandBuffer> buffer);

}  // namespace mpsnn_loss::metal
