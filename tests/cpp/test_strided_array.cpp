// Conversions of arrays from outside, against C++'s own.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/strided_array.hpp"

namespace mpsnn_loss::test {
namespace {

using Axes = std::vector<std::int64_t>;

template <class To>
std::vector<To> converted(const StridedArray& array, Format format,
                          Underflow underflow = Underflow::to_zero) {
  std::size_t count = 1;
  for (const std::int64_t axis : array.axes) count *= static_cast<std::size_t>(axis);
  std::vector<To> result(count);
  convert(array, format, underflow, reinterpret_cast<std::byte*>(result.data()));
  return result;
}

/// One axis of `values`, as they lie.
template <class From>
struct Line {
  std::vector<From> values;
  ElementType type;
  Axes axes{static_cast<std::int64_t>(values.size())};
  Axes strides{static_cast<std::int64_t>(sizeof(From))};

  StridedArray array(bool swapped = false) const {
    return {reinterpret_cast<const std::byte*>(values.data()), type, swapped, axes, strides};
  }
};

template <class From>
void check_values(ElementType type, std::vector<From> values) {
  CAPTURE(name_of(type));
  CHECK(size_of(type) == sizeof(From));
  Line<From> line{values, type};
  const auto singles = converted<float>(line.array(), Format::float32);
  const auto doubles = converted<double>(line.array(), Format::float64);
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(singles[i] == static_cast<float>(values[i]));
    CHECK(doubles[i] == static_cast<double>(values[i]));
  }
  for (From& value : line.values) {
    auto* const bytes = reinterpret_cast<std::byte*>(&value);
    std::reverse(bytes, bytes + sizeof value);
  }
  CHECK(converted<double>(line.array(true), Format::float64) == doubles);
}

}  // namespace

TEST_CASE("every element type converts as C++ does, in either byte order") {
  check_values<std::int8_t>(ElementType::int8, {0, 1, -1, 127, -128});
  check_values<std::uint8_t>(ElementType::uint8, {0, 1, 255});
  check_values<std::int16_t>(ElementType::int16, {0, 1, -1, 32767, -32768});
  check_values<std::uint16_t>(ElementType::uint16, {0, 1, 65535});
  check_values<std::int32_t>(ElementType::int32, {0, 16777217, -2147483647});
  check_values<std::uint32_t>(ElementType::uint32, {0, 16777217, 4294967295u});
  check_values<std::int64_t>(ElementType::int64, {16777217, INT64_MAX, INT64_MIN});
  check_values<std::uint64_t>(ElementType::uint64, {16777217, UINT64_MAX});
  check_values<float>(ElementType::float32, {0.f, 1e-45f, -3.4e38f, 1.5f});
  check_values<double>(ElementType::float64, {0.0, 1e-50, -1e300, 1.1, 1 + 0x1p-24});
  check_values<long double>(ElementType::long_double, {0.0L, 1.1L, -1e300L, 1 + 0x1p-60L});
}

TEST_CASE("any strides are read: steps, backwards, transposed, broadcast, unaligned") {
  std::vector<std::byte> memory(1 + 24 * sizeof(double));
  for (int i = 0; i < 24; ++i) {
    const double value = i;
    std::memcpy(memory.data() + 1 + static_cast<std::size_t>(i) * sizeof value, &value,
                sizeof value);
  }
  const Axes axes{2, 3, 4};
  for (const Axes& steps :
       {Axes{12, 4, 1}, Axes{-12, 4, -1}, Axes{1, 2, 6}, Axes{0, 0, 5}, Axes{3, 0, 0}}) {
    std::int64_t first = 0;
    Axes strides;
    for (std::size_t i = 0; i < 3; ++i) {
      if (steps[i] < 0) first -= steps[i] * (axes[i] - 1);
      strides.push_back(steps[i] * 8);
    }
    const StridedArray array{memory.data() + 1 + first * 8, ElementType::float64, false, axes,
                             strides};
    const auto result = converted<float>(array, Format::float32);
    std::size_t at = 0;
    for (std::int64_t i = 0; i < 2; ++i) {
      for (std::int64_t j = 0; j < 3; ++j) {
        for (std::int64_t k = 0; k < 4; ++k)
          CHECK(result[at++] ==
                static_cast<float>(first + i * steps[0] + j * steps[1] + k * steps[2]));
      }
    }
    const MemoryRange range = memory_of(array);
    CHECK(range.begin >= reinterpret_cast<std::uintptr_t>(memory.data()));
    CHECK(range.end <= reinterpret_cast<std::uintptr_t>(memory.data() + memory.size()));
  }
}

TEST_CASE("a weight that is not 0 does not round to 0") {
  const double smallest = std::numeric_limits<float>::denorm_min();
  const Line<double> line{{1e-50, -1e-300, 0.0, -0.0, 1.0, smallest}, ElementType::float64};
  const auto kept = converted<float>(line.array(), Format::float32, Underflow::to_smallest);
  CHECK(kept[0] == std::numeric_limits<float>::denorm_min());
  CHECK(kept[1] == -std::numeric_limits<float>::denorm_min());
  CHECK(kept[2] == 0);
  CHECK(kept[3] == 0);
  CHECK(kept[4] == 1);
  const auto rounded = converted<float>(line.array(), Format::float32);
  CHECK(rounded[0] == 0);
  CHECK(std::signbit(rounded[1]));
}

TEST_CASE("conversions do not depend on the caller's rounding mode") {
  const Line<double> doubles{{0.1, 1 + 0x1p-30, -0.1, 1e300}, ElementType::float64};
  const Line<long double> wide{{0.1L, 1 + 0x1p-60L, -0.1L}, ElementType::long_double};
  const Line<std::int64_t> integers{{16777217, INT64_MAX, -16777219}, ElementType::int64};
  const auto all = [&] {
    auto result = converted<float>(doubles.array(), Format::float32);
    for (const double x : converted<double>(wide.array(), Format::float64))
      result.push_back(static_cast<float>(x - 1));
    for (const float x : converted<float>(integers.array(), Format::float32)) result.push_back(x);
    return result;
  };
  const auto expected = all();
  for (const int mode : {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    const auto direct = converted<float>(doubles.array(), Format::float32);
    const auto of_wide = converted<double>(wide.array(), Format::float64);
    const auto of_integers = converted<float>(integers.array(), Format::float32);
    CHECK(std::fegetround() == mode);
    std::fesetround(FE_TONEAREST);
    CHECK(direct == converted<float>(doubles.array(), Format::float32));
    CHECK(of_wide == converted<double>(wide.array(), Format::float64));
    CHECK(of_integers == converted<float>(integers.array(), Format::float32));
  }
  CHECK(expected == all());
}

TEST_CASE("integers become int64, and what it does not hold is told by its place") {
  const Line<std::uint64_t> line{{0, 5, std::uint64_t{1} << 63, UINT64_MAX}, ElementType::uint64};
  std::array<std::int64_t, 4> to{};
  CHECK(convert_to_int64(line.array(), to.data()) == 2);
  const Line<std::int16_t> small{{-3, 7}, ElementType::int16};
  CHECK_FALSE(convert_to_int64(small.array(), to.data()));
  CHECK(to[0] == -3);
  CHECK(to[1] == 7);
}

TEST_CASE("nothing has no memory and is not looped over") {
  const Axes axes{std::int64_t{1} << 60, 0}, strides{0, 8};
  const StridedArray array{nullptr, ElementType::float64, false, axes, strides};
  CHECK(memory_of(array).begin == memory_of(array).end);
  convert(array, Format::float32, Underflow::to_zero, nullptr);
}

}  // namespace mpsnn_loss::test
