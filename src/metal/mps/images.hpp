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

inline MPSImage* nth(ImageArray images, std::int64_t i) {
  return [images objectAtIndex:static_cast<NSUInteger>(i)];
}

/// Copies one image, [H, W, C] in its own format, to or from host memory.
inline void read_image(MPSImage* image, std::byte* to) {
  [image readBytes:to dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels imageIndex:0];
}
inline void write_image(MPSImage* image, const std::byte* from) {
  [image writeBytes:from dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels imageIndex:0];
}

/// The same for `count` images, from `first` on, which lie one after the other in host memory.
void read_images(ImageArray images, std::int64_t first, std::int64_t count,
                 std::int64_t image_bytes, std::byte* to);
void write_images(ImageArray images, std::int64_t first, std::int64_t count,
                  std::int64_t image_bytes, const std::byte* from);

}  // namespace mpsnn_loss::metal
