#include "core/shape.hpp"

#include <limits>
#include <vector>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

std::string names_of(const char* quote, bool of_images_alone) {
  std::vector<std::string> names;
  for (const FormatInfo& row : kFormats) {
    if (row.is_of_images || !of_images_alone)
      names.push_back(std::string(quote) + row.name + quote);
  }
  std::string text = names.front();
  for (std::size_t i = 1; i < names.size(); ++i)
    text += (i + 1 == names.size() ? " or " : ", ") + names[i];
  return text;
}

}  // namespace

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

std::string names_of_image_formats(const char* quote) { return names_of(quote, true); }
std::string names_of_formats() { return names_of("", false); }

void check_shape(const char* argument, const BatchDescriptor& descriptor) {
  const auto refuse = [&](const char* expectation) {
    throw_made([&] {
      return ValueError(refusal(argument, expectation, "shape " + to_string(descriptor.shape)));
    });
  };
  std::int64_t bytes = info(descriptor.format).size;
  bool fits = true;
  for (const std::int64_t axis : descriptor.shape.axes()) {
    if (axis < 1) refuse("have no empty axis");
    fits = !__builtin_mul_overflow(bytes, axis, &bytes) && fits;
  }
  if (!fits) refuse("fit in 63-bit addresses");
}

}  // namespace mpsnn_loss
