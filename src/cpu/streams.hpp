// Stores past the caches, for results larger than they are.
#pragma once

#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// `to` is aligned to a vector.
MPSNN_INLINE void stream([[maybe_unused]] float* to, [[maybe_unused]] FloatVector v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)v);
#elif defined(__x86_64__)
  _mm_stream_ps(to, (__m128)v);
#else
  store(to, v);
#endif
}
MPSNN_INLINE void stream(double* to, DoubleVector v) {
  stream(reinterpret_cast<float*>(to), reinterpret_cast<FloatVector>(v));
}
/// Whether few instructions join lanes of two vectors to one.
#if defined(__AVX2__)
inline constexpr bool kJoinsLanes = true;
#else
inline constexpr bool kJoinsLanes = false;
#endif

/// The last `count` lanes of one vector and the first of the next.
template <class V>
class JoinedLanes {
 public:
  explicit JoinedLanes(std::int64_t count) {
    const auto words = static_cast<std::int32_t>(count) * kWordsOfLane;
    from_ = kLaneNumbers<FloatVector> - words;
    of_first_ = from_ < 0;
    from_ &= static_cast<std::int32_t>(lanes<FloatVector>) - 1;
  }
  MPSNN_INLINE_MEMBER V operator()(V first, V second) const {
    const FloatVector a = rotated(first), b = rotated(second);
    return reinterpret_cast<V>(of_first_ ? a : b);
  }

 private:
  static constexpr std::int32_t kWordsOfLane = sizeof(Scalar<V>) / sizeof(float);

  MPSNN_INLINE_MEMBER FloatVector rotated(V v) const {
#if defined(__AVX512F__)
    return (FloatVector)_mm512_permutexvar_ps((__m512i)from_, (__m512)v);
#elif defined(__AVX2__)
    return (FloatVector)_mm256_permutevar8x32_ps((__m256)v, (__m256i)from_);
#else
    return reinterpret_cast<FloatVector>(v);  // nobody asks
#endif
  }

  Mask<FloatVector> from_, of_first_;
};

/// Makes streamed stores visible to other threads before what follows.
MPSNN_INLINE void finish_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
