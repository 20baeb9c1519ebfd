// Weights of the predictions' full size, as how a kernel broadcasts them is undocumented. Over the
// batch it need not: one image stands for all. Plain C++.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

#include "core/computation.hpp"
#include "metal/mps/broadcast.hpp"

namespace mpsnn_loss::metal {

/// Values in host memory of our own.
struct WeightValues {
  explicit WeightValues(const BatchDescriptor& its_descriptor)
      : descriptor(its_descriptor), values(static_cast<std::size_t>(its_descriptor.bytes())) {}
  Operand operand(const char* name) { return {name, descriptor, values.data(), false}; }

  BatchDescriptor descriptor;
  std::vector<std::byte> values;
};

/// Whether each image of the weights has all pixels and channels.
inline bool cover_pixels(Shape weights, Shape full) {
  weights.images = full.images = 1;
  return weights == full;
}

inline WeightValues expanded(const Operand& weights, const Shape& full) {
  const std::int64_t size = info(weights.descriptor.format).size;
  Shape one = weights.shape(), to = full;
  to.images = weights.shape().images;
  WeightValues result({to, weights.descriptor.format});
  one.images = to.images = 1;
  std::byte* at = result.values.data();
  for (std::int64_t i = 0; i < weights.shape().images; ++i) {
    const std::byte* const image = weights.image_data(i);
    for_each_place(contiguous_strides(one), to, [&](std::int64_t element) {
      std::memcpy(at, image + element * size, static_cast<std::size_t>(size));
      at += size;
    });
  }
  return result;
}

}  // namespace mpsnn_loss::metal
