// How large images of Metal may be. Plain C++.
#pragma once

#include <cstdint>
#include <string>

#include "core/shape.hpp"

namespace mpsnn_loss::metal {

inline constexpr std::int64_t kMostPixels = 16384;  // of one side of a 2D texture, on every Mac
/// 2047 slices of four: the headers disagree about the 2048th.
inline constexpr std::int64_t kMostChannels = 8188;

/// Empty where images of this size can be, else one sentence why not.
inline std::string unsupported_size(const Shape& s) {
  if (s.width <= kMostPixels && s.height <= kMostPixels && s.channels <= kMostChannels) return {};
  return "metal: an image has at most " + std::to_string(kMostPixels) + " pixels a side and " +
         std::to_string(kMostChannels) + " channels";
}

}  // namespace mpsnn_loss::metal
