// Elements of every format in memory as those that are computed with, and back.
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

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
