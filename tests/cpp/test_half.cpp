// float16 storage (core/half.hpp), all 65536 values of it.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr std::uint32_t kAll = 0x10000, kSign = 0x8000, kInfinity = 0x7C00;

/// The value of a half by its definition: sign, 5 bits of exponent, 10 of significand.
double value_of(std::uint32_t half) {
  const double sign = (half & kSign) != 0 ? -1 : 1;
  const auto exponent = static_cast<int>(half >> 10 & 31),
             significand = static_cast<int>(half & 1023);
  if (exponent == 31) return significand == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(significand, -24);
  return sign * std::ldexp(1024 + significand, exponent - 25);
}

std::uint16_t to_half(double value) { return float_to_half(static_cast<float>(value)); }

}  // namespace

TEST_CASE("every half converts to its value and back") {
  std::uint32_t wrong_values = 0, wrong_round_trips = 0;
  for (std::uint32_t h = 0; h < kAll; ++h) {
    const double value = value_of(h);
    const float given = half_to_float(static_cast<std::uint16_t>(h));
    const std::uint16_t back = float_to_half(given);
    if (std::isnan(value)) {
      if (!std::isnan(given)) ++wrong_values;
      if (!std::isnan(value_of(back)) || (back & kSign) != (h & kSign)) ++wrong_round_trips;
    } else {
      const bool same =
          static_cast<double>(given) == value && std::signbit(given) == std::signbit(value);
      if (!same) ++wrong_values;
      if (back != h) ++wrong_round_trips;
    }
  }
  CHECK(wrong_values == 0);
  CHECK(wrong_round_trips == 0);
}

TEST_CASE("float to half rounds to nearest, and to even from the middle") {
  std::uint32_t wrong = 0;
  for (std::uint32_t h = 0; h < kInfinity; ++h) {
    // 2^16 stands for infinity: values from the middle on round to it.
    const double low = value_of(h), high = h + 1 == kInfinity ? 65536.0 : value_of(h + 1);
    const auto middle = static_cast<float>((low + high) / 2);
    const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, 1e9f);
    const std::uint32_t even = h % 2 == 0 ? h : h + 1;
    for (const std::uint32_t sign : {0u, kSign}) {
      const float factor = sign == 0 ? 1.0f : -1.0f;
      if (float_to_half(factor * middle) != (even | sign)) ++wrong;
      if (float_to_half(factor * below) != (h | sign)) ++wrong;
      if (float_to_half(factor * above) != ((h + 1) | sign)) ++wrong;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("floats beyond the range of half become zero, infinity or NaN of the same sign") {
  using Limits = std::numeric_limits<float>;
  CHECK(to_half(65504.0) == 0x7BFF);
  CHECK(float_to_half(Limits::max()) == kInfinity);
  CHECK(float_to_half(-Limits::infinity()) == (kInfinity | kSign));
  CHECK(float_to_half(Limits::denorm_min()) == 0);
  CHECK(float_to_half(-Limits::min()) == kSign);
  for (std::uint32_t payload = 1; payload < 0x800000; payload = payload * 2 + 1) {
    const auto nan = std::bit_cast<float>(0x7F800000u | payload);
    CHECK(std::isnan(value_of(float_to_half(nan))));
    CHECK(std::isnan(value_of(float_to_half(-nan))));
  }
}

TEST_CASE("floats of every exponent become the nearest half") {
  Random random(1);
  std::uint32_t wrong = 0;
  for (std::uint64_t i = 0; i < (1u << 20); ++i) {
    const auto bits = static_cast<std::uint32_t>(i << 12 | (random.next() & 0xFFF));
    const auto x = std::bit_cast<float>(bits);
    const auto half = float_to_half(x);
    if (std::isnan(x)) continue;
    const double given = static_cast<double>(x), error = std::abs(value_of(half) - given);
    const bool overflows = std::abs(given) >= 65520;
    if (overflows != std::isinf(value_of(half))) ++wrong;
    if (overflows) continue;
    const std::uint32_t size = half & 0x7FFFu;
    const double sign = (half & kSign) != 0 ? -1 : 1;
    const double above = size + 1 == kInfinity ? 65536 : value_of(size + 1);
    const double below = size == 0 ? -above : value_of(size - 1);
    if (error > std::abs(sign * above - given) || error > std::abs(sign * below - given)) ++wrong;
  }
  CHECK(wrong == 0);
}

}  // namespace mpsnn_loss::test
