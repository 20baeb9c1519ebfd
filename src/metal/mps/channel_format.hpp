// Which of Metal's formats is which of ours. For .mm files only, after they have imported
// MetalPerformanceShaders.
#pragma once

#include "core/shape.hpp"

namespace mpsnn_loss::metal {

/// MPSImageFeatureChannelFormatNone where Metal has none.
inline MPSImageFeatureChannelFormat channel_format(Format format) {
  switch (format) {
    case Format::float16: return MPSImageFeatureChannelFormatFloat16;
    case Format::float32: return MPSImageFeatureChannelFormatFloat32;
    case Format::float64:
    case Format::bfloat16: return MPSImageFeatureChannelFormatNone;
  }
  return MPSImageFeatureChannelFormatNone;
}

inline bool has_channel_format(Format format) {
  return channel_format(format) != MPSImageFeatureChannelFormatNone;
}

}  // namespace mpsnn_loss::metal
