// Arrays as they come from outside: any built-in element type, any strides, either byte order; and
// their conversion to what the engines read. Conversions run in the default floating-point
// environment, which those of NumPy do not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "core/memory_range.hpp"
#include "core/shape.hpp"

namespace mpsnn_loss {

/// How one element of an array from outside is stored.
enum class ElementType : std::uint8_t {
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  float16,
  float32,
  float64,
  long_double,
  bfloat16,
};

inline constexpr ElementType kLastElementType = ElementType::bfloat16;

constexpr bool is_integer(ElementType type) {
  return type >= ElementType::int8 && type <= ElementType::uint64;
}
/// "int64", as NumPy writes it.
const char* name_of(ElementType type);
std::int64_t size_of(ElementType type);
constexpr ElementType element_type(Format format) {
  switch (format) {
    case Format::float16: return ElementType::float16;
    case Format::float32: return ElementType::float32;
    case Format::float64: return ElementType::float64;
    case Format::bfloat16: return ElementType::bfloat16;
  }
  return ElementType::float32;
}
/// The storage format of the same elements; none for what is no storage format.
constexpr std::optional<Format> storage_format(ElementType type) {
  switch (type) {
    case ElementType::float16: return Format::float16;
    case ElementType::float32: return Format::float32;
    case ElementType::float64: return Format::float64;
    case ElementType::bfloat16: return Format::bfloat16;
    default: return std::nullopt;
  }
}
static_assert([] {  // every format has a type of its own, which is none of integers
  for (const FormatInfo& row : kFormats) {
    const ElementType type = element_type(row.format);
    if (storage_format(type) != row.format || is_integer(type)) return false;
  }
  return true;
}());

/// An array in host memory that belongs to somebody else.
struct StridedArray {
  const std::byte* data = nullptr;
  ElementType type = ElementType::float32;
  bool swapped = false;  // in the other byte order
  std::span<const std::int64_t> axes;
  std::span<const std::int64_t> strides;  // in bytes, one for each axis; 0 where it broadcasts
};

/// How far the next element of C order lies along each axis, where those of the last one lie `step`
/// apart.
void set_contiguous_strides(std::span<const std::int64_t> axes, std::int64_t step,
                            std::int64_t* strides);

/// In C order, without gaps.
bool is_contiguous(const StridedArray& array);

/// Every address that an element may lie at; nothing where an axis is empty.
MemoryRange memory_of(const StridedArray& array);
/// The same of elements of `size` bytes, whose strides count in steps of so many bytes.
inline MemoryRange memory_of(const std::byte* data, std::int64_t size,
                             std::span<const std::int64_t> axes,
                             std::span<const std::int64_t> strides, std::int64_t step) {
  std::uintptr_t below = 0, above = 0;  // the first element, in steps
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] == 0) return {};
    // Unsigned, so that an array that claims too much wraps around instead of overflowing.
    const auto stride = static_cast<std::uintptr_t>(strides[i]);
    (strides[i] < 0 ? below : above) += stride * static_cast<std::uintptr_t>(axes[i] - 1);
  }
  const auto first = reinterpret_cast<std::uintptr_t>(data);
  const auto bytes = static_cast<std::uintptr_t>(step);
  return {first + below * bytes, first + above * bytes + static_cast<std::uintptr_t>(size)};
}

/// What becomes of a value that is not 0 and would be rounded to 0.
enum class Underflow { to_zero, to_smallest };

/// Writes the elements C-contiguously, each rounded once, to nearest. Elements of 16 bits
/// are made from such elements alone.
void convert(const StridedArray& array, Format format, Underflow underflow, std::byte* to);
/// Elements that lie C-contiguously, to where those of an array lie. Same type, native byte order.
void copy_out(const std::byte* from, const StridedArray& to);
/// Integers as int64, C-contiguously. Returns the place of the first one that int64 does not hold,
/// counted in C order, or nothing.
std::optional<std::int64_t> convert_to_int64(const StridedArray& array, std::int64_t* to);

}  // namespace mpsnn_loss
