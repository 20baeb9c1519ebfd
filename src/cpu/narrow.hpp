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
#if defined(__AVX512F__)
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
  return (FloatVector)_mm512_slli_epi32(wide, 16);
#elif defined(__AVX2__)
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from));
  return (FloatVector)_mm256_slli_epi32(wide, 16);
#else
  const NarrowBits bits = *reinterpret_cast<const NarrowBits*>(from);
  return from_bits<FloatVector>(__builtin_convertvector(bits, Bits<FloatVector>) << 16);
#endif
}
/// The upper halves of all lanes.
MPSNN_INLINE void store_upper(BFloat16* to, Bits<FloatVector> all) {
#if defined(__AVX512F__)
  const __m256i narrow = _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)all, 16));
  _mm256_storeu_si256((__m256i*)to, narrow);
#else
  *reinterpret_cast<NarrowBits*>(to) = __builtin_convertvector(all >> 16, NarrowBits);
#endif
}
MPSNN_INLINE Bits<FloatVector> rounded_to_upper(Bits<FloatVector> all) {
  return all + 0x7FFFu + ((all >> 16) & 1u);
}
MPSNN_INLINE void store_narrow(BFloat16* to, FloatVector v) {
  const Bits<FloatVector> all = bits(v);
  store_upper(to, v == v ? rounded_to_upper(all) : all | 0x400000u);
}

/// The same where NaN may become any number: whoever stores it sees that and computes it again.
MPSNN_INLINE void store_numbers(Float16* to, FloatVector v) { store_narrow(to, v); }
MPSNN_INLINE void store_numbers(BFloat16* to, FloatVector v) {
  store_upper(to, rounded_to_upper(bits(v)));
}

/// The same past the caches; `to` is aligned to so many bytes.
inline constexpr std::size_t kNarrowAlignment = 16;
template <class T>
MPSNN_INLINE void stream_narrow(T* to, FloatVector v) {
#if defined(__AVX2__)
  alignas(kVectorBytes) T narrow[lanes<FloatVector>];
  store_numbers(narrow, v);
  for (std::size_t i = 0; i < sizeof narrow / kNarrowAlignment; ++i)
    _mm_stream_si128((__m128i*)to + i, ((const __m128i*)narrow)[i]);
#else
  store_numbers(to, v);
#endif
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
