// Brings the operands of a tile into contiguous arrays of the compute type: converts float16,
// spreads broadcast weights, and expands class indices. What is already so in memory is used where
// it stands.
#pragma once

#include "core/half.hpp"
#include "cpu/plan.hpp"
#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
inline constexpr Format kFormatOf = sizeof(T) == 4 ? Format::float32 : Format::float64;

template <class T>
MPSNN_INLINE T read_element(const std::byte* data, Format format, std::int64_t index) {
  switch (format) {
    case Format::float16:
      return static_cast<T>(half_to_float(reinterpret_cast<const std::uint16_t*>(data)[index]));
    case Format::float32: return static_cast<T>(reinterpret_cast<const float*>(data)[index]);
    case Format::float64: return static_cast<T>(reinterpret_cast<const double*>(data)[index]);
  }
  return T{};
}

/// Copies `count` elements from index `first` on, converted.
template <class T>
void convert_in(const std::byte* data, Format format, std::int64_t first, std::int64_t count,
                T* to) {
  const auto copy = [&](const auto* from, auto convert) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(convert(from[first + i]));
  };
  switch (format) {
    case Format::float16:
      return copy(reinterpret_cast<const std::uint16_t*>(data),
                  [](std::uint16_t h) { return half_to_float(h); });
    case Format::float32:
      return copy(reinterpret_cast<const float*>(data), [](float x) { return x; });
    case Format::float64:
      return copy(reinterpret_cast<const double*>(data), [](double x) { return x; });
  }
}

/// The reverse, rounding once.
template <class T>
void convert_out(const T* from, std::int64_t count, std::byte* data, Format format,
                 std::int64_t first) {
  switch (format) {
    case Format::float16: {
      auto* to = reinterpret_cast<std::uint16_t*>(data) + first;
      for (std::int64_t i = 0; i < count; ++i) to[i] = float_to_half(static_cast<float>(from[i]));
      return;
    }
    case Format::float32: {
      auto* to = reinterpret_cast<float*>(data) + first;
      for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
      return;
    }
    case Format::float64: {
      auto* to = reinterpret_cast<double*>(data) + first;
      for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<double>(from[i]);
      return;
    }
  }
}

/// Calls run(flat index, run length, index of the pixel, first channel) for each stretch of one
/// pixel.
template <class F>
MPSNN_INLINE void for_each_pixel(const Shape& shape, std::int64_t first, std::int64_t count,
                                 F run) {
  std::int64_t pixel = first / shape.channels, channel = first % shape.channels;
  for (std::int64_t done = 0; done < count; ++pixel, channel = 0) {
    const std::int64_t rest = shape.channels - channel,
                       length = rest < count - done ? rest : count - done;
    run(done, length, pixel, channel);
    done += length;
  }
}

/// Where in a source the channel 0 of a pixel stands.
MPSNN_INLINE std::int64_t pixel_offset(const Source& source, const Shape& shape,
                                       std::int64_t pixel) {
  const std::int64_t x = pixel % shape.width, row = pixel / shape.width;
  return row / shape.height * source.strides[0] + row % shape.height * source.strides[1] +
         x * source.strides[2];
}

template <class T>
const T* stage(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
               T* scratch) {
  if (source.dense && source.format == kFormatOf<T>)
    return reinterpret_cast<const T*>(source.data) + first;
  if (source.dense) {
    convert_in(source.data, source.format, first, count, scratch);
    return scratch;
  }
  for_each_pixel(
      shape, first, count,
      [&](std::int64_t at, std::int64_t length, std::int64_t pixel, std::int64_t channel) {
        const std::int64_t offset = pixel_offset(source, shape, pixel);
        if (source.strides[3] != 0) {
          convert_in(source.data, source.format, offset + channel, length, scratch + at);
        } else {
          const T value = read_element<T>(source.data, source.format, offset);
          for (std::int64_t i = 0; i < length; ++i) scratch[at + i] = value;
        }
      });
  return scratch;
}

/// Labels, or class indices as rows of zeros with a one.
template <class T>
const T* stage_labels(const Plan& plan, std::int64_t first, std::int64_t count, T* scratch) {
  if (plan.class_indices == nullptr) return stage(plan.labels, plan.shape, first, count, scratch);
  for_each_pixel(
      plan.shape, first, count,
      [&](std::int64_t at, std::int64_t length, std::int64_t pixel, std::int64_t channel) {
        for (std::int64_t i = 0; i < length; ++i) scratch[at + i] = T(0);
        const std::int64_t hot = plan.class_indices[pixel] - channel;
        if (hot >= 0 && hot < length) scratch[at + hot] = T(1);
      });
  return scratch;
}

MPSNN_INLINE bool is_weighted(const Plan& plan) {
  return plan.weights.data != nullptr || plan.has_ignored_class;
}

/// Weights with those of ignored pixels 0; null where every weight is 1.
template <class T>
const T* stage_weights(const Plan& plan, std::int64_t first, std::int64_t count, T* scratch) {
  if (!is_weighted(plan)) return nullptr;
  const T* weights = nullptr;
  if (plan.weights.data != nullptr)
    weights = stage(plan.weights, plan.shape, first, count, scratch);
  if (!plan.has_ignored_class) return weights;
  for_each_pixel(plan.shape, first, count,
                 [&](std::int64_t at, std::int64_t length, std::int64_t pixel, std::int64_t) {
                   const bool ignored = plan.class_indices[pixel] == plan.ignored_class;
                   for (std::int64_t i = 0; i < length; ++i) {
                     scratch[at + i] = ignored ? T(0) : weights != nullptr ? weights[at + i] : T(1);
                   }
                 });
  return scratch;
}

/// Source gradients of each element: an array of them, or each image's own scale g ω / D; null
/// where one scale holds for all.
template <class T>
const T* stage_gradients(const Plan& plan, std::int64_t first, std::int64_t count, T* scratch) {
  if (plan.source_gradients.data != nullptr)
    return stage(plan.source_gradients, plan.shape, first, count, scratch);
  if (!plan.scale_per_image) return nullptr;
  const std::int64_t image_elements = plan.shape.image_elements();
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t image = (first + i) / image_elements,
                       end = (image + 1) * image_elements - first;
    const T scale = static_cast<T>(plan.gradient_scales[image]);
    for (; i < count && i < end; ++i) scratch[i] = scale;
  }
  return scratch;
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
