// The vector vocabulary of the formulas and loops, over the compilers' own vector types (gcc,
// clang). Intrinsics stand where those have no operator: here, in narrow.hpp, streams.hpp and
// sums.hpp.
// Every file that includes this is compiled once per instruction set, in a namespace of its own, so
// that no code for a newer processor can end up in what an older one runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/half.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#ifndef MPSNN_ISA
#define MPSNN_ISA baseline
#endif

namespace mpsnn_loss::cpu::MPSNN_ISA {

#if defined(__AVX512F__)
inline constexpr std::size_t kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr std::size_t kVectorBytes = 32;
#else
inline constexpr std::size_t kVectorBytes = 16;
#endif

#define MPSNN_INLINE [[gnu::always_inline]] static inline
#define MPSNN_INLINE_MEMBER [[gnu::always_inline]] inline
#define MPSNN_INLINE_LAMBDA __attribute__((always_inline))

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float in_memory __attribute__((vector_size(kVectorBytes), aligned(sizeof(float))));
  typedef std::int32_t mask __attribute__((vector_size(kVectorBytes)));
  typedef std::uint32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double in_memory __attribute__((vector_size(kVectorBytes), aligned(sizeof(double))));
  typedef std::int64_t mask __attribute__((vector_size(kVectorBytes)));
  typedef std::uint64_t bits __attribute__((vector_size(kVectorBytes)));
};

using FloatVector = VectorOf<float>::type;
using DoubleVector = VectorOf<double>::type;

template <class V>
struct ScalarOf;
template <>
struct ScalarOf<FloatVector> {
  using type = float;
};
template <>
struct ScalarOf<DoubleVector> {
  using type = double;
};

template <class T>
using Vector = typename VectorOf<T>::type;
template <class V>
using Scalar = typename ScalarOf<V>::type;
template <class V>
using Mask = typename VectorOf<Scalar<V>>::mask;
template <class V>
using Bits = typename VectorOf<Scalar<V>>::bits;
template <class V>
inline constexpr std::size_t lanes = sizeof(V) / sizeof(Scalar<V>);

template <class V>
MPSNN_INLINE V broadcast(Scalar<V> x) {
  return x - V{};  // not x + V{}: that would turn -0 into +0
}

template <class V>
MPSNN_INLINE V load(const Scalar<V>* from) {
  return *reinterpret_cast<const typename VectorOf<Scalar<V>>::in_memory*>(from);
}

template <class V>
MPSNN_INLINE void store(Scalar<V>* to, V v) {
  *reinterpret_cast<typename VectorOf<Scalar<V>>::in_memory*>(to) = v;
}

/// The number of each lane.
template <class V>
inline constexpr Mask<V> kLaneNumbers = []<std::size_t... I>(std::index_sequence<I...>) {
  return Mask<V>{static_cast<std::int32_t>(I)...};
}(std::make_index_sequence<lanes<V>>());

/// True in the first `count` lanes.
template <class V>
MPSNN_INLINE Mask<V> first_lanes(std::size_t count) {
  return kLaneNumbers<V> < static_cast<decltype(Mask<V>{}[0] + 0)>(count);
}

/// 1 in one lane, or in none where there is no lane of that number.
template <class V>
MPSNN_INLINE V one_at(std::int64_t lane) {
  const bool exists = lane >= 0 && lane < static_cast<std::int64_t>(lanes<V>);
  const auto number = static_cast<decltype(Mask<V>{}[0] + 0)>(exists ? lane : -1);
  return (kLaneNumbers<V> == number) ? V{} + Scalar<V>(1) : V{};
}

/// The first `count` lanes from memory, zero in the others; nothing beyond them is touched.
template <class V>
MPSNN_INLINE V load_first(const Scalar<V>* from, std::size_t count) {
#if defined(__AVX512F__)
  const auto mask = (1u << count) - 1u;
  if constexpr (sizeof(Scalar<V>) == 4) {
    return (V)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
  } else {
    return (V)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), from);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(Scalar<V>) == 4) {
    return (V)_mm256_maskload_ps(from, (__m256i)first_lanes<V>(count));
  } else {
    return (V)_mm256_maskload_pd(from, (__m256i)first_lanes<V>(count));
  }
#else
  V v{};
  for (std::size_t i = 0; i < count; ++i) v[i] = from[i];
  return v;
#endif
}

template <class V>
MPSNN_INLINE void store_first(Scalar<V>* to, V v, std::size_t count) {
#if defined(__AVX512F__)
  const auto mask = (1u << count) - 1u;
  if constexpr (sizeof(Scalar<V>) == 4) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), (__m512)v);
  } else {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), (__m512d)v);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(Scalar<V>) == 4) {
    _mm256_maskstore_ps(to, (__m256i)first_lanes<V>(count), (__m256)v);
  } else {
    _mm256_maskstore_pd(to, (__m256i)first_lanes<V>(count), (__m256d)v);
  }
#else
  for (std::size_t i = 0; i < count; ++i) to[i] = v[i];
#endif
}

/// A vector of 16-byte pieces of memory, each `stride` elements behind the one before.
template <class V>
MPSNN_INLINE V load_pieces(const Scalar<V>* from, [[maybe_unused]] std::int64_t stride) {
#if defined(__AVX512F__)
  const auto piece = [&](std::int64_t k) {
    return _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k * stride)));
  };
  __m512 v = _mm512_castps128_ps512(piece(0));
  v = _mm512_insertf32x4(v, piece(1), 1);
  v = _mm512_insertf32x4(v, piece(2), 2);
  return (V)_mm512_insertf32x4(v, piece(3), 3);
#elif defined(__AVX2__)
  const auto piece = [&](std::int64_t k) {
    return _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k * stride)));
  };
  return (V)_mm256_insertf128_ps(_mm256_castps128_ps256(piece(0)), piece(1), 1);
#else
  return load<V>(from);
#endif
}

/// Stores one of a vector's 16-byte pieces.
template <std::size_t part, class V>
MPSNN_INLINE void store_piece(Scalar<V>* to, V v) {
#if defined(__AVX512F__)
  _mm_storeu_ps(reinterpret_cast<float*>(to), _mm512_extractf32x4_ps((__m512)v, part));
#elif defined(__AVX2__)
  _mm_storeu_ps(reinterpret_cast<float*>(to), _mm256_extractf128_ps((__m256)v, part));
#else
  static_assert(part == 0);
  store<V>(to, v);
#endif
}

template <class V>
MPSNN_INLINE V select(Mask<V> mask, V yes, V no) {
  return mask ? yes : no;
}

/// The larger or smaller of two; b where either is NaN.
#if defined(__AVX512F__)
MPSNN_INLINE FloatVector larger(FloatVector a, FloatVector b) {
  return (FloatVector)_mm512_max_ps((__m512)a, (__m512)b);
}
MPSNN_INLINE DoubleVector larger(DoubleVector a, DoubleVector b) {
  return (DoubleVector)_mm512_max_pd((__m512d)a, (__m512d)b);
}
MPSNN_INLINE FloatVector smaller(FloatVector a, FloatVector b) {
  return (FloatVector)_mm512_min_ps((__m512)a, (__m512)b);
}
MPSNN_INLINE DoubleVector smaller(DoubleVector a, DoubleVector b) {
  return (DoubleVector)_mm512_min_pd((__m512d)a, (__m512d)b);
}
#elif defined(__AVX2__)
MPSNN_INLINE FloatVector larger(FloatVector a, FloatVector b) {
  return (FloatVector)_mm256_max_ps((__m256)a, (__m256)b);
}
MPSNN_INLINE DoubleVector larger(DoubleVector a, DoubleVector b) {
  return (DoubleVector)_mm256_max_pd((__m256d)a, (__m256d)b);
}
MPSNN_INLINE FloatVector smaller(FloatVector a, FloatVector b) {
  return (FloatVector)_mm256_min_ps((__m256)a, (__m256)b);
}
MPSNN_INLINE DoubleVector smaller(DoubleVector a, DoubleVector b) {
  return (DoubleVector)_mm256_min_pd((__m256d)a, (__m256d)b);
}
#else
template <class V>
MPSNN_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}
template <class V>
MPSNN_INLINE V smaller(V a, V b) {
  return a < b ? a : b;
}
#endif

/// True where any lane of the mask is.
template <class V>
MPSNN_INLINE bool any(Mask<V> mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)mask) != 0;
#elif defined(__x86_64__)
  return _mm_movemask_epi8((__m128i)mask) != 0;
#else
  Scalar<V> count = 0;
  for (std::size_t i = 0; i < lanes<V>; ++i) count += mask[i] != 0 ? 1 : 0;
  return count != 0;
#endif
}

/// The number of the first lane where the mask is true, which is one of them.
template <class V>
MPSNN_INLINE std::int64_t first_true(Mask<V> mask) {
  std::int64_t lane = 0;
  while (mask[static_cast<std::size_t>(lane)] == 0) ++lane;
  return lane;
}

/// True where any lane is NaN.
template <class V>
MPSNN_INLINE bool has_nan(V v) {
  return any<V>(v != v);
}

template <class V>
MPSNN_INLINE Bits<V> bits(V v) {
  return reinterpret_cast<Bits<V>>(v);
}
template <class V>
MPSNN_INLINE V from_bits(Bits<V> b) {
  return reinterpret_cast<V>(b);
}

template <class V>
MPSNN_INLINE V abs(V v) {
  return from_bits<V>(bits(v) & ~bits(broadcast<V>(Scalar<V>(-0.0))));
}

/// True where mul_add rounds once.
#if defined(__FMA__) || defined(__ARM_NEON)
inline constexpr bool kRoundsOnce = true;
#else
inline constexpr bool kRoundsOnce = false;
#endif

/// a·b + c, with one rounding where the processor has it and two where it has not.
#if defined(__AVX512F__)
MPSNN_INLINE FloatVector mul_add(FloatVector a, FloatVector b, FloatVector c) {
  return (FloatVector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
MPSNN_INLINE DoubleVector mul_add(DoubleVector a, DoubleVector b, DoubleVector c) {
  return (DoubleVector)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__FMA__)
MPSNN_INLINE FloatVector mul_add(FloatVector a, FloatVector b, FloatVector c) {
  return (FloatVector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
MPSNN_INLINE DoubleVector mul_add(DoubleVector a, DoubleVector b, DoubleVector c) {
  return (DoubleVector)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#elif defined(__ARM_NEON)
MPSNN_INLINE FloatVector mul_add(FloatVector a, FloatVector b, FloatVector c) {
  return (FloatVector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
MPSNN_INLINE DoubleVector mul_add(DoubleVector a, DoubleVector b, DoubleVector c) {
  return (DoubleVector)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
template <class V>
MPSNN_INLINE V mul_add(V a, V b, V c) {
  return a * b + c;
}
#endif

/// True where one instruction looks up as many entries of a table as a vector has lanes.
#if defined(__AVX2__)
template <class V>
inline constexpr bool kHasLookup = sizeof(Scalar<V>) == sizeof(float);

/// In each lane the entry of the table with that lane's index, which counts modulo the lanes.
MPSNN_INLINE Bits<FloatVector> lookup(Bits<FloatVector> table, Bits<FloatVector> index) {
#if defined(__AVX512F__)
  return (Bits<FloatVector>)_mm512_permutexvar_epi32((__m512i)index, (__m512i)table);
#else
  return (Bits<FloatVector>)_mm256_permutevar8x32_epi32((__m256i)table, (__m256i)index);
#endif
}
#else
template <class V>
inline constexpr bool kHasLookup = false;
#endif

/// A sum and what its rounding lost (Knuth's TwoSum).
template <class V>
struct Sum {
  V value, error;
};

template <class V>
MPSNN_INLINE Sum<V> two_sum(V a, V b) {
  const V sum = a + b;
  const V part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

/// 1 + a·b, correct in sign and nearly so in the last place even where a·b is close to 1.
template <class V>
MPSNN_INLINE V one_plus_product(V a, V b) {
  const V one = broadcast<V>(1);
#if defined(__FMA__) || defined(__ARM_NEON)
  return mul_add(a, b, one);
#else
  // Dekker's product: splits the factors so that every partial product is exact.
  const V splitter = broadcast<V>(sizeof(Scalar<V>) == 4 ? Scalar<V>(4097) : Scalar<V>(134217729));
  const V a_big = a * splitter, b_big = b * splitter;
  const V a_high = a_big - (a_big - a), b_high = b_big - (b_big - b);
  const V a_low = a - a_high, b_low = b - b_high;
  const V product = a * b;
  const V error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  const V result = (one + product) + error;
  return select<V>(result == result, result, one + product);  // the split of huge factors overflows
#endif
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
