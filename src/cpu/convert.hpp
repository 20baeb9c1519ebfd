// Elements of every format in memory as those that are computed with, and back.
#pragma once

#include <type_traits>

#include "core/half.hpp"
#include "cpu/narrow.hpp"
#include "cpu/plan.hpp"
#include "cpu/simd.hpp"
#include "cpu/streams.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
inline constexpr Format kFormatOf = Format::float32;
template <>
inline constexpr Format kFormatOf<double> = Format::float64;
template <>
inline constexpr Format kFormatOf<Float16> = Format::float16;
template <>
inline constexpr Format kFormatOf<BFloat16> = Format::bfloat16;

/// Calls f with a pointer to the elements.
template <class F>
MPSNN_INLINE void with_elements(const std::byte* data, Format format, F f) {
  switch (format) {
    case Format::float16: return f(reinterpret_cast<const Float16*>(data));
    case Format::float32: return f(reinterpret_cast<const float*>(data));
    case Format::float64: return f(reinterpret_cast<const double*>(data));
    case Format::bfloat16: return f(reinterpret_cast<const BFloat16*>(data));
  }
}

template <class T>
inline constexpr bool kIsNarrow = sizeof(T) == sizeof(std::uint16_t);

template <class T, class From>
MPSNN_INLINE T converted(From value) {
  if constexpr (kIsNarrow<From>) {
    return static_cast<T>(to_float(value));
  } else {
    return static_cast<T>(value);
  }
}

/// Rounded once.
template <class To, class T>
MPSNN_INLINE To rounded(T value) {
  if constexpr (kIsNarrow<To>) {
    return narrowed<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

template <class From, class T>
MPSNN_INLINE void copy_converted(const From* from, std::int64_t count, T* to) {
  std::int64_t i = 0;
  if constexpr (kIsNarrow<From> && sizeof(T) == sizeof(float)) {
    for (; i + static_cast<std::int64_t>(lanes<FloatVector>) <= count; i += lanes<FloatVector>)
      store<FloatVector>(to + i, load_narrow(from + i));
  }
  for (; i < count; ++i) to[i] = converted<T>(from[i]);
}

template <class T, class To>
MPSNN_INLINE void copy_rounded(const T* from, std::int64_t count, To* to) {
  std::int64_t i = 0;
  if constexpr (kIsNarrow<To> && sizeof(T) == sizeof(float)) {
    for (; i + static_cast<std::int64_t>(lanes<FloatVector>) <= count; i += lanes<FloatVector>)
      store_narrow(to + i, load<FloatVector>(from + i));
  }
  for (; i < count; ++i) to[i] = rounded<To>(from[i]);
}

template <class T>
MPSNN_INLINE T read_element(const std::byte* data, Format format, std::int64_t index) {
  T value{};
  with_elements(data, format, [&](auto from) { value = converted<T>(from[index]); });
  return value;
}

/// Copies `count` elements from index `first` on, each `stride` after the other, converted.
template <class T>
void convert_in(const std::byte* data, Format format, std::int64_t first, std::int64_t count, T* to,
                std::int64_t stride = 1) {
  with_elements(data, format, [&](auto from) {
    if (stride == 1) return copy_converted(from + first, count, to);
    for (std::int64_t i = 0; i < count; ++i) to[i] = converted<T>(from[first + i * stride]);
  });
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

/// Moves a tile that was made in scratch to where it belongs in a dense sink, rounding once.
template <class T>
void put(const T* from, std::int64_t count, const Sink& sink, std::int64_t first) {
  with_elements(sink.data, sink.format, [&](auto begin) {
    using To = std::remove_const_t<std::remove_pointer_t<decltype(begin)>>;
    To* const to = const_cast<To*>(begin) + first;
    if constexpr (sizeof(To) == sizeof(T)) {
      if (sink.streams) return stream_out(from, count, to);
    }
    copy_rounded(from, count, to);
  });
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
