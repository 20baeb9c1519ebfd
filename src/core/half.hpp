// float16 storage to and from float32, in integer arithmetic that compilers turn into vectors.
#pragma once

#include <cstdint>

#include "core/strict_semantics.hpp"

namespace mpsnn_loss {

[[gnu::always_inline]] static inline float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t size = half & 0x7FFFu;
  // Shifting moves the fields into place; the product corrects the exponent, subnormals included.
  const float scaled = __builtin_bit_cast(float, size << 13) * 0x1p112f;
  const std::uint32_t special = size >= 0x7C00u ? 0x7F800000u : 0u;
  return __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, scaled) | special | sign);
}

/// Rounds to nearest even; too large becomes infinity.
[[gnu::always_inline]] static inline std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t size = bits & 0x7FFFFFFFu;
  const std::uint32_t special = size > 0x7F800000u ? 0x7E00u : 0x7C00u;
  const std::uint32_t normal = (size - 0x37FFF001u + ((size >> 13) & 1u)) >> 13;
  // Adding 0.5 lets the adder round a subnormal result at its last place.
  const float aligned = __builtin_bit_cast(float, size) + 0.5f;
  const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, aligned) - 0x3F000000u;
  const std::uint32_t result = size >= 0x47800000u  ? special
                               : size < 0x38800000u ? subnormal
                                                    : normal;
  return static_cast<std::uint16_t>(result | ((bits >> 16) & 0x8000u));
}

}  // namespace mpsnn_loss
