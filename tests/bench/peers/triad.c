// The limit of the memory: out = a + factor * b, with stores past the caches and with plain ones.

#include <stddef.h>

#if defined(__SSE2__)
#include <emmintrin.h>

void triad_non_temporal(const float* a, const float* b, float* out, float factor, size_t count,
                        int threads) {
  const __m128 factors = _mm_set1_ps(factor);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (size_t i = 0; i < count / 16; ++i) {
    for (size_t j = 16 * i; j < 16 * i + 16; j += 4) {
      const __m128 product = _mm_mul_ps(factors, _mm_loadu_ps(b + j));
      _mm_stream_ps(out + j, _mm_add_ps(_mm_loadu_ps(a + j), product));
    }
  }
  _mm_sfence();
}
#endif

void triad(const float* a, const float* b, float* out, float factor, size_t count, int threads) {
#pragma omp parallel for simd schedule(static) num_threads(threads)
  for (size_t i = 0; i < count; ++i) out[i] = a[i] + factor * b[i];
}
