// Weights that have fewer pixels, channels or images than what they weigh. Plain C++.
#pragma once

#include <cstdint>

#include "core/shape.hpp"

namespace mpsnn_loss::metal {

/// Calls f(place) for each element of `full` in order: where it lies in an array with these
/// strides, which are 0 on each axis that it broadcasts along.
template <class F>
void for_each_place(const Strides& strides, const Shape& full, F f) {
  for (std::int64_t n = 0; n < full.images; ++n) {
    for (std::int64_t h = 0; h < full.height; ++h) {
      for (std::int64_t w = 0; w < full.width; ++w) {
        const std::int64_t pixel = n * strides[0] + h * strides[1] + w * strides[2];
        for (std::int64_t c = 0; c < full.channels; ++c) f(pixel + c * strides[3]);
      }
    }
  }
}

}  // namespace mpsnn_loss::metal
