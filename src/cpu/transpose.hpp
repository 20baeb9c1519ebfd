// Rows side by side and back. A plane holds one channel of as many rows as a vector has lanes; the
// planes of such a group of rows follow one another. What moves is pieces of 16 bytes, the channels
// of a row that lie together: pieces of as many rows as fill a vector are transposed within its
// 16-byte parts.
#pragma once

#include <cstdint>
#include <utility>

#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// The elements of a piece.
template <class T>
inline constexpr std::int64_t kPiece = 16 / sizeof(T);

/// As many vectors as a piece has elements.
template <class V>
using Pieces = V[kPiece<Scalar<V>>];

/// Interleaves the lower (part 0) or upper halves of the 16-byte parts of a and b, stretches of
/// `stretch` lanes by turns.
template <std::size_t part, std::size_t stretch, class V, std::size_t... I>
MPSNN_INLINE V interleaved(V a, V b, std::index_sequence<I...>) {
  constexpr std::size_t n = lanes<V>, piece = kPiece<Scalar<V>>;
  return __builtin_shufflevector(
      a, b,
      static_cast<int>(I / piece * piece + part * piece / 2 + I % piece / (2 * stretch) * stretch +
                       I % stretch + I % (2 * stretch) / stretch * n)...);
}
template <std::size_t part, std::size_t stretch, class V>
MPSNN_INLINE V interleaved(V a, V b) {
  return interleaved<part, stretch>(a, b, std::make_index_sequence<lanes<V>>());
}

/// In each 16-byte part: element j of vector i becomes element i of vector j.
template <class V>
MPSNN_INLINE void transpose(Pieces<V>& v) {
  if constexpr (kPiece<Scalar<V>> == 2) {
    const V low = interleaved<0, 1>(v[0], v[1]), high = interleaved<1, 1>(v[0], v[1]);
    v[0] = low;
    v[1] = high;
  } else {
    const V low01 = interleaved<0, 1>(v[0], v[1]), high01 = interleaved<1, 1>(v[0], v[1]);
    const V low23 = interleaved<0, 1>(v[2], v[3]), high23 = interleaved<1, 1>(v[2], v[3]);
    v[0] = interleaved<0, 2>(low01, low23);
    v[1] = interleaved<1, 2>(low01, low23);
    v[2] = interleaved<0, 2>(high01, high23);
    v[3] = interleaved<1, 2>(high01, high23);
  }
}

/// Calls body(first channel) for pieces that cover all channels. The last may begin among those of
/// the one before it, or with too few channels go beyond them.
template <class T, class Body>
MPSNN_INLINE void for_each_piece(std::int64_t channels, Body body) {
  std::int64_t c = 0;
  for (; c + kPiece<T> <= channels; c += kPiece<T>) body(c);
  if (c < channels) body(channels < kPiece<T> ? 0 : channels - kPiece<T>);
}

/// The planes of one group of rows, each `stride` behind the one before; from fewer channels than a
/// piece has, up to one piece is read behind the last row and written behind the last plane.
template <class T>
MPSNN_INLINE void to_planes(const T* rows, std::int64_t channels, T* planes, std::int64_t stride) {
  using V = Vector<T>;
  for_each_piece<T>(channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
    Pieces<V> v;
    for (std::int64_t k = 0; k < kPiece<T>; ++k)
      v[k] = load_pieces<V>(rows + k * channels + c, kPiece<T> * channels);
    transpose<V>(v);
    for (std::int64_t k = 0; k < kPiece<T>; ++k) store<V>(planes + (c + k) * stride, v[k]);
  });
}

/// Stores the pieces of each row in the order of the rows: what one leaves beyond its end is
/// overwritten by the next.
template <class V, std::size_t part = 0>
MPSNN_INLINE void store_pieces(const Pieces<V>& v, Scalar<V>* rows, std::int64_t stride) {
  if constexpr (part < sizeof(V) / 16) {
    for (std::int64_t k = 0; k < kPiece<Scalar<V>>; ++k) store_piece<part>(rows + k * stride, v[k]);
    store_pieces<V, part + 1>(v, rows + kPiece<Scalar<V>> * stride, stride);
  }
}

/// The rows of one group of planes, each of which lies `stride` behind the one before. Of fewer
/// channels than a piece has, that much is read and written beyond the last.
template <class T>
MPSNN_INLINE void from_planes(const T* planes, std::int64_t stride, std::int64_t channels,
                              T* rows) {
  using V = Vector<T>;
  if (channels == 1) return store<V>(rows, load<V>(planes));
  for_each_piece<T>(channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
    Pieces<V> v;
    for (std::int64_t k = 0; k < kPiece<T>; ++k)
      v[k] = c + k < channels ? load<V>(planes + (c + k) * stride) : V{};
    transpose<V>(v);
    store_pieces<V>(v, rows + c, channels);
  });
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
