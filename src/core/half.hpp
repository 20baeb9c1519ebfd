// Storage in 16 bits, float16 and bfloat16, to and from float32, in integer arithmetic that
// compilers turn into vectors.
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

[[gnu::always_inline]] static inline float bfloat16_to_float(std::uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
}

/// Rounds to nearest even; too large becomes infinity.
[[gnu::always_inline]] static inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return static_cast<std::uint16_t>((is_nan ? bits | 0x400000u : rounded) >> 16);
}

/// An element of each, so that they are types of their own.
struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

[[gnu::always_inline]] static inline float to_float(Float16 x) { return half_to_float(x.bits); }
[[gnu::always_inline]] static inline float to_float(BFloat16 x) {
  return bfloat16_to_float(x.bits);
}

/// float64 as a float32 that rounds to 16 bits as the number itself would: what it loses is kept in
/// the last place (rounding to odd). float32 has enough places beyond those of either format.
[[gnu::always_inline]] static inline float before_rounding(double value) {
  const float nearest = static_cast<float>(value);
  const double difference = static_cast<double>(nearest) - value;
  if (difference == 0 || nearest - nearest != 0) return nearest;
  std::uint32_t bits = __builtin_bit_cast(std::uint32_t, nearest);
  const bool too_large = (difference > 0) == (nearest > 0);
  if (too_large && (bits & 0x7FFFFFFFu) != 0) --bits;
  return __builtin_bit_cast(float, bits | 1u);
}
[[gnu::always_inline]] static inline float before_rounding(float value) { return value; }

/// Rounded once.
template <class Narrow, class T>
[[gnu::always_inline]] static inline Narrow narrowed(T value) {
  if constexpr (__is_same(Narrow, Float16)) {
    return {float_to_half(before_rounding(value))};
  } else {
    return {float_to_bfloat16(before_rounding(value))};
  }
}

}  // namespace mpsnn_loss
