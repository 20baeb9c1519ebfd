#include "core/divisor.hpp"

#include "core/element.hpp"

namespace mpsnn_loss {
namespace {

/// The weights of one image, broadcast to it.
class ImageWeights {
 public:
  ImageWeights(const Operand& weights, std::int64_t image)
      : shape_(weights.shape()),
        format_(weights.descriptor.format),
        data_(weights.image_data(shape_.images == 1 ? 0 : image)) {}

  bool varies_by_pixel() const { return shape_.height > 1 || shape_.width > 1; }
  bool varies_by_channel() const { return shape_.channels > 1; }
  double at(std::int64_t row, std::int64_t column, std::int64_t channel) const {
    const std::int64_t h = shape_.height == 1 ? 0 : row, w = shape_.width == 1 ? 0 : column;
    const std::int64_t c = shape_.channels == 1 ? 0 : channel;
    const std::int64_t index = (h * shape_.width + w) * shape_.channels + c;
    return read_value(data_ + index * info(format_).size, format_);
  }
  /// How many of the channels of one pixel have a non-zero weight.
  std::int64_t non_zero(std::int64_t row, std::int64_t column, std::int64_t channels) const {
    if (!varies_by_channel()) return at(row, column, 0) != 0 ? channels : 0;
    std::int64_t count = 0;
    for (std::int64_t c = 0; c < channels; ++c) count += at(row, column, c) != 0 ? 1 : 0;
    return count;
  }

 private:
  const Shape& shape_;
  const Format format_;
  const std::byte* data_;
};

/// What a pixel with `non_zero` weighted channels adds to D.
double counted(const LossCall& call, std::int64_t non_zero) {
  const bool by_pixel = info(call->descriptor.loss_type).family == Family::channel;
  return by_pixel ? (non_zero > 0 ? 1.0 : 0.0) : static_cast<double>(non_zero);
}

double count_non_zero(const LossCall& call, std::int64_t image) {
  const Shape& shape = call->predictions.shape();
  const ClassIndices& classes = call->class_indices;
  const std::int64_t* indices =
      classes && classes.ignored ? classes.data + image * shape.pixels() : nullptr;
  if (!call->weights && indices == nullptr)
    return counted(call, shape.channels) * static_cast<double>(shape.pixels());
  if (call->weights && indices == nullptr && shape.pixels() > 0) {
    const ImageWeights weights(call->weights, image);
    if (!weights.varies_by_pixel()) {
      return counted(call, weights.non_zero(0, 0, shape.channels)) *
             static_cast<double>(shape.pixels());
    }
  }
  double total = 0;
  for (std::int64_t row = 0; row < shape.height; ++row) {
    for (std::int64_t column = 0; column < shape.width; ++column) {
      if (indices != nullptr && indices[row * shape.width + column] == *classes.ignored) continue;
      const std::int64_t non_zero =
          call->weights ? ImageWeights(call->weights, image).non_zero(row, column, shape.channels)
                        : shape.channels;
      total += counted(call, non_zero);
    }
  }
  return total;
}

}  // namespace

std::vector<double> divisors(const LossCall& call) {
  const Shape& shape = call->predictions.shape();
  const LossDescriptor& descriptor = call->descriptor;
  const bool across = descriptor.reduces_across_batch();
  const auto images = static_cast<std::size_t>(shape.images);
  switch (descriptor.reduction_type) {
    case ReductionType::none:
    case ReductionType::sum: return {1.0};
    case ReductionType::mean: {
      const double each = shape.channels > 0
                              ? counted(call, shape.channels) * static_cast<double>(shape.pixels())
                              : 0;
      return {across ? each * static_cast<double>(shape.images) : each};
    }
    case ReductionType::sum_by_non_zero_weights: break;
  }
  std::vector<double> counts(images);
  if (shape.elements() == 0) return across ? std::vector<double>{0.0} : counts;
  double total = 0;
  for (std::size_t i = 0; i < images; ++i) {
    counts[i] = count_non_zero(call, static_cast<std::int64_t>(i));
    total += counts[i];
  }
  if (across) return {total};
  return counts;
}

double sum_of_pixel_weights(const LossCall& call, std::int64_t image) {
  const Shape& shape = call->predictions.shape();
  if (shape.channels == 0) return 0;  // nothing is no pixel
  if (!call->weights) return static_cast<double>(shape.pixels());
  const ImageWeights weights(call->weights, image);
  double total = 0;
  for (std::int64_t row = 0; row < shape.height; ++row) {
    for (std::int64_t column = 0; column < shape.width; ++column)
      total += weights.at(row, column, 0);
  }
  return total;
}

}  // namespace mpsnn_loss
