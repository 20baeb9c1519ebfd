// Vectors of elements that are stored in 16 bits.
#pragma once

#include "core/half.hpp"
#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// A vector of float16 or bfloat16 in memory, as float32 and back (to nearest even).
MPSNN_INLINE FloatVector load_narrow(const Float16* from) {
#if defined(__AVX512F__)
  return (FloatVector)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(__F16C__)
  return (FloatVector)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#else
  FloatVector v;
  for (std::size_t i = 0; i < lanes<FloatVector>; ++i) v[i] = to_float(from[i]);
  return v;
#endif
}
MPSNN_INLINE void store_narrow(Float16* to, FloatVector v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (std::size_t i = 0; i < lanes<FloatVector>; ++i) to[i] = narrowed<Float16>(v[i]);
#endif
}

typedef std::uint16_t NarrowBits
    __attribute__((vector_size(kVectorBytes / 2), aligned(sizeof(std::uint16_t)), may_alias));

MPSNN_INLINE FloatVector load_narrow(const BFloat16* from) {
  const NarrowBits bits = *reinterpret_cast<const NarrowBits*>(from);
  return from_bits<FloatVector>(__builtin_convertvector(bits, Bits<FloatVector>) << 16);
}
MPSNN_INLINE void store_narrow(BFloat16* to, FloatVector v) {
  const Bits<FloatVector> all = bits(v);
  const Bits<FloatVector> rounded = all + 0x7FFFu + ((all >> 16) & 1u), quiet = all | 0x400000u;
  const Bits<FloatVector> narrow = (v == v ? rounded : quiet) >> 16;
  *reinterpret_cast<NarrowBits*>(to) = __builtin_convertvector(narrow, NarrowBits);
}

/// The same past the caches; `to` is aligned to so many bytes.
inline constexpr std::size_t kNarrowAlignment = 16;
template <class T>
MPSNN_INLINE void stream_narrow(T* to, FloatVector v) {
#if defined(__AVX2__)
  alignas(kVectorBytes) T narrow[lanes<FloatVector>];
  store_narrow(narrow, v);
  for (std::size_t i = 0; i < sizeof narrow / kNarrowAlignment; ++i)
    _mm_stream_si128((__m128i*)to + i, ((const __m128i*)narrow)[i]);
#else
  store_narrow(to, v);
#endif
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
