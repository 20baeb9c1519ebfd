// Elements of arrays with strides as a tile that lies closely: of what is broadcast, such as
// weights, each value as often as it counts; and tiles back to where results belong.
#pragma once

#include <type_traits>

#include "cpu/convert.hpp"
#include "cpu/plan.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Index of a pixel's channel 0 in an array.
MPSNN_INLINE std::int64_t place_of_pixel(const Strides& strides, const Shape& shape,
                                         std::int64_t pixel) {
  const std::int64_t column = pixel % shape.width, rows = pixel / shape.width;
  const std::int64_t row = rows % shape.height, image = rows / shape.height;
  return image * strides[0] + row * strides[1] + column * strides[2];
}

/// Index of an element in an array.
MPSNN_INLINE std::int64_t place_of_element(const Strides& strides, const Shape& shape,
                                           std::int64_t element) {
  return place_of_pixel(strides, shape, element / shape.channels) +
         element % shape.channels * strides[3];
}

/// The length of the runs that are contiguous both here and in the predictions: an image, a line or
/// a pixel; 1 where not even the channels of a pixel are.
MPSNN_INLINE std::int64_t run_length(const Strides& strides, const Shape& shape) {
  const auto axes = shape.axes();
  std::int64_t run = 1;
  for (std::size_t axis = 3; axis > 0; --axis) {
    if (axes[axis] == 1) continue;
    if (strides[axis] != run) break;
    run *= axes[axis];
  }
  return run;
}

/// Calls block(place in the tile, first pixel, pixels, first channel, channels) for stretches of
/// elements: part of one pixel, or whole pixels of one line.
template <class F>
MPSNN_INLINE void for_each_block(const Shape& shape, std::int64_t first, std::int64_t count,
                                 F block) {
  std::int64_t pixel = first / shape.channels, channel = first % shape.channels;
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t rest = count - done, of_pixel = shape.channels - channel;
    if (channel != 0 || rest < shape.channels) {
      const std::int64_t channels = of_pixel < rest ? of_pixel : rest;
      block(done, pixel, std::int64_t{1}, channel, channels);
      done += channels;
      ++pixel;
      channel = 0;
    } else {
      const std::int64_t of_line = shape.width - pixel % shape.width, whole = rest / shape.channels;
      const std::int64_t pixels = of_line < whole ? of_line : whole;
      block(done, pixel, pixels, std::int64_t{0}, shape.channels);
      done += pixels * shape.channels;
      pixel += pixels;
    }
  }
}

/// Calls move(place in the tile, place in the array) for each element of a block, along the axis
/// that lies closer.
template <class F>
MPSNN_INLINE void for_each_of_block(const Strides& strides, std::int64_t at, std::int64_t from,
                                    std::int64_t pixels, std::int64_t channels, F move) {
  const std::int64_t by_pixel = strides[2], by_channel = strides[3];
  const auto size = [](std::int64_t stride) { return stride < 0 ? -stride : stride; };
  if (size(by_channel) < size(by_pixel) || pixels == 1) {
    for (std::int64_t p = 0; p < pixels; ++p) {
      for (std::int64_t c = 0; c < channels; ++c)
        move(at + p * channels + c, from + p * by_pixel + c * by_channel);
    }
  } else {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < pixels; ++p)
        move(at + p * channels + c, from + p * by_pixel + c * by_channel);
    }
  }
}

/// The same for `count` elements from `first` on.
template <class F>
MPSNN_INLINE void for_each_place(const Strides& strides, const Shape& shape, std::int64_t first,
                                 std::int64_t count, F move) {
  for_each_block(shape, first, count,
                 [&](std::int64_t at, std::int64_t pixel, std::int64_t pixels, std::int64_t channel,
                     std::int64_t channels) {
                   const std::int64_t from =
                       place_of_pixel(strides, shape, pixel) + channel * strides[3];
                   for_each_of_block(strides, at, from, pixels, channels, move);
                 });
}

/// Elements of an array with any strides.
template <class T>
void gather(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
            T* to) {
  with_elements(source.data, source.format, [&](auto from) {
    for_each_place(source.strides, shape, first, count,
                   [&](std::int64_t at, std::int64_t place)
                       MPSNN_INLINE_LAMBDA { to[at] = converted<T>(from[place]); });
  });
}

/// And back, rounding once.
template <class T>
void scatter(const T* tile, std::int64_t count, const Sink& sink, const Shape& shape,
             std::int64_t first) {
  with_elements(sink.data, sink.format, [&](auto from) {
    using To = std::remove_const_t<std::remove_pointer_t<decltype(from)>>;
    To* const to = const_cast<To*>(from);
    for_each_place(sink.strides, shape, first, count,
                   [&](std::int64_t at, std::int64_t place)
                       MPSNN_INLINE_LAMBDA { to[place] = rounded<To>(tile[at]); });
  });
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

/// One element of a source, so many times.
template <class T>
void repeat_element(const Source& source, std::int64_t from, std::int64_t count, T* to) {
  const T value = read_element<T>(source.data, source.format, from);
  for (std::int64_t i = 0; i < count; ++i) to[i] = value;
}

/// Whether all pixels of an image have the same values.
MPSNN_INLINE bool is_one_for_pixels(const Source& source) {
  return source.strides[1] == 0 && source.strides[2] == 0;
}

/// The values of a source that has one per pixel, or fewer.
template <class T>
void stage_pixels(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
                  T* to) {
  if (source.one_per_pixel) return convert_in(source.data, source.format, first, count, to);
  if (source.strides[0] == 0 && is_one_for_pixels(source))
    return repeat_element(source, 0, count, to);
  for (std::int64_t done = 0, run = 0; done < count; done += run) {
    const std::int64_t rest = shape.width - (first + done) % shape.width;
    run = rest < count - done ? rest : count - done;
    const std::int64_t from = place_of_pixel(source.strides, shape, first + done);
    if (source.strides[2] != 0) {
      convert_in(source.data, source.format, from, run, to + done, source.strides[2]);
    } else {
      repeat_element(source, from, run, to + done);
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

/// Spreads what there is one of per pixel or per image. Up to a vector more is overwritten. Not
/// inlined, as its values would then be on the stack of every call.
template <class T>
[[gnu::noinline]] void spread_over_channels(const Source& source, const Shape& shape,
                                            std::int64_t first, std::int64_t count, T* to) {
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

/// Repeats the channels of one pixel, which begin at index `from`, from channel `channel` on.
template <class T>
void repeat_pixel(const Source& source, std::int64_t from, std::int64_t channels,
                  std::int64_t channel, std::int64_t count, T* to) {
  const std::int64_t end = channels - channel, stride = source.strides[3];
  const std::int64_t head = end < count ? end : count, once = channels < count ? channels : count;
  convert_in(source.data, source.format, from + channel * stride, head, to, stride);
  convert_in(source.data, source.format, from, once - head, to + head, stride);
  for (std::int64_t done = once; done < count; done *= 2) {
    const std::int64_t rest = count - done, more = rest < done ? rest : done;
    __builtin_memcpy(to + done, to, static_cast<std::size_t>(more) * sizeof(T));
  }
}

/// Calls run(place in the tile, length, image, first element in it) for each stretch of one image.
template <class F>
MPSNN_INLINE void for_each_image(const Shape& shape, std::int64_t first, std::int64_t count,
                                 F run) {
  const std::int64_t of_image = shape.image_elements();
  for (std::int64_t done = 0, length = 0; done < count; done += length) {
    const std::int64_t image = (first + done) / of_image, at = (first + done) % of_image;
    length = of_image - at < count - done ? of_image - at : count - done;
    run(done, length, image, at);
  }
}

/// Elements of a source that is not dense.
template <class T>
void spread(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
            T* to) {
  const std::int64_t by_image = source.strides[0], by_channel = source.strides[3];
  const bool one_for_pixels = is_one_for_pixels(source);
  if (one_for_pixels && by_image == 0 && by_channel == 0)
    return repeat_element(source, 0, count, to);
  if (one_for_pixels && by_image == 0)
    return repeat_pixel(source, 0, shape.channels, first % shape.channels, count, to);
  if (by_channel == 0 && shape.channels > 1)
    return spread_over_channels(source, shape, first, count, to);
  if (one_for_pixels) {
    for_each_image(
        shape, first, count,
        [&](std::int64_t done, std::int64_t length, std::int64_t image, std::int64_t at) {
          repeat_pixel(source, image * by_image, shape.channels, at % shape.channels, length,
                       to + done);
        });
    return;
  }
  const std::int64_t run = run_length(source.strides, shape);
  if (run < static_cast<std::int64_t>(lanes<Vector<T>>))
    return gather(source, shape, first, count, to);
  for (std::int64_t done = 0, length = run - first % run; done < count;
       done += length, length = run) {
    if (length > count - done) length = count - done;
    const std::int64_t from = place_of_element(source.strides, shape, first + done);
    convert_in(source.data, source.format, from, length, to + done);
  }
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
