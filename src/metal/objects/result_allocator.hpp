// What makes the images of a returning encode: as the kernel asks, but in the format that the
// caller was promised, which automatic results need not have. Those that are not temporary were
// made beforehand, as the kernel would abort where there is no memory for one. For .mm files only,
// after they have imported MetalPerformanceShaders.
#pragma once

#include "metal/mps/images.hpp"

namespace mpsnn_loss::metal {

/// Autoreleased: hands out `images`, or makes temporary ones of one format where that is nil.
id<MPSImageAllocator> result_allocator(Format format, ImageArray images);

}  // namespace mpsnn_loss::metal
