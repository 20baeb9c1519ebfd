// Brings the operands of a tile into contiguous arrays of the compute type, and results out of
// them: converts float16, spreads broadcast weights, expands class indices, streams large results.
// What is already so in memory is used where it stands.
#pragma once

#include "core/half.hpp"
#include "cpu/plan.hpp"
#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Elements that are staged at a time: a few such arrays stay in the first-level cache.
inline constexpr std::int64_t kTileElements = 1024;

/// Where a tile is staged, with room for a vector more to be spoilt.
template <class T>
struct alignas(Vector<T>) TileRoom {
  T elements[kTileElements + static_cast<std::int64_t>(lanes<Vector<T>>)];
};

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

template <class From, class T>
MPSNN_INLINE void copy_converted(const From* from, std::int64_t count, T* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(from[i]);
}
template <class T>
MPSNN_INLINE void copy_converted(const std::uint16_t* from, std::int64_t count, T* to) {
  constexpr auto width = static_cast<std::int64_t>(lanes<FloatVector>);
  std::int64_t i = 0;
  for (; i + width <= count; i += width) {
    float converted[lanes<FloatVector>];
    store<FloatVector>(converted, load_half(from + i));
    copy_converted(converted, width, to + i);
  }
  for (; i < count; ++i) to[i] = static_cast<T>(half_to_float(from[i]));
}

/// Copies `count` elements from index `first` on, converted.
template <class T>
void convert_in(const std::byte* data, Format format, std::int64_t first, std::int64_t count,
                T* to) {
  switch (format) {
    case Format::float16:
      return copy_converted(reinterpret_cast<const std::uint16_t*>(data) + first, count, to);
    case Format::float32:
      return copy_converted(reinterpret_cast<const float*>(data) + first, count, to);
    case Format::float64:
      return copy_converted(reinterpret_cast<const double*>(data) + first, count, to);
  }
}

template <class T>
MPSNN_INLINE void copy_to_half(const T* from, std::int64_t count, std::uint16_t* to) {
  constexpr auto width = static_cast<std::int64_t>(lanes<FloatVector>);
  std::int64_t i = 0;
  for (; i + width <= count; i += width) {
    float single[lanes<FloatVector>];
    copy_converted(from + i, width, single);
    store_half(to + i, load<FloatVector>(single));
  }
  for (; i < count; ++i) to[i] = float_to_half(static_cast<float>(from[i]));
}

template <class T>
MPSNN_INLINE void stream_out(const T* from, std::int64_t count, T* to) {
  using V = Vector<T>;
  std::int64_t i = 0;
  const auto aligned = [&] { return reinterpret_cast<std::uintptr_t>(to + i) % sizeof(V) == 0; };
  for (; i < count && !aligned(); ++i) to[i] = from[i];
  for (; i + static_cast<std::int64_t>(lanes<V>) <= count; i += lanes<V>)
    stream(to + i, load<V>(from + i));
  for (; i < count; ++i) to[i] = from[i];
}

/// True where a source is absent or used as it lies.
template <class T>
MPSNN_INLINE bool is_in_place(const Source& source) {
  return source.data == nullptr || (source.dense && source.format == kFormatOf<T>);
}

/// True where results are made where they belong.
template <class T>
MPSNN_INLINE bool is_in_place(const Sink& sink) {
  return sink.data == nullptr || (sink.format == kFormatOf<T> && !sink.streams);
}

/// Where a tile of results is made: in place where it may be, else in `scratch`.
template <class T>
MPSNN_INLINE T* place_of(const Sink& sink, std::int64_t first, T* scratch) {
  if (sink.data == nullptr) return nullptr;
  return is_in_place<T>(sink) ? reinterpret_cast<T*>(sink.data) + first : scratch;
}

/// Moves a tile that was made in scratch to where it belongs, rounding once.
template <class T>
void put(const T* from, std::int64_t count, const Sink& sink, std::int64_t first) {
  switch (sink.format) {
    case Format::float16:
      return copy_to_half(from, count, reinterpret_cast<std::uint16_t*>(sink.data) + first);
    case Format::float32: {
      auto* const to = reinterpret_cast<float*>(sink.data) + first;
      if constexpr (sizeof(T) == sizeof(float)) {
        if (from == to) return;
        if (sink.streams) return stream_out(from, count, to);
      }
      return copy_converted(from, count, to);
    }
    case Format::float64: {
      auto* const to = reinterpret_cast<double*>(sink.data) + first;
      if constexpr (sizeof(T) == sizeof(double)) {
        if (from == to) return;
        if (sink.streams) return stream_out(from, count, to);
      }
      return copy_converted(from, count, to);
    }
  }
}

/// Where the results of a chunk are made, tile after tile: in place, or here and then put where
/// they belong. Streamed ones leave in whole lines of the cache; a line that is begun waits for its
/// rest.
template <class T>
class TileWriter {
 public:
  explicit TileWriter(const Sink& sink) : sink_(sink) {}

  /// Room for a tile from element `first` on, and for lanes - 1 more that may be spoilt where it is
  /// not in place.
  T* room(std::int64_t first) {
    if (is_in_place<T>(sink_)) return reinterpret_cast<T*>(sink_.data) + first;
    first_ = first - filled_;
    return elements_ + filled_;
  }
  /// Takes the tile over.
  void advance(std::int64_t count) {
    if (is_in_place<T>(sink_)) return;
    filled_ += count;
    const auto begin = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(sink_.data));
    const std::int64_t end = begin / std::int64_t{sizeof(T)} + first_ + filled_;
    const std::int64_t rest = sink_.streams && filled_ >= kLine ? end % kLine : 0;
    const std::int64_t whole = filled_ - rest;
    put(elements_, whole, sink_, first_);
    for (std::int64_t i = 0; i < rest; ++i) elements_[i] = elements_[whole + i];
    first_ += whole;
    filled_ = rest;
  }
  void flush() {
    if (filled_ > 0) put(elements_, filled_, sink_, first_);
    filled_ = 0;
  }

 private:
  static constexpr std::int64_t kLine = 64 / sizeof(T);

  const Sink& sink_;
  std::int64_t first_ = 0, filled_ = 0;
  T elements_[kTileElements + kLine + static_cast<std::int64_t>(lanes<Vector<T>>)];
};

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

/// `count` elements of a source from element `first` of the predictions' layout on.
template <class T>
const T* stage(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
               TileRoom<T>& room) {
  if (is_in_place<T>(source)) return reinterpret_cast<const T*>(source.data) + first;
  if (source.dense) {
    convert_in(source.data, source.format, first, count, room.elements);
  } else {
    spread(source, shape, first, count, room.elements);
  }
  return room.elements;
}

/// Labels, or class indices as rows of zeros with a one.
template <class T>
const T* stage_labels(const Plan& plan, std::int64_t first, std::int64_t count, TileRoom<T>& room) {
  if (plan.class_indices == nullptr) return stage(plan.labels, plan.shape, first, count, room);
  const std::int64_t channels = plan.shape.channels, last = first + count - 1;
  for (std::int64_t i = 0; i < count; ++i) room.elements[i] = T(0);
  for (std::int64_t pixel = first / channels; pixel <= last / channels; ++pixel) {
    const std::int64_t index = read_class(plan, pixel);
    if (index < 0 || index >= channels) continue;
    const std::int64_t place = pixel * channels + index - first;
    if (place >= 0 && place < count) room.elements[place] = T(1);
  }
  return room.elements;
}

MPSNN_INLINE bool is_weighted(const Plan& plan) {
  return plan.weights.data != nullptr || plan.has_ignored_class;
}

/// Weights with those of ignored pixels 0; null where every weight is 1.
template <class T>
const T* stage_weights(const Plan& plan, std::int64_t first, std::int64_t count,
                       TileRoom<T>& room) {
  if (!is_weighted(plan)) return nullptr;
  const T* weights = nullptr;
  if (plan.weights.data != nullptr) weights = stage(plan.weights, plan.shape, first, count, room);
  if (!plan.has_ignored_class) return weights;
  T* const scratch = room.elements;
  for_each_pixel(plan.shape, first, count,
                 [&](std::int64_t at, std::int64_t length, std::int64_t pixel, std::int64_t) {
                   const bool ignored = plan.class_indices[pixel] == plan.ignored_class;
                   for (std::int64_t i = 0; i < length; ++i) {
                     scratch[at + i] = ignored ? T(0) : weights != nullptr ? weights[at + i] : T(1);
                   }
                 });
  return scratch;
}

/// Each chunk hands over one sum of its losses.
MPSNN_INLINE bool is_summed(const Plan& plan) {
  return plan.want_loss && plan.loss.data == nullptr && !plan.sums_per_image;
}

/// Source gradients of each element: an array of them, or each image's own scale g ω / D; null
/// where one scale holds for all.
template <class T>
const T* stage_gradients(const Plan& plan, std::int64_t first, std::int64_t count,
                         TileRoom<T>& room) {
  if (plan.source_gradients.data != nullptr)
    return stage(plan.source_gradients, plan.shape, first, count, room);
  if (!plan.scale_per_image) return nullptr;
  T* const scratch = room.elements;
  const std::int64_t image_elements = plan.shape.image_elements();
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t image = (first + i) / image_elements,
                       end = (image + 1) * image_elements - first;
    const T scale = static_cast<T>(plan.gradient_scales[image]);
    for (; i < count && i < end; ++i) scratch[i] = scale;
  }
  return scratch;
}

/// True where results are made in place and no operand has to be staged for them.
template <class T>
bool is_in_place(const Plan& plan) {
  return is_in_place<T>(plan.predictions) && is_in_place<T>(plan.labels) &&
         is_in_place<T>(plan.weights) && is_in_place<T>(plan.source_gradients) &&
         plan.class_indices == nullptr && !plan.scale_per_image && is_in_place<T>(plan.gradient) &&
         is_in_place<T>(plan.loss);
}

/// Adds to each image's sum the part of it among `count` values that stand one to a unit.
template <class T>
void add_to_image_sums(const Plan& plan, const T* values, std::int64_t first, std::int64_t count) {
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t image = (first + i) / plan.image_units,
                       end = (image + 1) * plan.image_units - first;
    double sum = 0;
    for (; i < count && i < end; ++i) sum += static_cast<double>(values[i]);
    plan.sums[image] += sum;
  }
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
