// Spreads what is broadcast, such as weights, over the elements of a tile.
#pragma once

#include "cpu/convert.hpp"
#include "cpu/plan.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Index of a pixel's channel 0 in a source.
MPSNN_INLINE std::int64_t place_of_pixel(const Source& source, const Shape& shape,
                                         std::int64_t pixel) {
  const std::int64_t column = pixel % shape.width, rows = pixel / shape.width;
  const std::int64_t row = rows % shape.height, image = rows / shape.height;
  return image * source.strides[0] + row * source.strides[1] + column * source.strides[2];
}

/// Calls run(place in the tile, run length, index of the pixel, first channel) for each stretch of
/// one pixel.
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

/// The values of a source that has one per pixel, or fewer.
template <class T>
void stage_pixels(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
                  T* to) {
  if (source.one_per_pixel) return convert_in(source.data, source.format, first, count, to);
  const bool has_columns = shape.width > 1;  // else a column of pixels is contiguous
  const std::int64_t line = has_columns ? shape.width : shape.height;
  const bool varies = source.strides[has_columns ? 2 : 1] != 0;
  for (std::int64_t done = 0, run = 0; done < count; done += run) {
    const std::int64_t rest = line - (first + done) % line;
    run = rest < count - done ? rest : count - done;
    const std::int64_t from = place_of_pixel(source, shape, first + done);
    if (varies) {
      convert_in(source.data, source.format, from, run, to + done);
    } else {
      const T value = read_element<T>(source.data, source.format, from);
      for (std::int64_t i = 0; i < run; ++i) to[done + i] = value;
    }
  }
}

/// Spreads values of which each holds for fewer elements than a vector has; `phase` elements of the
/// first one are not wanted. Of the vectors that as many values fill as those have lanes, each has
/// the same part of them in the same lanes. Up to a vector more is read, and overwritten.
template <class T>
MPSNN_INLINE void look_stretches_up(const T* values, std::int64_t stretch, std::int64_t phase,
                                    std::int64_t count, T* to) {
  using V = Vector<T>;
  constexpr auto width = static_cast<std::int64_t>(lanes<V>);
  const V lane = __builtin_convertvector(kLaneNumbers<V>, V);
  for (std::int64_t k = 0; k < stretch; ++k) {
    const std::int64_t from = phase + k * width;
    std::int64_t at = from / stretch;
    const V place = (lane + static_cast<T>(from - at * stretch) + T(0.5)) / static_cast<T>(stretch);
    const auto index = reinterpret_cast<Bits<V>>(__builtin_convertvector(place, Mask<V>));
    for (std::int64_t i = k * width; i < count; i += stretch * width, at += width)
      store<V>(to + i, from_bits<V>(lookup(bits(load<V>(values + at)), index)));
  }
}

/// Spreads what there is one of per pixel or per image. Up to a vector more is overwritten.
template <class T>
void spread_over_channels(const Source& source, const Shape& shape, std::int64_t first,
                          std::int64_t count, T* to) {
  using V = Vector<T>;
  const bool per_image = source.strides[1] == 0 && source.strides[2] == 0;
  const std::int64_t stretch = per_image ? shape.image_elements() : shape.channels;
  const std::int64_t begin = first / stretch, end = (first + count - 1) / stretch + 1;
  constexpr auto width = static_cast<std::int64_t>(lanes<V>);
  T values[kTileElements + width];
  if (per_image && !source.one_per_pixel) {
    for (std::int64_t i = begin; i < end; ++i)
      values[i - begin] = read_element<T>(source.data, source.format, i * source.strides[0]);
  } else {
    stage_pixels(source, shape, begin, end - begin, values);
  }
  const std::int64_t phase = first % stretch;
  if constexpr (kHasLookup<V>) {
    if (stretch < width) return look_stretches_up(values, stretch, phase, count, to);
  }
  std::int64_t length = stretch - phase;  // of the first one
  const T* value = values;
  for (std::int64_t done = 0; done < count; done += length, length = stretch) {
    if (length > count - done) length = count - done;
    const V in_lanes = broadcast<V>(*value++);
    for (std::int64_t i = 0; i < length; i += lanes<V>) store<V>(to + done + i, in_lanes);
  }
}

/// Repeats what is the same in every pixel.
template <class T>
void spread_over_pixels(const Source& source, const Shape& shape, std::int64_t first,
                        std::int64_t count, T* to) {
  const std::int64_t channel = first % shape.channels, end = shape.channels - channel;
  const std::int64_t head = end < count ? end : count;
  const std::int64_t once = shape.channels < count ? shape.channels : count;
  convert_in(source.data, source.format, channel, head, to);
  convert_in(source.data, source.format, 0, once - head, to + head);
  for (std::int64_t done = once; done < count; done *= 2) {
    const std::int64_t rest = count - done, more = rest < done ? rest : done;
    __builtin_memcpy(to + done, to, static_cast<std::size_t>(more) * sizeof(T));
  }
}

/// Spreads a source that broadcasts.
template <class T>
void spread(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
            T* to) {
  const auto& strides = source.strides;
  const bool one_for_pixels = strides[0] == 0 && strides[1] == 0 && strides[2] == 0;
  if (one_for_pixels && strides[3] == 0) {
    const T value = read_element<T>(source.data, source.format, 0);
    for (std::int64_t i = 0; i < count; ++i) to[i] = value;
    return;
  }
  if (one_for_pixels) return spread_over_pixels(source, shape, first, count, to);
  if (strides[3] == 0) return spread_over_channels(source, shape, first, count, to);
  for_each_pixel(
      shape, first, count,
      [&](std::int64_t done, std::int64_t length, std::int64_t pixel, std::int64_t channel) {
        convert_in(source.data, source.format, place_of_pixel(source, shape, pixel) + channel,
                   length, to + done);
      });
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
