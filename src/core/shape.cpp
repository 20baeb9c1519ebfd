#include "core/shape.hpp"

#include <limits>

#include "core/error.hpp"

namespace mpsnn_loss {

std::string to_string(const std::int64_t* axes, std::size_t count) {
  std::string text = "(";
  for (std::size_t i = 0; i < count; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(axes[i]);
  }
  return text + (count == 1 ? ",)" : ")");
}

std::string to_string(const Shape& shape) {
  const auto axes = shape.axes();
  return to_string(axes.data(), axes.size());
}

std::string names_of_formats(const char* quote) {
  std::string names;
  for (std::size_t i = 0; i < kFormats.size(); ++i) {
    const bool is_last = i + 1 == kFormats.size();
    names += std::string(i == 0 ? "" : is_last ? " or " : ", ") + quote + kFormats[i].name + quote;
  }
  return names;
}

void check_shape(const char* argument, const BatchDescriptor& descriptor) {
  std::int64_t bytes = info(descriptor.format).size;
  bool fits = true;
  for (const std::int64_t axis : descriptor.shape.axes()) {
    if (axis < 1) {
      throw ValueError(
          refusal(argument, "have no empty axis", "shape " + to_string(descriptor.shape)));
    }
    fits = !__builtin_mul_overflow(bytes, axis, &bytes) && fits;
  }
  if (!fits) {
    throw ValueError(
        refusal(argument, "fit in 63-bit addresses", "shape " + to_string(descriptor.shape)));
  }
}

}  // namespace mpsnn_loss
