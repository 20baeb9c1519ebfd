#include "core/divisor.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>

#include "core/compensated_sum.hpp"
#include "core/element.hpp"
#include "core/weight_product.hpp"

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

/// One image of an operand that broadcasts to it.
class Image {
 public:
  Image(const Operand& operand, std::int64_t image)
      : shape_(operand.shape()),
        strides_(operand.strides),
        format_(operand.descriptor.format),
        data_(operand.image_data(shape_.images == 1 ? 0 : image)) {}

  const Shape& shape() const { return shape_; }
  bool varies_by_channel() const { return strides_[3] != 0; }
  bool varies_by_pixel() const { return strides_[1] != 0 || strides_[2] != 0; }
  double at(std::int64_t row, std::int64_t column, std::int64_t channel) const {
    const std::int64_t place = row * strides_[1] + column * strides_[2] + channel * strides_[3];
    return read_value(data_ + place * info(format_).size, format_);
  }
  /// How many of its values from `pixel` on, of `count` pixels, are not zero; of an image that lies
  /// C-contiguously.
  std::int64_t non_zero(std::int64_t pixel, std::int64_t count) const {
    const std::int64_t values = count * shape_.channels;
    const std::byte* const from = data_ + pixel * shape_.channels * info(format_).size;
    switch (info(format_).size) {
      case 2: return count_non_zero<std::uint16_t>(from, values);
      case 4: return count_non_zero<std::uint32_t>(from, values);
      default: return count_non_zero<std::uint64_t>(from, values);
    }
  }

 private:
  Shape shape_;
  Strides strides_;
  Format format_;
  const std::byte* data_;
};

/// What one image weighs: the product of its weights, in which an exact 0 wins over whatever else.
class ImageWeights {
 public:
  ImageWeights(const Request& r, std::int64_t image) : shape_(r.predictions.shape()) {
    r.for_each_weights([&](const Operand& weights) {
      const Image one(weights, image);
      auto& kind = one.varies_by_channel() ? of_channels_ : of_pixels_;
      kind.images[kind.count++].emplace(one);
      contiguous_ = contiguous_ && (weights.data == nullptr || weights.is_contiguous());
    });
    if (r.class_indices) {
      indices_ = r.class_indices->data + image * shape_.pixels();
      ignored_ = r.class_indices->ignored;
    }
  }

  /// The weights themselves, where they are one contiguous array and no pixel is ignored.
  const Image* alone() const {
    if (of_pixels_.count + of_channels_.count != 1 || !contiguous_ || ignored_) return nullptr;
    return &*(of_pixels_.count == 1 ? of_pixels_ : of_channels_).images[0];
  }
  bool is_one_everywhere() const { return of_pixels_.count + of_channels_.count == 0 && !ignored_; }

  /// Calls f(row, column, class, weight) for each pixel whose weights do not make it count nothing;
  /// without those that differ by channel. class: -1 without class indices.
  template <class F>
  void for_each_pixel(F f) const {
    const std::int64_t* index = indices_;
    for (std::int64_t row = 0; row < shape_.height; ++row) {
      for (std::int64_t column = 0; column < shape_.width; ++column) {
        const std::int64_t of_pixel = index == nullptr ? -1 : *index++;
        if (ignored_ && of_pixel == *ignored_) continue;
        const double weight = of_pixels_.product(row, column, 0);
        if (weight != 0) f(row, column, of_pixel, weight);
      }
    }
  }
  /// The rest of the product.
  double of_channel(std::int64_t row, std::int64_t column, std::int64_t channel) const {
    return of_channels_.product(row, column, channel);
  }
  std::int64_t non_zero_channels(std::int64_t row, std::int64_t column) const {
    if (of_channels_.count == 0) return shape_.channels;
    std::int64_t count = 0;
    for (std::int64_t c = 0; c < shape_.channels; ++c)
      count += of_channel(row, column, c) != 0 ? 1 : 0;
    return count;
  }
  /// Whether every pixel has the same weights by channel.
  bool channels_repeat() const {
    return std::ranges::none_of(
        of_channels_.images, [](const auto& image) { return image && image->varies_by_pixel(); });
  }

 private:
  struct Product {
    std::array<std::optional<Image>, 3> images;
    std::size_t count = 0;

    double product(std::int64_t row, std::int64_t column, std::int64_t channel) const {
      double all = 1;
      for (std::size_t i = 0; i < count; ++i)
        all = weight_product(all, images[i]->at(row, column, channel));
      return all;
    }
  };

  const Shape shape_;
  Product of_pixels_, of_channels_;
  bool contiguous_ = true;
  const std::int64_t* indices_ = nullptr;
  std::optional<std::int64_t> ignored_;
};

/// What `pixels` pixels with `non_zero` weighted channels each add to D.
double counted(const Request& r, std::int64_t non_zero, std::int64_t pixels) {
  const bool by_pixel = info(r.descriptor.loss_type).couples_channels;
  const std::int64_t each = by_pixel ? (non_zero > 0 ? 1 : 0) : non_zero;
  return static_cast<double>(each) * static_cast<double>(pixels);
}

/// Of one array of weights: each stands for as many elements as it broadcasts to.
double count_weights(const Request& r, const Image& weights) {
  const Shape& shape = r.predictions.shape();
  const std::int64_t pixels = weights.shape().pixels();
  const std::int64_t each = shape.channels / weights.shape().channels;
  const std::int64_t repeats = shape.pixels() / pixels;
  if (!info(r.descriptor.loss_type).couples_channels)
    return counted(r, weights.non_zero(0, pixels) * each, repeats);
  double total = 0;
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
    total += counted(r, weights.non_zero(pixel, 1) * each, repeats);
  return total;
}

double count_non_zero(const Request& r, std::int64_t image) {
  const Shape& shape = r.predictions.shape();
  const ImageWeights weights(r, image);
  if (weights.is_one_everywhere()) return counted(r, shape.channels, shape.pixels());
  if (const Image* const alone = weights.alone()) return count_weights(r, *alone);
  const bool repeat = weights.channels_repeat();
  const std::int64_t in_each = repeat ? weights.non_zero_channels(0, 0) : 0;
  double total = 0;
  weights.for_each_pixel([&](std::int64_t row, std::int64_t column, std::int64_t, double) {
    total += counted(r, repeat ? in_each : weights.non_zero_channels(row, column), 1);
  });
  return total;
}

/// Adds Σ v, or Σ v t with the labels as they are given where the loss weighs by them.
void add_weights(const Request& r, std::int64_t image, CompensatedSum& total) {
  const Shape& shape = r.predictions.shape();
  const bool by_labels = info(r.descriptor.loss_type).weighs_by_labels;
  const ImageWeights weights(r, image);
  if (!by_labels && weights.is_one_everywhere())
    return total.add(static_cast<double>(shape.image_elements()));
  const Image labels(r.labels ? *r.labels : r.predictions, image);  // predictions: not looked at
  weights.for_each_pixel(
      [&](std::int64_t row, std::int64_t column, std::int64_t of_pixel, double weight) {
        const auto add = [&](std::int64_t channel, double label) {
          const double v = weights.of_channel(row, column, channel);
          if (v != 0 && label != 0) total.add(weight_product(weight, v) * label);
        };
        if (by_labels && !r.labels) {
          if (of_pixel >= 0 && of_pixel < shape.channels) add(of_pixel, 1);
          return;
        }
        for (std::int64_t c = 0; c < shape.channels; ++c)
          add(c, by_labels ? labels.at(row, column, c) : 1);
      });
}

}  // namespace

PerImage divisors(const Computation& call) {
  const Request& r = *call;
  const Shape& shape = r.predictions.shape();
  const LossDescriptor& descriptor = r.descriptor;
  const bool across = descriptor.reduces_across_batch();
  if (r.divisor) return PerImage(*r.divisor);
  if (!info(descriptor.reduction_type).divides) return PerImage(1);
  if (descriptor.reduction_type == ReductionType::mean) {
    const double each = shape.channels > 0 ? counted(r, shape.channels, shape.pixels()) : 0;
    return PerImage(across ? each * static_cast<double>(shape.images) : each);
  }
  PerImage of_images(shape.images, 0.0);
  if (shape.elements() == 0) return across ? PerImage(0) : of_images;
  CompensatedSum total;  // of all, as those of images may cancel
  for (std::int64_t i = 0; i < shape.images; ++i) {
    CompensatedSum own;
    CompensatedSum& sum = across ? total : own;
    if (descriptor.reduction_type == ReductionType::mean_by_weights) {
      add_weights(r, i, sum);
    } else {
      sum.add(count_non_zero(r, i));
    }
    of_images[i] = own.total();
  }
  return across ? PerImage(total.total()) : of_images;
}

double loss_of_nothing(const Request& r) {
  const bool is_nan = !r.divisor && info(r.descriptor.reduction_type).is_nan_of_nothing;
  return is_nan ? std::numeric_limits<double>::quiet_NaN() : 0.0;
}

double sum_of_pixel_weights(const Computation& call, std::int64_t image) {
  const Shape& shape = call->predictions.shape();
  if (shape.channels == 0) return 0;  // nothing is no pixel
  if (!call->has_weights()) return static_cast<double>(shape.pixels());
  CompensatedSum total;
  ImageWeights(*call, image).for_each_pixel([&](auto, auto, auto, double weight) {
    total.add(weight);
  });
  return total.total();
}

}  // namespace mpsnn_loss
