// The vector vocabulary of the formulas and loops, over the compilers' own vector types (gcc,
// clang). Every file that includes this is compiled once per instruction set, in a namespace of its
// own, so that no code for a newer processor can end up in what an older one runs.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__FMA__)
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

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef std::int32_t mask __attribute__((vector_size(kVectorBytes)));
  typedef std::uint32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
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
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
MPSNN_INLINE void store(Scalar<V>* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}

/// The first `count` lanes from memory, zero in the others.
template <class V>
MPSNN_INLINE V load_first(const Scalar<V>* from, std::size_t count) {
  V v{};
  __builtin_memcpy(&v, from, count * sizeof(Scalar<V>));
  return v;
}

template <class V>
MPSNN_INLINE void store_first(Scalar<V>* to, V v, std::size_t count) {
  __builtin_memcpy(to, &v, count * sizeof(Scalar<V>));
}

/// True in the first `count` lanes.
template <class V>
MPSNN_INLINE Mask<V> first_lanes(std::size_t count) {
  Mask<V> index;
  for (std::size_t i = 0; i < lanes<V>; ++i) index[i] = static_cast<decltype(index[0] + 0)>(i);
  return index < static_cast<decltype(index[0] + 0)>(count);
}

template <class V>
MPSNN_INLINE V select(Mask<V> mask, V yes, V no) {
  return mask ? yes : no;
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

template <class V>
MPSNN_INLINE Scalar<V> horizontal_sum(V v) {
  Scalar<V> sum = 0;
  for (std::size_t i = 0; i < lanes<V>; ++i) sum += v[i];
  return sum;
}

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

/// 1 - a·b, correct in sign and nearly so in the last place even where a·b is close to 1.
template <class V>
MPSNN_INLINE V one_minus_product(V a, V b) {
  const V one = broadcast<V>(1);
#if defined(__FMA__) || defined(__ARM_NEON)
  return mul_add(-a, b, one);
#else
  // Dekker's product: splits the factors so that every partial product is exact.
  const V splitter = broadcast<V>(sizeof(Scalar<V>) == 4 ? Scalar<V>(4097) : Scalar<V>(134217729));
  const V a_big = a * splitter, b_big = b * splitter;
  const V a_high = a_big - (a_big - a), b_high = b_big - (b_big - b);
  const V a_low = a - a_high, b_low = b - b_high;
  const V product = a * b;
  const V error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  const V result = (one - product) - error;
  return select<V>(result == result, result, one - product);  // the split of huge factors overflows
#endif
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
