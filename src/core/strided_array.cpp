#include "core/strided_array.hpp"

#include <algorithm>
#include <array>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "core/floating_point.hpp"
#include "core/half.hpp"

namespace mpsnn_loss {
namespace {

template <class T>
inline constexpr bool kIsNarrow = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

struct ElementTypeInfo {
  ElementType type;
  const char* name;
  std::int64_t size;
};

constexpr auto kElementTypes = std::to_array<ElementTypeInfo>({
    {ElementType::boolean, "bool", 1},
    {ElementType::int8, "int8", 1},
    {ElementType::int16, "int16", 2},
    {ElementType::int32, "int32", 4},
    {ElementType::int64, "int64", 8},
    {ElementType::uint8, "uint8", 1},
    {ElementType::uint16, "uint16", 2},
    {ElementType::uint32, "uint32", 4},
    {ElementType::uint64, "uint64", 8},
    {ElementType::float16, "float16", 2},
    {ElementType::float32, "float32", 4},
    {ElementType::float64, "float64", 8},
    {ElementType::long_double, "longdouble", sizeof(long double)},
    {ElementType::bfloat16, "bfloat16", 2},
});
static_assert([] {  // each row stands at the index of its type, and there is one for the last
  for (std::size_t i = 0; i < kElementTypes.size(); ++i) {
    if (kElementTypes[i].type != static_cast<ElementType>(i)) return false;
  }
  return kElementTypes.back().type == kLastElementType;
}());

/// Calls f with a value of the C++ type of the elements.
template <class F>
void with_type(ElementType type, F f) {
  switch (type) {
    case ElementType::boolean: return f(bool());
    case ElementType::int8: return f(std::int8_t());
    case ElementType::int16: return f(std::int16_t());
    case ElementType::int32: return f(std::int32_t());
    case ElementType::int64: return f(std::int64_t());
    case ElementType::uint8: return f(std::uint8_t());
    case ElementType::uint16: return f(std::uint16_t());
    case ElementType::uint32: return f(std::uint32_t());
    case ElementType::uint64: return f(std::uint64_t());
    case ElementType::float16: return f(Float16());
    case ElementType::float32: return f(float());
    case ElementType::float64: return f(double());
    case ElementType::long_double: return f(static_cast<long double>(0));
    case ElementType::bfloat16: return f(BFloat16());
  }
}

/// One element at any address.
template <class From>
From read(const std::byte* at, bool swapped) {
  if constexpr (std::is_same_v<From, bool>) return *at != std::byte{0};
  From value;
  std::memcpy(&value, at, sizeof value);
  if (swapped) {
    std::array<std::byte, sizeof value> bytes;
    std::memcpy(bytes.data(), at, sizeof value);
    std::ranges::reverse(bytes);
    std::memcpy(&value, bytes.data(), sizeof value);
  }
  return value;
}

template <class To, class From>
To converted(From value) {
  if constexpr (std::is_same_v<From, To>) {
    return value;
  } else if constexpr (kIsNarrow<From>) {
    return static_cast<To>(to_float(value));
  } else {
    return static_cast<To>(value);
  }
}

template <class From>
bool is_zero(From value) {
  if constexpr (kIsNarrow<From>) {
    return (value.bits & 0x7FFFu) == 0;
  } else {
    return value == From(0);
  }
}

/// The value in To, and of its sign the smallest there is instead of a 0 that rounding made.
template <class To, class From>
To converted_above_zero(From value) {
  const To rounded = converted<To>(value);
  if (rounded != To(0) || is_zero(value)) return rounded;
  return std::copysign(std::numeric_limits<To>::denorm_min(), rounded);
}

/// Calls run(address of the first element) for each line along the last axis, in C order.
template <class Run>
void for_each_line(const StridedArray& array, Run run) {
  const std::size_t outer = array.axes.empty() ? 0 : array.axes.size() - 1;
  if (std::ranges::find(array.axes, 0) != array.axes.end()) return;
  std::vector<std::int64_t> place(outer, 0);
  const std::byte* line = array.data;
  for (;;) {
    run(line);
    std::size_t i = outer;
    for (; i > 0; --i) {
      const std::size_t axis = i - 1;
      line += array.strides[axis];
      if (++place[axis] < array.axes[axis]) break;
      line -= array.strides[axis] * array.axes[axis];
      place[axis] = 0;
    }
    if (i == 0) return;
  }
}

/// Writes change(element) for all elements.
template <class From, class To, class Change>
void write(const StridedArray& array, To* to, Change change) {
  const std::int64_t count = array.axes.empty() ? 1 : array.axes.back();
  const std::int64_t stride = array.axes.empty() ? 0 : array.strides.back();
  constexpr auto kSize = static_cast<std::int64_t>(sizeof(From));
  for_each_line(array, [&](const std::byte* from) {
    if (stride == kSize && !array.swapped) {  // apart, for the compiler to make vectors of it
      for (std::int64_t i = 0; i < count; ++i) to[i] = change(read<From>(from + i * kSize, false));
    } else {
      for (std::int64_t i = 0; i < count; ++i)
        to[i] = change(read<From>(from + i * stride, array.swapped));
    }
    to += count;
  });
}

template <class To>
void write_as(const StridedArray& array, Underflow underflow, To* to) {
  with_type(array.type, [&](auto element) {
    using From = decltype(element);
    if constexpr (!kIsNarrow<To> || std::is_same_v<From, To>) {
      if constexpr (!std::is_same_v<From, To>) {
        if (underflow == Underflow::to_smallest)
          return write<From>(array, to, [](From x) { return converted_above_zero<To>(x); });
      }
      write<From>(array, to, [](From x) { return converted<To>(x); });
    } else {
      throw std::logic_error("16 bits are made from the same 16 bits alone");
    }
  });
}

/// The whole environment, which on x86 has a second part for long double.
class DefaultEnvironment {
 public:
  DefaultEnvironment() {
    std::fegetenv(&of_caller_);
    std::fesetenv(FE_DFL_ENV);
  }
  DefaultEnvironment(const DefaultEnvironment&) = delete;
  DefaultEnvironment& operator=(const DefaultEnvironment&) = delete;
  ~DefaultEnvironment() { std::fesetenv(&of_caller_); }

 private:
  std::fenv_t of_caller_;
};

[[gnu::noinline]] void convert_elements(const StridedArray& array, Format format,
                                        Underflow underflow, std::byte* to) {
  switch (format) {
    case Format::float16: return write_as(array, underflow, reinterpret_cast<Float16*>(to));
    case Format::float32: return write_as(array, underflow, reinterpret_cast<float*>(to));
    case Format::float64: return write_as(array, underflow, reinterpret_cast<double*>(to));
    case Format::bfloat16: return write_as(array, underflow, reinterpret_cast<BFloat16*>(to));
  }
}

}  // namespace

const char* name_of(ElementType type) { return kElementTypes[static_cast<std::size_t>(type)].name; }
std::int64_t size_of(ElementType type) {
  return kElementTypes[static_cast<std::size_t>(type)].size;
}

void set_contiguous_strides(std::span<const std::int64_t> axes, std::int64_t step,
                            std::int64_t* strides) {
  for (std::size_t i = axes.size(); i-- > 0; step *= axes[i]) strides[i] = step;
}

bool is_contiguous(const StridedArray& array) {
  std::int64_t stride = size_of(array.type);
  for (std::size_t i = array.axes.size(); i-- > 0;) {
    if (array.axes[i] == 0) return true;
    if (array.axes[i] != 1 && array.strides[i] != stride) return false;
    stride *= array.axes[i];
  }
  return true;
}

MemoryRange memory_of(const StridedArray& array) {
  return memory_of(array.data, size_of(array.type), array.axes, array.strides, 1);
}

void convert(const StridedArray& array, Format format, Underflow underflow, std::byte* to) {
  if (array.type == ElementType::long_double) {
    const DefaultEnvironment environment;
    return convert_elements(array, format, underflow, to);
  }
  const DefaultFloatingPoint environment;
  convert_elements(array, format, underflow, to);
}

void copy_out(const std::byte* from, const StridedArray& to) {
  const auto size = static_cast<std::size_t>(size_of(to.type));
  const std::int64_t count = to.axes.empty() ? 1 : to.axes.back();
  const std::int64_t stride = to.axes.empty() ? 0 : to.strides.back();
  for_each_line(to, [&](const std::byte* line) {
    auto* const begin = const_cast<std::byte*>(line);
    for (std::int64_t i = 0; i < count; ++i, from += size)
      std::memcpy(begin + i * stride, from, size);
  });
}

std::optional<std::int64_t> convert_to_int64(const StridedArray& array, std::int64_t* to) {
  std::int64_t* const begin = to;
  std::int64_t* beyond = nullptr;
  with_type(array.type, [&](auto element) {
    using From = decltype(element);
    if constexpr (std::is_integral_v<From>) {
      write<From>(array, to, [](From x) { return static_cast<std::int64_t>(x); });
    }
  });
  if (array.type == ElementType::uint64) {
    std::int64_t count = 1;
    for (const std::int64_t axis : array.axes) count *= axis;
    beyond = std::find_if(begin, begin + count, [](std::int64_t x) { return x < 0; });
    if (beyond != begin + count) return beyond - begin;
  }
  return std::nullopt;
}

}  // namespace mpsnn_loss
