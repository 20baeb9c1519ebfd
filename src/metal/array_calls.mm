// Calls on host arrays. A user's kernel encodes what it is given, image by image. The one-call
// functions depend on nothing that the header leaves open: no weight beside weights, no divisor but
// our own, full-size weights, float32 images; and the pixels of all images are packed into few
// images.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/divisor.hpp"
#include "core/error.hpp"
#include "core/half.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

constexpr std::int64_t kMostPixels = 16384;
constexpr std::int64_t kMostChannels = 8188;

/// Encodes one call on a queue of its own and waits.
void run_and_wait(const std::shared_ptr<Device>& device, LossCall call) {
  const auto buffer = device->make_queue("")->make_command_buffer("");
  buffer->encode(std::move(call));
  buffer->commit();
  buffer->wait(std::nullopt);
}

// ---- a user's kernel
// ----------------------------------------------------------------------------------

Operand on_device(const std::shared_ptr<Device>& device, const Operand& operand) {
  if (!operand || operand.images != nullptr) return operand;
  return make_operand(operand.name, device->wrap_images(operand.descriptor, operand.data,
                                                        operand.writable, nullptr));
}

void run_kernel(const std::shared_ptr<Device>& device, const LossCall& call) {
  LossRequest request = *call;
  for (Operand* operand : {&request.predictions, &request.labels, &request.weights,
                           &request.source_gradients, &request.loss, &request.gradient}) {
    *operand = on_device(device, *operand);
  }
  if (request.work == Work::gradient && !request.source_gradients) {
    const BatchDescriptor ones{loss_shape(request.descriptor, request.predictions.shape()),
                               Format::float32};
    std::vector<float> values(static_cast<std::size_t>(ones.shape.elements()),
                              static_cast<float>(request.source_gradient));
    const auto images =
        device->wrap_images(ones, reinterpret_cast<std::byte*>(values.data()), false, nullptr);
    request.source_gradients = make_operand("source_gradient", images);
    return run_and_wait(device, LossCall(std::move(request)));  // while `values` live
  }
  run_and_wait(device, LossCall(std::move(request)));
}

// ---- the one-call functions
// ---------------------------------------------------------------------------

float read(const Operand& operand, std::int64_t index) {
  if (operand.descriptor.format == Format::float16)
    return half_to_float(reinterpret_cast<const std::uint16_t*>(operand.data)[index]);
  return reinterpret_cast<const float*>(operand.data)[index];
}

void write(const Operand& operand, std::int64_t index, double value) {
  if (operand.descriptor.format == Format::float16) {
    reinterpret_cast<std::uint16_t*>(operand.data)[index] =
        float_to_half(static_cast<float>(value));
  } else {
    reinterpret_cast<float*>(operand.data)[index] = static_cast<float>(value);
  }
}

/// Every element's value of an operand that broadcasts to `full`.
template <class Use>
void for_each_broadcast(const Operand& operand, const Shape& full, Use use) {
  const Shape& s = operand.shape();
  std::int64_t flat = 0;
  for (std::int64_t n = 0; n < full.images; ++n) {
    for (std::int64_t h = 0; h < full.height; ++h) {
      for (std::int64_t w = 0; w < full.width; ++w) {
        const std::int64_t pixel =
            ((s.images == 1 ? 0 : n) * s.height + (s.height == 1 ? 0 : h)) * s.width +
            (s.width == 1 ? 0 : w);
        for (std::int64_t c = 0; c < full.channels; ++c)
          use(flat++, read(operand, pixel * s.channels + (s.channels == 1 ? 0 : c)));
      }
    }
  }
}

using Floats = std::vector<float>;

/// A one-call function on Metal, as elementwise work and sums on the host.
class ArrayCall {
 public:
  ArrayCall(std::shared_ptr<Device> device, const LossCall& call)
      : device_(std::move(device)),
        call_(call),
        request_(*call),
        shape_(call->predictions.shape()),
        divisors_(divisors(call)) {}

  void run() {
    if (shape_.elements() > 0) prepare();
    if (request_.loss) write_loss(shape_.elements() > 0 ? elements(Work::loss, {}) : Floats{});
    if (request_.gradient && shape_.elements() > 0)
      write_gradient(elements(Work::gradient, gradient_factors()));
  }

 private:
  bool couples_channels() const {
    return info(request_.descriptor.loss_type).family == Family::channel;
  }
  bool is_cosine() const { return request_.descriptor.loss_type == LossType::cosine_distance; }

  Floats dense(const Operand& operand) const {
    Floats values(static_cast<std::size_t>(shape_.elements()));
    for_each_broadcast(operand, shape_,
                       [&](std::int64_t i, float x) { values[static_cast<std::size_t>(i)] = x; });
    return values;
  }

  void prepare() {
    predictions_ = dense(request_.predictions);
    if (request_.labels) labels_ = dense(request_.labels);
    if (request_.weights) weights_ = dense(request_.weights);
    if (const ClassIndices& classes = request_.class_indices) expand_classes(classes);
  }

  void expand_classes(const ClassIndices& classes) {
    labels_.assign(predictions_.size(), 0.0f);
    if (classes.ignored && weights_.empty()) weights_.assign(predictions_.size(), 1.0f);
    const auto channels = static_cast<std::size_t>(shape_.channels);
    for (std::size_t pixel = 0; pixel < predictions_.size() / channels; ++pixel) {
      const std::int64_t index = classes.data[pixel];
      if (classes.ignored && index == *classes.ignored) {
        std::fill_n(weights_.begin() + static_cast<std::ptrdiff_t>(pixel * channels), channels,
                    0.0f);
      } else {
        labels_[pixel * channels + static_cast<std::size_t>(index)] = 1.0f;
      }
    }
  }

  double divisor(std::int64_t image) const {
    return divisors_.size() == 1 ? divisors_.front() : divisors_[static_cast<std::size_t>(image)];
  }

  /// g ω / D of every element.
  Floats gradient_factors() const {
    Floats factors(predictions_.size());
    const Operand& g = request_.source_gradients;
    const double weight = request_.descriptor.parameters.weight;
    const auto per_image = static_cast<std::size_t>(shape_.image_elements());
    for (std::size_t i = 0; i < factors.size(); ++i) {
      const auto image = static_cast<std::int64_t>(i / per_image);
      double value = request_.source_gradient;
      if (g)
        value = static_cast<double>(
            read(g, g.shape() == shape_ ? static_cast<std::int64_t>(i) : image));
      const double d = divisor(image);
      factors[i] = d == 0 ? 0.0f : static_cast<float>(value * weight / d);
    }
    return factors;
  }

  /// Losses without ω, or gradients with the factors on them, of all elements.
  Floats elements(Work work, const Floats& factors) const {
    Floats results(predictions_.size());
    if (is_cosine()) {
      cosine_elements(work, factors, results);
      return results;
    }
    // Losses that do not couple channels may be reshaped where there are too many of them.
    const bool fits = shape_.channels <= kMostChannels;
    if (!fits && couples_channels()) {
      throw ValueError(refusal(
          "predictions", "have at most " + std::to_string(kMostChannels) + " channels on Metal",
          to_string(shape_)));
    }
    const std::int64_t channels = fits ? shape_.channels : 1;
    const std::int64_t pixels = shape_.elements() / channels;
    for (std::int64_t first = 0; first < pixels;) {
      const Shape rectangle = largest_rectangle(pixels - first, channels);
      encode_rectangle(work, factors, first * channels, rectangle, results);
      first += rectangle.pixels();
    }
    return results;
  }

  /// One image that holds as many of the next pixels as a rectangle can.
  static Shape largest_rectangle(std::int64_t pixels, std::int64_t channels) {
    const std::int64_t width = std::min(pixels, kMostPixels);
    for (std::int64_t w = width; w > width / 2; --w) {
      if (pixels % w == 0 && pixels / w <= kMostPixels) return {1, pixels / w, w, channels};
    }
    return {1, std::min(pixels / width, kMostPixels), width, channels};
  }

  void encode_rectangle(Work work, const Floats& factors, std::int64_t first,
                        const Shape& rectangle, Floats& results) const {
    LossDescriptor descriptor = request_.descriptor;
    descriptor.reduction_type = ReductionType::none;
    descriptor.reduce_across_batch = false;
    descriptor.parameters.weight = 1;
    LossRequest r;
    r.work = work;
    r.wrt = work == Work::gradient ? request_.wrt : Wrt::predictions;
    r.descriptor = descriptor;
    const BatchDescriptor images{rectangle, Format::float32};
    const auto operand = [&](const char* name, const Floats& values) {
      auto* const data = const_cast<float*>(values.data()) + first;
      return make_operand(
          name, device_->wrap_images(images, reinterpret_cast<std::byte*>(data), true, nullptr));
    };
    r.predictions = operand("predictions", predictions_);
    r.labels = operand("labels", labels_);
    if (!weights_.empty()) r.weights = operand("weights", weights_);
    if (work == Work::gradient) r.source_gradients = operand("source_gradient", factors);
    (work == Work::loss ? r.loss : r.gradient) = operand("out", results);
    r.kernel = device_->make_kernel(
        work == Work::loss ? KernelKind::forward_loss : KernelKind::loss_gradient, descriptor);
    run_and_wait(device_, LossCall(std::move(r)));
  }

  /// The cosine distance is linear: its parts need no kernel, and its forward has none without a
  /// sum.
  void cosine_elements(Work work, const Floats& factors, Floats& results) const {
    for (std::size_t i = 0; i < results.size(); ++i) {
      const float v = weights_.empty() ? 1.0f : weights_[i];
      if (v == 0) continue;
      const float y = predictions_[i], t = labels_[i];
      if (work == Work::loss) {
        results[i] = t == 0 ? 0.0f : -v * y * t;
      } else {
        results[i] = -(request_.wrt == Wrt::labels ? y : t) * v * factors[i];
      }
    }
  }

  void write_loss(const Floats& losses) const {
    const LossDescriptor& d = request_.descriptor;
    if (!d.reduces()) {
      for (std::size_t i = 0; i < losses.size(); ++i)
        write(request_.loss, static_cast<std::int64_t>(i),
              d.parameters.weight * static_cast<double>(losses[i]));
      return;
    }
    const std::int64_t per_image = shape_.image_elements();
    std::vector<double> sums(static_cast<std::size_t>(shape_.images));
    for (std::int64_t n = 0; n < shape_.images; ++n) {
      double& sum = sums[static_cast<std::size_t>(n)];
      for (std::int64_t i = 0; i < per_image; ++i)
        sum += static_cast<double>(losses[static_cast<std::size_t>(n * per_image + i)]);
      if (is_cosine()) sum += sum_of_pixel_weights(call_, n);
    }
    double total = 0;
    for (const double sum : sums) total += sum;
    for (std::int64_t i = 0; i < request_.loss.shape().images; ++i) {
      const double sum =
          d.reduce_across_batch ? (i == 0 ? total : 0.0) : sums[static_cast<std::size_t>(i)];
      write(request_.loss, i, reduced_value(sum, divisor(i)));
    }
  }

  double reduced_value(double sum, double d) const {
    if (d != 0) return request_.descriptor.parameters.weight * sum / d;
    return request_.descriptor.reduction_type == ReductionType::mean
               ? std::numeric_limits<double>::quiet_NaN()
               : 0.0;
  }

  void write_gradient(const Floats& gradients) const {
    for (std::size_t i = 0; i < gradients.size(); ++i)
      write(request_.gradient, static_cast<std::int64_t>(i), static_cast<double>(gradients[i]));
  }

  const std::shared_ptr<Device> device_;
  const LossCall& call_;
  const LossRequest& request_;
  const Shape shape_;
  const std::vector<double> divisors_;
  Floats predictions_, labels_, weights_;
};

}  // namespace

void compute(const std::shared_ptr<Device>& device, const LossCall& call) {
  if (call->kernel != nullptr) {
    run_kernel(device, call);
  } else {
    ArrayCall(device, call).run();
  }
}

}  // namespace mpsnn_loss::metal
