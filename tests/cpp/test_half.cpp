// Storage in 16 bits (core/half.hpp), all 65536 values of both formats.
#include "core/half.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/element.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr std::uint32_t kAll = 0x10000, kSign = 0x8000;

struct Half {
  using Type = Float16;
  static constexpr Format kFormat = Format::float16;
  static constexpr int kDigits = 10, kBias = 15;  // of the significand; of the exponent
  static constexpr std::uint32_t kLargest = 0x7BFF, kInfinity = 0x7C00;

  static std::uint16_t from(float x) { return float_to_half(x); }
  static float value(std::uint16_t bits) { return half_to_float(bits); }
};
struct BHalf {
  using Type = BFloat16;
  static constexpr Format kFormat = Format::bfloat16;
  static constexpr int kDigits = 7, kBias = 127;
  static constexpr std::uint32_t kLargest = 0x7F7F, kInfinity = 0x7F80;

  static std::uint16_t from(float x) { return float_to_bfloat16(x); }
  static float value(std::uint16_t bits) { return bfloat16_to_float(bits); }
};

/// The value of 16 bits by their definition: sign, exponent, significand.
template <class H>
double value_of(std::uint32_t bits) {
  const double sign = (bits & kSign) != 0 ? -1 : 1;
  const std::uint32_t size = bits & ~kSign;
  const auto exponent = static_cast<int>(size >> H::kDigits);
  const auto significand = static_cast<int>(size & ((1u << H::kDigits) - 1));
  if (size >= H::kInfinity) return significand == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(significand, 1 - H::kBias - H::kDigits);
  return sign * std::ldexp((1 << H::kDigits) + significand, exponent - H::kBias - H::kDigits);
}

/// The next one of that sign, where a power of 2 stands for infinity: from the middle on, values
/// round to it.
template <class H>
double value_after(std::uint32_t size) {
  return size == H::kLargest ? std::ldexp(1.0, H::kBias + 1) : value_of<H>(size + 1);
}

/// float64 to 16 bits in all the ways there are, which agree.
template <class H>
std::uint32_t narrow(double x) {
  const std::uint16_t bits = narrowed<typename H::Type>(x).bits;
  std::uint16_t written = 0;
  write_value(reinterpret_cast<std::byte*>(&written), H::kFormat, x);
  return bits == written ? bits : kAll;
}

}  // namespace

TEST_CASE_TEMPLATE("every value of 16 bits converts to its number and back", H, Half, BHalf) {
  std::uint32_t wrong_values = 0, wrong_round_trips = 0;
  for (std::uint32_t h = 0; h < kAll; ++h) {
    const auto bits = static_cast<std::uint16_t>(h);
    const double value = value_of<H>(h);
    const float given = H::value(bits);
    const std::uint32_t back = H::from(given), from_double = narrow<H>(static_cast<double>(given));
    if (to_float(typename H::Type{bits}) != given && !std::isnan(value)) ++wrong_values;
    if (std::isnan(value)) {
      if (!std::isnan(given)) ++wrong_values;
      for (const std::uint32_t b : {back, from_double}) {
        if (!std::isnan(value_of<H>(b)) || (b & kSign) != (h & kSign)) ++wrong_round_trips;
      }
    } else {
      const bool same =
          static_cast<double>(given) == value && std::signbit(given) == std::signbit(value);
      if (!same) ++wrong_values;
      if (back != h || from_double != h) ++wrong_round_trips;
    }
  }
  CHECK(wrong_values == 0);
  CHECK(wrong_round_trips == 0);
}

TEST_CASE_TEMPLATE("float to 16 bits rounds to nearest, and to even from the middle", H, Half,
                   BHalf) {
  std::uint32_t wrong = 0;
  for (std::uint32_t h = 0; h < H::kInfinity; ++h) {
    const auto middle = static_cast<float>(value_of<H>(h) / 2 + value_after<H>(h) / 2);
    const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, HUGE_VALF);
    const std::uint32_t even = h % 2 == 0 ? h : h + 1;
    for (const std::uint32_t sign : {0u, kSign}) {
      const float factor = sign == 0 ? 1.0f : -1.0f;
      if (H::from(factor * middle) != (even | sign)) ++wrong;
      if (H::from(factor * below) != (h | sign)) ++wrong;
      if (H::from(factor * above) != ((h + 1) | sign)) ++wrong;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("float64 to 16 bits rounds once, also where float32 would round to a middle", H,
                   Half, BHalf) {
  std::uint32_t wrong = 0, rounded_twice = 0;
  for (std::uint32_t h = 0; h < H::kInfinity; ++h) {
    const double low = value_of<H>(h), high = value_after<H>(h), middle = low / 2 + high / 2;
    const std::uint32_t even = h % 2 == 0 ? h : h + 1;
    for (const std::uint32_t sign : {0u, kSign}) {
      const double factor = sign == 0 ? 1 : -1;
      if (narrow<H>(factor * middle) != (even | sign)) ++wrong;
      // By a last place of float64, by far less than float32 tells apart, by little, by half.
      for (const double part : {0.0, 0x1p-40, 0x1p-30, 0x1p-17, 0x1p-10, 0.25, 0.5}) {
        const double beside = part * (high - middle);
        const double below = part == 0 ? std::nextafter(middle, 0.0) : middle - beside;
        const double above = part == 0 ? std::nextafter(middle, HUGE_VAL) : middle + beside;
        if (narrow<H>(factor * below) != (h | sign)) ++wrong;
        if (narrow<H>(factor * above) != ((h + 1) | sign)) ++wrong;
        const auto twice = H::from(static_cast<float>(h % 2 == 0 ? above : below));
        rounded_twice += twice != (h % 2 == 0 ? h + 1 : h);
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(rounded_twice > H::kInfinity);  // so the numbers are to the point
}

TEST_CASE_TEMPLATE("numbers beyond the range become zero, infinity or NaN of the same sign", H,
                   Half, BHalf) {
  using Doubles = std::numeric_limits<double>;
  const double largest = value_of<H>(H::kLargest), smallest = value_of<H>(1);
  CHECK(H::from(static_cast<float>(largest)) == H::kLargest);
  CHECK(H::from(std::numeric_limits<float>::max()) == H::kInfinity);
  CHECK(H::from(-std::numeric_limits<float>::infinity()) == (H::kInfinity | kSign));
  CHECK(H::from(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(H::from(-std::numeric_limits<float>::denorm_min()) == kSign);
  for (const std::uint32_t sign : {0u, kSign}) {
    const double factor = sign == 0 ? 1 : -1;
    for (const double x : {1.5 * largest, 1e39, 1e300, Doubles::max(), Doubles::infinity()})
      CHECK(narrow<H>(factor * x) == (H::kInfinity | sign));
    for (const double x : {0.5 * smallest, 1e-50, 1e-300, Doubles::denorm_min(), 0.0})
      CHECK(narrow<H>(factor * x) == sign);
    CHECK(std::isnan(value_of<H>(narrow<H>(factor * Doubles::quiet_NaN()))));
  }
  for (std::uint32_t payload = 1; payload < 0x800000; payload = payload * 2 + 1) {
    const auto nan = std::bit_cast<float>(0x7F800000u | payload);
    CHECK(std::isnan(value_of<H>(H::from(nan))));
    CHECK(std::isnan(value_of<H>(H::from(-nan))));
  }
}

TEST_CASE_TEMPLATE("numbers of every exponent become the nearest value of 16 bits", H, Half,
                   BHalf) {
  Random random(1);
  const double overflow = value_of<H>(H::kLargest) / 2 + value_after<H>(H::kLargest) / 2;
  std::uint32_t wrong = 0;
  const auto check = [&](double given, std::uint32_t bits) {
    const double error = std::abs(value_of<H>(bits) - given);
    const bool overflows = std::abs(given) >= overflow;
    if (overflows != std::isinf(value_of<H>(bits))) ++wrong;
    if (overflows) return;
    const std::uint32_t size = bits & ~kSign;
    const double sign = (bits & kSign) != 0 ? -1 : 1;
    const double above = value_after<H>(size);
    const double below = size == 0 ? -above : value_of<H>(size - 1);
    if (error > std::abs(sign * above - given) || error > std::abs(sign * below - given)) ++wrong;
  };
  for (std::uint64_t i = 0; i < (1u << 20); ++i) {
    const auto x =
        std::bit_cast<float>(static_cast<std::uint32_t>(i << 12 | (random.next() & 0xFFF)));
    if (std::isnan(x)) continue;
    check(static_cast<double>(x), H::from(x));
    // The same with places that float32 does not have.
    const double finer = static_cast<double>(x) * (1 + random.uniform(-1, 1) * 0x1p-24);
    check(finer, narrow<H>(finer));
  }
  CHECK(wrong == 0);
}

}  // namespace mpsnn_loss::test
