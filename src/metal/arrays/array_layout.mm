#include "metal/arrays/array_layout.hpp"

#include <algorithm>
#include <utility>

#include "core/element.hpp"
#include "core/weight_product.hpp"
#include "metal/mps/broadcast.hpp"
#include "metal/mps/limits.hpp"

namespace mpsnn_loss::metal {
namespace {

/// One image that holds as many of the next pixels as a rectangle of at most so many can.
Shape largest_rectangle(std::int64_t pixels, std::int64_t channels) {
  const std::int64_t width = std::min(pixels, kMostPixels);
  for (std::int64_t w = width; w * w >= pixels; --w) {
    if (pixels % w == 0 && pixels / w <= kMostPixels) return {1, pixels / w, w, channels};
  }
  return {1, std::min(pixels / width, kMostPixels), width, channels};
}

bool is_dense(const Operand& operand, const Shape& full) {
  return operand.descriptor.format == Format::float32 && operand.shape() == full &&
         operand.is_contiguous();
}

std::byte* address(const Operand& operand, std::int64_t place) {
  return operand.data + place * info(operand.descriptor.format).size;
}

float read(const Operand& operand, std::int64_t place) {
  return static_cast<float>(read_value(address(operand, place), operand.descriptor.format));
}

/// Every element of an operand that broadcasts to `full`.
std::vector<float> broadcast(const Operand& operand, const Shape& full) {
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(full.elements()));
  for_each_place(operand.strides, full,
                 [&](std::int64_t place) { values.push_back(read(operand, place)); });
  return values;
}

}  // namespace

std::int64_t device_bytes(const Shape& shape) {
  const std::int64_t channels = shape.channels <= 2 ? shape.channels : (shape.channels + 3) / 4 * 4;
  return shape.images * shape.pixels() * channels * std::int64_t{sizeof(float)};
}

std::vector<Rectangle> rectangles(const Shape& shape, LossType loss_type, std::int64_t most_bytes) {
  const bool as_one = info(loss_type).keeps_channels_together() || shape.channels <= kMostChannels;
  const std::int64_t channels = as_one ? shape.channels : 1;
  const std::int64_t pixels = shape.elements() / channels;
  const std::int64_t most_pixels =
      std::max<std::int64_t>(1, most_bytes / device_bytes({1, 1, 1, channels}));
  std::vector<Rectangle> parts;
  for (std::int64_t first = 0; first < pixels;) {
    const std::int64_t next = std::min(pixels - first, most_pixels);
    parts.push_back({largest_rectangle(next, channels), first * channels});
    first += parts.back().shape.pixels();
  }
  return parts;
}

void write_value(const Operand& operand, std::int64_t index, double value) {
  const Shape& shape = operand.shape();
  const auto take = [&](std::int64_t axis) {
    const std::int64_t along = index % axis;
    index /= axis;
    return along;
  };
  const Strides& strides = operand.strides;
  std::int64_t place = take(shape.channels) * strides[3];
  place += take(shape.width) * strides[2];
  place += take(shape.height) * strides[1];
  place += index * strides[0];
  mpsnn_loss::write_value(address(operand, place), operand.descriptor.format, value);
}

void DenseArrays::Values::adopt(std::vector<float> values) {
  own = std::move(values);
  data = own.data();
}

float* DenseArrays::Values::writable(std::size_t count) {
  if (own.empty()) adopt(std::vector<float>(data, data + count));
  return own.data();
}

DenseArrays::DenseArrays(const Computation& call)
    : request_(*call), shape_(call->predictions.shape()) {
  if (shape_.elements() == 0) return;
  const auto take = [&](const Operand& operand, Values& values) {
    if (is_dense(operand, shape_)) {
      values.data = reinterpret_cast<const float*>(operand.data);
    } else {
      values.adopt(broadcast(operand, shape_));
    }
  };
  take(request_.predictions, predictions_);
  if (request_.labels) take(*request_.labels, labels_);
  request_.for_each_weights([&](const Operand& weights) {
    if (weights_.data == nullptr) return take(weights, weights_);
    float* const product = weights_.writable(static_cast<std::size_t>(shape_.elements()));
    std::size_t i = 0;
    for (const float factor : broadcast(weights, shape_)) {
      product[i] = weight_product(product[i], factor);
      ++i;
    }
  });
  const auto& g = request_.source_gradients;
  if (g && !request_.descriptor.reduces() && g->shape() == shape_) take(*g, source_gradients_);
  if (request_.class_indices) expand_classes();
  if (weights_.data != nullptr) replace_unweighted();
}

void DenseArrays::expand_classes() {
  const ClassIndices& classes = *request_.class_indices;
  const auto channels = static_cast<std::size_t>(shape_.channels);
  const auto elements = static_cast<std::size_t>(shape_.elements());
  labels_.adopt(std::vector<float>(elements));
  if (classes.ignored && weights_.data == nullptr)
    weights_.adopt(std::vector<float>(elements, 1.0f));
  for (std::size_t pixel = 0; pixel < elements / channels; ++pixel) {
    const volatile std::int64_t& place = classes.data[pixel];
    const std::int64_t index = place;
    if (classes.ignored && index == *classes.ignored) {
      std::fill_n(weights_.writable(elements) + pixel * channels, channels, 0.0f);
    } else if (const auto channel = static_cast<std::size_t>(index); channel < channels) {
      // Always so, unless another thread has written to the caller's indices since their check.
      labels_.own[pixel * channels + channel] = 1.0f;
    }
  }
}

void DenseArrays::replace_unweighted() {
  // Inside the domain of every loss. Where channels are coupled, only a whole pixel of weight 0 is
  // harmless to replace; one term among others is removed by its label.
  constexpr float kHarmless = 0.5f;
  const auto elements = static_cast<std::size_t>(shape_.elements());
  const auto channels = static_cast<std::size_t>(shape_.channels);
  const bool coupled = info(request_.descriptor.loss_type).couples_channels;
  const auto is_zero = [](float v) { return v == 0; };
  for (std::size_t first = 0; first < elements; first += channels) {
    const float* const v = weights_.data + first;
    if (std::none_of(v, v + channels, is_zero)) continue;
    const bool whole_pixel = std::all_of(v, v + channels, is_zero);
    for (std::size_t c = 0; c < channels; ++c) {
      if (v[c] != 0) continue;
      if (whole_pixel || !coupled) predictions_.writable(elements)[first + c] = kHarmless;
      labels_.writable(elements)[first + c] = kHarmless;
    }
  }
}

double DenseArrays::weight_of(std::int64_t element) const {
  return weights_.data == nullptr ? 1.0 : static_cast<double>(weights_.data[element]);
}

double DenseArrays::source_gradient_of(std::int64_t image) const {
  const Operand& gradients = *request_.source_gradients;
  return static_cast<double>(read(gradients, image * gradients.strides[0]));
}

}  // namespace mpsnn_loss::metal
