// An encode on images of Metal, through either variant of encodeBatch. For .mm files only, after
// they have imported MetalPerformanceShaders.
#pragma once

#include <memory>

#include "metal/mps/images.hpp"
#include "metal/objects/images.hpp"
#include "metal/objects/kernels.hpp"
#include "objects/encode.hpp"

namespace mpsnn_loss::metal {

/// An encode whose weights, if it has any, cover all pixels of the predictions. It keeps the images
/// until completion.
struct FullEncode {
  Encode call;
  std::shared_ptr<ImageBatch> weights;
};
/// Throws StateError where the weights have yet to be written.
FullEncode with_full_weights(const Encode& call);

/// Encodes into the results of the call.
void encode_into(id<MTLCommandBuffer> buffer, MPSKernel* kernel, const FullEncode& encode);
/// The kernel returns its results, autoreleased, of this form: they are those of `made`, or
/// temporary ones where that is null. The kernel is left as it was.
ImageArray encode_returning(id<MTLCommandBuffer> buffer, MPSKernel* kernel,
                            const FullEncode& encode, const BatchDescriptor& expected,
                            const MetalImages* made);

}  // namespace mpsnn_loss::metal
