#include "core/divisor.hpp"

#include <algorithm>
#include <cstring>

#include "core/element.hpp"

namespace mpsnn_loss {
namespace {

/// Counts on the bits, so that compilers turn the loop into vectors. The sign does not count.
template <class Bits>
std::int64_t count_non_zero(const std::byte* data, std::int64_t count) {
  constexpr std::int64_t kBlock = 1 << 14;  // within the range of the narrow counters
  std::int64_t total = 0;
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t last = std::min(first + kBlock, count);
    Bits in_block = 0;
    for (std::int64_t i = first; i < last; ++i) {
      Bits bits;
      std::memcpy(&bits, data + i * static_cast<std::int64_t>(sizeof bits), sizeof bits);
      in_block = static_cast<Bits>(in_block + (static_cast<Bits>(bits << 1) != 0 ? 1 : 0));
    }
    total += static_cast<std::int64_t>(in_block);
  }
  return total;
}

/// The weights of one image, broadcast to it.
class ImageWeights {
 public:
  ImageWeights(const Operand& weights, std::int64_t image)
      : shape_(weights.shape()),
        format_(weights.descriptor.format),
        data_(weights.image_data(shape_.images == 1 ? 0 : image)) {}

  std::int64_t pixels() const { return shape_.pixels(); }
  std::int64_t channels() const { return shape_.channels; }
  /// The place among the weights' own pixels of a pixel of the image.
  std::int64_t pixel(std::int64_t row, std::int64_t column) const {
    return (shape_.height == 1 ? 0 : row) * shape_.width + (shape_.width == 1 ? 0 : column);
  }
  double first_channel(std::int64_t pixel) const { return read_value(at(pixel), format_); }
  /// How many of the weights of `count` pixels, from `pixel` on, are not zero.
  std::int64_t non_zero(std::int64_t pixel, std::int64_t count) const {
    const std::int64_t values = count * channels();
    switch (format_) {
      case Format::float16: return count_non_zero<std::uint16_t>(at(pixel), values);
      case Format::float32: return count_non_zero<std::uint32_t>(at(pixel), values);
      case Format::float64: return count_non_zero<std::uint64_t>(at(pixel), values);
    }
    return 0;
  }

 private:
  const std::byte* at(std::int64_t pixel) const {
    return data_ + pixel * channels() * info(format_).size;
  }

  const Shape& shape_;
  const Format format_;
  const std::byte* data_;
};

/// What `pixels` pixels with `non_zero` weighted channels each add to D.
double counted(const Computation& call, std::int64_t non_zero, std::int64_t pixels) {
  const bool by_pixel = info(call->descriptor.loss_type).couples_channels;
  const std::int64_t each = by_pixel ? (non_zero > 0 ? 1 : 0) : non_zero;
  return static_cast<double>(each) * static_cast<double>(pixels);
}

/// Non-zero weights of an image without ignored pixels: each stands for as many elements as it
/// broadcasts to.
double count_weights(const Computation& call, const ImageWeights& weights) {
  const Shape& shape = call->predictions.shape();
  const std::int64_t each = shape.channels / weights.channels();
  const std::int64_t repeats = shape.pixels() / weights.pixels();
  if (!info(call->descriptor.loss_type).couples_channels)
    return counted(call, weights.non_zero(0, weights.pixels()) * each, repeats);
  double total = 0;
  for (std::int64_t pixel = 0; pixel < weights.pixels(); ++pixel)
    total += counted(call, weights.non_zero(pixel, 1) * each, repeats);
  return total;
}

double count_non_zero(const Computation& call, std::int64_t image) {
  const Shape& shape = call->predictions.shape();
  const auto& classes = call->class_indices;
  if (!classes || !classes->ignored) {
    if (!call->weights) return counted(call, shape.channels, shape.pixels());
    return count_weights(call, ImageWeights(*call->weights, image));
  }
  const std::int64_t* index = classes->data + image * shape.pixels();
  double total = 0;
  for (std::int64_t row = 0; row < shape.height; ++row) {
    for (std::int64_t column = 0; column < shape.width; ++column, ++index) {
      if (*index == *classes->ignored) continue;
      std::int64_t non_zero = shape.channels;
      if (call->weights) {
        const ImageWeights weights(*call->weights, image);
        non_zero =
            weights.non_zero(weights.pixel(row, column), 1) * (shape.channels / weights.channels());
      }
      total += counted(call, non_zero, 1);
    }
  }
  return total;
}

}  // namespace

PerImage divisors(const Computation& call) {
  const Shape& shape = call->predictions.shape();
  const LossDescriptor& descriptor = call->descriptor;
  const bool across = descriptor.reduces_across_batch();
  switch (descriptor.reduction_type) {
    case ReductionType::none:
    case ReductionType::sum: return PerImage(1);
    case ReductionType::mean: {
      const double each = shape.channels > 0 ? counted(call, shape.channels, shape.pixels()) : 0;
      return PerImage(across ? each * static_cast<double>(shape.images) : each);
    }
    case ReductionType::sum_by_non_zero_weights: break;
  }
  PerImage counts(shape.images, 0.0);
  if (shape.elements() == 0) return across ? PerImage(0) : counts;
  double total = 0;
  for (std::int64_t i = 0; i < shape.images; ++i) {
    counts[i] = count_non_zero(call, i);
    total += counts[i];
  }
  return across ? PerImage(total) : counts;
}

double sum_of_pixel_weights(const Computation& call, std::int64_t image) {
  const Shape& shape = call->predictions.shape();
  if (shape.channels == 0) return 0;  // nothing is no pixel
  if (!call->weights) return static_cast<double>(shape.pixels());
  const ImageWeights weights(*call->weights, image);
  double total = 0;
  for (std::int64_t row = 0; row < shape.height; ++row) {
    for (std::int64_t column = 0; column < shape.width; ++column)
      total += weights.first_channel(weights.pixel(row, column));
  }
  return total;
}

}  // namespace mpsnn_loss
