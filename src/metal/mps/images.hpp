// MPSImages: making, filling and reading them. For .mm files only, after
// they have imported MetalPerformanceShaders.
#pragma once

#include <cstddef>
#include <string>

#include "core/shape.hpp"
#include "metal/mps/objc_ptr.hpp"

namespace mpsnn_loss::metal {

using ImageArray = NSArray<MPSImage*>*;

/// New images, each with its texture, or StateError, or MemoryError that says how much was wanted.
objc_ptr<ImageArray> new_images(id<MTLDevice> device, const BatchDescriptor& descriptor);
void fill_with_zeros(ImageArray images, const BatchDescriptor& descriptor);
/// The image again and again, autoreleased.
ImageArray repeated(MPSImage* image, std::int64_t count);

/// Copies one image, [H, W, C] in its own format, to or from host memory.
inline void read_image(MPSImage* image, std::byte* to) {
  [image readBytes:to dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels imageIndex:0];
}
inline void write_image(MPSImage* image, const std::byte* from) {
  [image writeBytes:from dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels imageIndex:0];
}

}  // namespace mpsnn_loss::metal
