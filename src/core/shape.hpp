// What an image is: storage formats and the shape of a batch [images, height, width, channels].
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace mpsnn_loss {

/// How one element is stored.
enum class Format : std::uint32_t { float16, float32, float64, bfloat16 };

struct FormatInfo {
  Format format;
  const char* name;
  std::int64_t size;   // bytes
  Format computed_in;  // float32 or float64
  Format of_losses;    // forward results of such predictions
  bool is_of_images;   // else the functions on arrays alone know it
  char code = 0;       // of the struct module and the buffer protocol, where those have one
};

inline constexpr auto kFormats = std::to_array<FormatInfo>({
    {Format::float16, "float16", 2, Format::float32, Format::float32, true, 'e'},
    {Format::float32, "float32", 4, Format::float32, Format::float32, true, 'f'},
    {Format::float64, "float64", 8, Format::float64, Format::float64, true, 'd'},
    {Format::bfloat16, "bfloat16", 2, Format::float32, Format::float32, false},
});

constexpr const FormatInfo& info(Format format) {
  return kFormats[static_cast<std::size_t>(format)];
}
constexpr bool is_double(Format format) { return info(format).computed_in == Format::float64; }

static_assert([] {  // each row stands at the index of its format
  for (std::size_t i = 0; i < kFormats.size(); ++i) {
    if (kFormats[i].format != static_cast<Format>(i)) return false;
  }
  return true;
}());

/// "float16, float32 or float64", each name between two of `quote`: of images, or of all arrays.
std::string names_of_image_formats(const char* quote = "");
std::string names_of_formats();

/// The axes of a batch of images, channels innermost.
struct Shape {
  std::int64_t images = 1;
  std::int64_t height = 1;
  std::int64_t width = 1;
  std::int64_t channels = 1;

  constexpr std::int64_t pixels() const { return height * width; }
  constexpr std::int64_t image_elements() const { return height * width * channels; }
  constexpr std::int64_t elements() const { return images * image_elements(); }
  constexpr std::array<std::int64_t, 4> axes() const { return {images, height, width, channels}; }
  friend constexpr bool operator==(const Shape&, const Shape&) = default;
};

/// Compared one by one: memcmp would read two at once, and wait, as they were written a moment ago.
constexpr bool same_axes(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

/// "(2, 1, 1, 10)", and "(3,)" for one axis, as NumPy prints shapes.
std::string to_string(const std::int64_t* axes, std::size_t count);
std::string to_string(const Shape& shape);

/// One 1x1x1 image per image of a batch: what a reduction leaves.
constexpr Shape reduced(const Shape& shape) { return {shape.images, 1, 1, 1}; }

/// How many elements further the next one lies along each axis of a batch; 0 where the axis is 1,
/// or broadcasts.
using Strides = std::array<std::int64_t, 4>;

/// Those of a batch that lies C-contiguously. Inlined always: kernels are compiled for processors
/// that may not be at hand, and the linker keeps one copy of a function.
[[gnu::always_inline]] constexpr void set_contiguous_strides(const Shape& shape, Strides& strides) {
  std::int64_t step = 1;
  const auto set = [&](std::size_t i, std::int64_t axis) {
    strides[i] = axis == 1 ? 0 : step;
    step *= axis;
  };
  set(3, shape.channels);
  set(2, shape.width);
  set(1, shape.height);
  set(0, shape.images);
}
[[gnu::always_inline]] constexpr Strides contiguous_strides(const Shape& shape) {
  Strides strides{};
  set_contiguous_strides(shape, strides);
  return strides;
}

/// A batch of images: its shape and its storage format.
struct BatchDescriptor {
  Shape shape;
  Format format = Format::float32;

  std::int64_t image_bytes() const { return shape.image_elements() * info(format).size; }
  std::int64_t bytes() const { return shape.images * image_bytes(); }
  friend constexpr bool operator==(const BatchDescriptor&, const BatchDescriptor&) = default;
};

/// Throws ValueError unless every axis is at least 1 and the size in bytes fits 63 bits.
void check_shape(const char* argument, const BatchDescriptor& descriptor);

}  // namespace mpsnn_loss
