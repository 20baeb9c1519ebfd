// Rows of few elements as planes and back. A plane holds one element of each row, as many rows as a
// vector has lanes; the planes of such a group of rows follow one another.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/plan.hpp"
#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class V>
struct Pair {
  V low, high;
};

/// Exchanges every second stretch of `half` lanes of a with the stretch before it of b.
template <std::size_t half, class V, std::size_t... I>
MPSNN_INLINE Pair<V> exchange(V a, V b, std::index_sequence<I...>) {
  constexpr auto n = lanes<V>;
  return {__builtin_shufflevector(a, b, static_cast<int>((I & half) == 0 ? I : I - half + n)...),
          __builtin_shufflevector(a, b, static_cast<int>((I & half) == 0 ? I + half : I + n)...)};
}
template <std::size_t half, class V>
MPSNN_INLINE Pair<V> exchange(V a, V b) {
  return exchange<half>(a, b, std::make_index_sequence<lanes<V>>());
}

/// As many vectors as they have lanes: element j of vector i becomes element i of vector j. Each
/// step does so for stretches of `half`; the steps may come in any order.
template <class V>
using Square = V[lanes<V>];

template <std::size_t half, class V>
MPSNN_INLINE void transpose_step(Square<V>& square) {
  for (std::size_t i = 0; i < lanes<V>; ++i) {
    if ((i & half) != 0) continue;
    const Pair<V> pair = exchange<half>(square[i], square[i + half]);
    square[i] = pair.low;
    square[i + half] = pair.high;
  }
}

/// Large stretches first: where the later half of the result is not used, most of it is not made.
template <class V, std::size_t half = lanes<V> / 2>
MPSNN_INLINE void transpose(Square<V>& square) {
  if constexpr (half > 0) {
    transpose_step<half, V>(square);
    transpose<V, half / 2>(square);
  }
}
/// Large stretches last: where the later half of the vectors is 0, most of it need not be moved.
template <class V, std::size_t half = 1>
MPSNN_INLINE void transpose_back(Square<V>& square) {
  if constexpr (half < lanes<V>) {
    transpose_step<half, V>(square);
    transpose_back<V, half * 2>(square);
  }
}

/// Calls body(first channel, count) for the channels of a square after another, where `count`, all
/// or half of a square's, covers those that are left. The last come first: what is made beyond them
/// lies where the first of the next row or group belong.
template <class V, class Body>
MPSNN_INLINE void for_each_square(std::int64_t channels, Body body) {
  constexpr auto n = static_cast<std::int64_t>(lanes<V>);
  for (std::int64_t c = (channels - 1) / n * n; c >= 0; c -= n) {
    if (channels - c <= n / 2) {
      body(c, std::integral_constant<std::int64_t, n / 2>());
    } else {
      body(c, std::integral_constant<std::int64_t, n>());
    }
  }
}

/// The planes of `groups` groups of rows, behind which there is room to read a vector, and behind
/// the planes room to write a square.
template <class T>
MPSNN_INLINE void whole_groups_to_planes(const T* rows, std::int64_t groups, std::int64_t channels,
                                         T* planes) {
  using V = Vector<T>;
  constexpr auto n = static_cast<std::int64_t>(lanes<V>);
  for_each_square<V>(channels, [&](std::int64_t c, auto count) MPSNN_INLINE_LAMBDA {
    const T* from = rows + c;
    T* to = planes + c * n;
    for (std::int64_t g = 0; g < groups; ++g, from += n * channels, to += n * channels) {
      Square<V> square;
      for (std::int64_t r = 0; r < n; ++r) square[r] = load<V>(from + r * channels);
      transpose<V>(square);
      for (std::int64_t k = 0; k < count; ++k) store<V>(to + k * n, square[k]);
    }
  });
}

/// The rows of `groups` groups of planes, behind which there is room to write a vector, and behind
/// the planes room to read a square.
template <class T>
MPSNN_INLINE void whole_groups_from_planes(const T* planes, std::int64_t groups,
                                           std::int64_t channels, T* rows) {
  using V = Vector<T>;
  constexpr auto n = static_cast<std::int64_t>(lanes<V>);
  for_each_square<V>(channels, [&](std::int64_t c, auto count) MPSNN_INLINE_LAMBDA {
    const T* from = planes + c * n;
    T* to = rows + c;
    for (std::int64_t g = 0; g < groups; ++g, from += n * channels, to += n * channels) {
      Square<V> square = {};
      for (std::int64_t k = 0; k < count; ++k) square[k] = load<V>(from + k * n);
      transpose_back<V>(square);
      for (std::int64_t r = 0; r < n; ++r) store<V>(to + r * channels, square[r]);
    }
  });
}

/// Calls whole(groups) for the groups of rows that have room for a vector behind them, and
/// last(first element, bytes) for each of those that have not.
template <class T, class Whole, class Last>
MPSNN_INLINE void for_each_group_of_rows(std::int64_t elements, std::int64_t channels, Whole whole,
                                         Last last) {
  constexpr auto n = static_cast<std::int64_t>(lanes<Vector<T>>);
  const std::int64_t group = n * channels, groups = elements < n ? 0 : (elements - n) / group;
  whole(groups);
  for (std::int64_t at = groups * group; at < elements; at += group) {
    const std::int64_t rest = elements - at;
    last(at, static_cast<std::size_t>(rest < group ? rest : group) * sizeof(T));
  }
}

/// A group of rows and room for a vector.
template <class T>
using GroupOfRows = T[lanes<Vector<T>> * (kMostInPlanes + 1)];

/// `elements` of rows as planes; rows that the last group lacks become 0.
template <class T>
void to_planes(const T* rows, std::int64_t elements, std::int64_t channels, T* planes) {
  for_each_group_of_rows<T>(
      elements, channels,
      [&](std::int64_t groups) { whole_groups_to_planes(rows, groups, channels, planes); },
      [&](std::int64_t at, std::size_t bytes) {
        GroupOfRows<T> group = {};
        __builtin_memcpy(group, rows + at, bytes);
        whole_groups_to_planes(group, 1, channels, planes + at);
      });
}

/// And back.
template <class T>
void from_planes(const T* planes, std::int64_t elements, std::int64_t channels, T* rows) {
  for_each_group_of_rows<T>(
      elements, channels,
      [&](std::int64_t groups) { whole_groups_from_planes(planes, groups, channels, rows); },
      [&](std::int64_t at, std::size_t bytes) {
        GroupOfRows<T> group;
        whole_groups_from_planes(planes + at, 1, channels, group);
        __builtin_memcpy(rows + at, group, bytes);
      });
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
