// Sums over vectors and their lanes.
#pragma once

#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Combines the lanes of a vector with one another by halves: combine(combine(x0, x2), ...).
template <std::size_t half, class V, class Combine, std::size_t... I>
MPSNN_INLINE Scalar<V> fold_lanes(V v, Combine combine, std::index_sequence<I...> lane) {
  if constexpr (half == 0) {
    return v[0];
  } else {
    const V moved = __builtin_shufflevector(v, v, static_cast<int>((I + half) % lanes<V>)...);
    return fold_lanes<half / 2>(combine(v, moved), combine, lane);
  }
}

template <class V, class Combine>
MPSNN_INLINE Scalar<V> fold_lanes(V v, Combine combine) {
  return fold_lanes<lanes<V> / 2>(v, combine, std::make_index_sequence<lanes<V>>());
}

/// Of `group` vectors, each with groups of so many lanes, one group to a row: combines the halves
/// of every group, two vectors at a time, until the one that is left has a lane for each row.
template <std::size_t group, class V, class Combine, std::size_t... I>
MPSNN_INLINE void fold_groups(V* v, Combine combine, std::index_sequence<I...> lane) {
  if constexpr (group > 1) {
    constexpr std::size_t half = group / 2;
    constexpr auto first_of = [](std::size_t i) { return i / half * group + i % half; };
    for (std::size_t k = 0; k < half; ++k) {
      const V a = v[2 * k], b = v[2 * k + 1];
      v[k] = combine(__builtin_shufflevector(a, b, static_cast<int>(first_of(I))...),
                     __builtin_shufflevector(a, b, static_cast<int>(first_of(I) + half)...));
    }
    fold_groups<half>(v, combine, lane);
  }
}

/// What fold_lanes makes of each of as many vectors as one has lanes. They are overwritten.
template <class V, class Combine>
MPSNN_INLINE V fold_each(V* v, Combine combine) {
  fold_groups<lanes<V>>(v, combine, std::make_index_sequence<lanes<V>>());
  return v[0];
}

struct Add {
  template <class V>
  MPSNN_INLINE_MEMBER V operator()(V a, V b) const {
    return a + b;
  }
};
struct Larger {
  template <class V>
  MPSNN_INLINE_MEMBER V operator()(V a, V b) const {
    return larger(a, b);
  }
};

template <class V>
MPSNN_INLINE Scalar<V> sum_of_lanes(V v) {
  return fold_lanes(v, Add());
}

/// The halves of a vector, in float64.
struct Wide {
  DoubleVector low, high;
};
MPSNN_INLINE Wide widen(FloatVector v) {
#if defined(__AVX512F__)
  return {(DoubleVector)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)),
          (DoubleVector)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1))};
#elif defined(__AVX2__)
  return {(DoubleVector)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)),
          (DoubleVector)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1))};
#elif defined(__x86_64__)
  return {(DoubleVector)_mm_cvtps_pd((__m128)v),
          (DoubleVector)_mm_cvtps_pd(_mm_movehl_ps((__m128)v, (__m128)v))};
#else
  Wide wide;
  for (std::size_t i = 0; i < lanes<DoubleVector>; ++i) {
    wide.low[i] = static_cast<double>(v[i]);
    wide.high[i] = static_cast<double>(v[i + lanes<DoubleVector>]);
  }
  return wide;
#endif
}

/// Loops take so many vectors at a time, whose sums then do not wait for one another.
inline constexpr std::size_t kBlock = 4;
template <class V>
using Block = V[kBlock];

template <class V>
MPSNN_INLINE V sum_of(const Block<V>& u) {
  return (u[0] + u[1]) + (u[2] + u[3]);
}

/// Sums over vectors in float64; that of doubles also keeps what each addition rounds away. A block
/// is added in its own precision before it is widened.
template <class T>
class Accumulator;

template <>
class Accumulator<double> {
 public:
  MPSNN_INLINE_MEMBER void add(DoubleVector u) {
    const Sum<DoubleVector> sum = two_sum(sum_, u);
    sum_ = sum.value;
    error_ += sum.error;
  }
  MPSNN_INLINE_MEMBER void add_block(const Block<DoubleVector>& u) { add(sum_of(u)); }
  MPSNN_INLINE_MEMBER double total() const {
    const double sum = sum_of_lanes(sum_), exact = sum + sum_of_lanes(error_);
    return exact == exact ? exact : sum;  // the error of an infinite sum is NaN
  }

 private:
  DoubleVector sum_{}, error_{};
};

template <>
class Accumulator<float> {
 public:
  MPSNN_INLINE_MEMBER void add(FloatVector u) {
    const Wide wide = widen(u);
    low_ += wide.low;
    high_ += wide.high;
  }
  MPSNN_INLINE_MEMBER void add_block(const Block<FloatVector>& u) { add(sum_of(u)); }
  MPSNN_INLINE_MEMBER double total() const { return sum_of_lanes(low_ + high_); }

 private:
  DoubleVector low_{}, high_{};
};

/// A sum that is formed in the precision of its terms within a tile, which adds few vectors to each
/// part, and in float64 beyond.
template <class T>
class TileSum {
 public:
  MPSNN_INLINE_MEMBER void add(std::size_t part, Vector<T> u) { parts_[part] += u; }
  MPSNN_INLINE_MEMBER void end_tile() {
    tiles_.add(sum_of(parts_));
    for (Vector<T>& part : parts_) part = Vector<T>{};
  }
  MPSNN_INLINE_MEMBER double total() const { return tiles_.total(); }

 private:
  Block<Vector<T>> parts_{};
  Accumulator<T> tiles_;
};

/// The place of the first value that is above the limit; -1 where none is.
template <class V>
std::int64_t first_above(const Scalar<V>* values, std::int64_t count, V limit) {
  constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);
  for (std::int64_t i = 0; i < count; i += kWidth) {
    const auto rest = static_cast<std::size_t>(count - i);
    const V x = rest < lanes<V> ? load_first<V>(values + i, rest) : load<V>(values + i);
    if (any<V>(x > limit)) return i + first_true<V>(x > limit);
  }
  return -1;
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
