// Weights that have fewer pixels, channels or images than what they weigh. Plain C++.
#pragma once

#include <cstdint>

#include "core/shape.hpp"

namespace mpsnn_loss::metal {

/// Calls f(i) for each element of `full` in order, with the place i of its value among those of
/// `shape`, which has 1 on each axis that it broadcasts along.
template <class F>
void for_each_broadcast(const Shape& shape, const Shape& full, F f) {
  const auto along = [](std::int64_t axis, std::int64_t i) { return axis == 1 ? 0 : i; };
  for (std::int64_t n = 0; n < full.images; ++n) {
    for (std::int64_t h = 0; h < full.height; ++h) {
      for (std::int64_t w = 0; w < full.width; ++w) {
        const std::int64_t row = along(shape.images, n) * shape.height + along(shape.height, h);
        const std::int64_t pixel = row * shape.width + along(shape.width, w);
        for (std::int64_t c = 0; c < full.channels; ++c)
          f(pixel * shape.channels + along(shape.channels, c));
      }
    }
  }
}

}  // namespace mpsnn_loss::metal
