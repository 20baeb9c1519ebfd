// Calls on host arrays. A user's kernel encodes what it is given, image by image. The one-call
// functions depend on nothing that the header leaves open, and pack the pixels of all images into
// few images:
//
//   forward   none, and sums of rows on the host; or sum over everything. Divided by D on the host.
//   gradient  sum with a source gradient of 1, as every other factor g ω / D is uniform or is put
//             on the results; none with full-size source gradients where these differ by element.
//   cosine    forward: one image per pixel, as the header has one "1" per sum. Gradient as above.
//
// So no scalar weight goes beside weights, no divisor but ours is relied on, weights have full size
// and images are float32.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "core/divisor.hpp"
#include "core/error.hpp"
#include "core/gathered_images.hpp"
#include "metal/array_layout.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"
#include "metal/short_buffer.hpp"

namespace mpsnn_loss::metal {
namespace {

// ---- a user's kernel
// -----------------------------------------------------------------------------

Operand on_device(const std::shared_ptr<Device>& device, const Operand& operand) {
  if (!operand || operand.images != nullptr) return operand;
  if (const std::string why = unsupported_size(operand.shape()); !why.empty()) {
    throw ValueError(refusal(operand.name, "have a size of the device (" + why + ")",
                             to_string(operand.shape())));
  }
  auto images = make_images(device, operand.descriptor, false);
  images->upload(0, operand.shape().images, operand.data);
  return make_operand(operand.name, std::move(images));
}

/// One value, as an image that stands for the source gradient of every image.
Operand shared_source_gradient(const std::shared_ptr<Device>& device, const LossRequest& request) {
  auto value = static_cast<float>(request.source_gradient);
  BatchDescriptor one{loss_shape(request.descriptor, request.predictions.shape()), Format::float32};
  const auto images = static_cast<std::size_t>(std::exchange(one.shape.images, 1));
  std::vector<float> values(static_cast<std::size_t>(one.shape.elements()), value);
  const auto image = make_images(device, one, false);
  image->upload(0, 1, reinterpret_cast<const std::byte*>(values.data()));
  return make_operand("source_gradient",
                      gather_images("source_gradient", std::vector<Image>(images, {image, 0})));
}

void run_kernel(const std::shared_ptr<Device>& device, ArrayWorkshop& workshop,
                const LossCall& call, Waiting waiting) {
  LossRequest request = *call;
  for (Operand* operand : {&request.predictions, &request.labels, &request.weights,
                           &request.source_gradients, &request.loss, &request.gradient}) {
    *operand = on_device(device, *operand);
  }
  if (request.work == Work::gradient && !request.source_gradients)
    request.source_gradients = shared_source_gradient(device, request);
  void* queue = nullptr;
  guarded("making a command queue", [&] { queue = workshop.queue(); });
  const auto buffer = adopt_queue(device, queue)->make_command_buffer("");
  const Operand output = request.work == Work::loss ? request.loss : request.gradient;
  buffer->encode(LossCall(std::move(request)));
  buffer->commit();
  while (!buffer->finished_within(kSlice)) {
    if (waiting != nullptr) waiting();  // what it throws leaves the arrays as they are
  }
  buffer->wait(0);
  const Operand& array = call->work == Work::loss ? call->loss : call->gradient;
  if (array.data != nullptr) output.images->download(0, output.shape().images, array.data);
}

// ---- the one-call functions
// ----------------------------------------------------------------------

class ArrayCall {
 public:
  ArrayCall(std::shared_ptr<Device> device, ArrayWorkshop& workshop, const LossCall& call,
            Waiting waiting)
      : device_(std::move(device)),
        workshop_(workshop),
        waiting_(waiting),
        request_(*call),
        shape_(call->predictions.shape()),
        divisors_(divisors(call)),
        arrays_(call) {}

  void run() {
    if (shape_.elements() == 0) {
      if (request_.loss) write_reduced_loss({});
      return;
    }
    if (request_.loss && is_of_pixels()) write_reduced_loss(losses_of_pixels());
    if (gradient_is_zero()) {
      for (std::int64_t i = 0; i < shape_.elements(); ++i) write_value(request_.gradient, i, 0);
    }
    const bool encodes_gradient = request_.gradient && !gradient_is_zero();
    if (!encodes_loss() && !encodes_gradient) return;
    std::vector<double> sums(across() ? 1 : static_cast<std::size_t>(shape_.images));
    const std::vector<Rectangle> all =
        rectangles(shape_, request_.descriptor.loss_type, most_bytes_of_an_image());
    for (auto next = all.begin(); next != all.end();) {
      @autoreleasepool {  // the next buffer may need what this one's images take
        ShortBuffer buffer(workshop_);
        std::vector<Part> parts;
        for (std::int64_t room = workshop_.most_bytes(); next != all.end(); ++next) {
          room -= kMostImages * device_bytes(next->shape);
          if (room < 0 && !parts.empty()) break;
          parts.push_back(encode(buffer, *next));
        }
        buffer.run(waiting_);
        if (encodes_loss()) finish_loss(parts, sums);
        if (encodes_gradient) finish_gradient(parts);
      }
    }
    if (encodes_loss() && request_.descriptor.reduces()) {
      for (double& sum : sums) sum *= missing_weight();
      write_reduced_loss(sums);
    }
  }

 private:
  /// Of one rectangle of pixels: the four operands, and the two results.
  static constexpr std::int64_t kMostImages = 6;
  std::int64_t most_bytes_of_an_image() const { return workshop_.most_bytes() / kMostImages; }

  /// The images of one rectangle of pixels.
  struct Part {
    Rectangle rectangle;
    std::shared_ptr<ImageBatch> predictions, labels, weights, loss, gradient;
  };

  bool is_of_pixels() const { return info(request_.descriptor.loss_type).one_weight_per_pixel; }
  bool encodes_loss() const { return request_.loss && !is_of_pixels(); }
  /// The header knows no weights of whole pixels; they go onto the results.
  bool sends_weights() const { return arrays_.weights() != nullptr && !is_of_pixels(); }
  bool across() const { return request_.descriptor.reduces_across_batch(); }
  double omega() const { return request_.descriptor.parameters.weight; }

  // ---- encoding

  std::shared_ptr<ImageBatch> images(const Shape& shape, const float* values) const {
    auto made = make_images(device_, {shape, Format::float32}, false);
    if (values != nullptr)
      made->upload(0, shape.images, reinterpret_cast<const std::byte*>(values));
    return made;
  }

  Part encode(ShortBuffer& buffer, const Rectangle& rectangle) const {
    Part part{rectangle, nullptr, nullptr, nullptr, nullptr, nullptr};
    const auto upload = [&](const float* values) {
      return values == nullptr ? nullptr : images(rectangle.shape, values + rectangle.first);
    };
    part.predictions = upload(arrays_.predictions());
    part.labels = upload(arrays_.labels());
    if (sends_weights()) part.weights = upload(arrays_.weights());
    if (encodes_loss()) encode_loss(buffer, part);
    if (request_.gradient && !gradient_is_zero()) encode_gradient(buffer, part);
    return part;
  }

  /// A request on the images of a part, with `weight` where there are no weights.
  LossRequest request_on(const Part& part, Work work, ReductionType reduction,
                         double weight) const {
    LossRequest r;
    r.work = work;
    r.descriptor = request_.descriptor;
    r.descriptor.reduction_type = reduction;
    r.descriptor.reduce_across_batch = false;
    r.descriptor.parameters.weight = part.weights == nullptr ? weight : 1;
    r.predictions = make_operand("predictions", part.predictions);
    r.labels = make_operand("labels", part.labels);
    return r;
  }

  void encode_pooled(ShortBuffer& buffer, const Part& part, LossRequest request) const {
    const LossCall call(std::move(request));
    const KernelKind kind =
        call->work == Work::loss ? KernelKind::forward_loss : KernelKind::loss_gradient;
    const BorrowedKernel kernel(workshop_, kind, call->descriptor);
    set_dynamic_properties(kind, kernel.get(),
                           {call->descriptor.parameters, call->wrt == Wrt::labels});
    encode_call(buffer.get(), kernel.get(), {call, part.weights});
  }

  void encode_loss(ShortBuffer& buffer, Part& part) const {
    const auto reduction = across() ? ReductionType::sum : ReductionType::none;
    part.loss = images(across() ? Shape{} : part.rectangle.shape, nullptr);
    LossRequest r = request_on(part, Work::loss, reduction, omega());
    r.loss = make_operand("loss", part.loss);
    encode_pooled(buffer, part, std::move(r));
  }

  void encode_gradient(ShortBuffer& buffer, Part& part) const {
    const float* const by_element = arrays_.source_gradients();
    const auto reduction = by_element != nullptr ? ReductionType::none : ReductionType::sum;
    part.gradient = images(part.rectangle.shape, nullptr);
    LossRequest r =
        request_on(part, Work::gradient, reduction, factor_is_on_kernel() ? factor(0) : 1);
    r.wrt = request_.wrt;
    constexpr float kOne = 1;
    r.source_gradients = make_operand(
        "source_gradients", by_element == nullptr
                                ? images(Shape{}, &kOne)
                                : images(part.rectangle.shape, by_element + part.rectangle.first));
    r.gradient = make_operand("gradient", part.gradient);
    encode_pooled(buffer, part, std::move(r));
  }

  // ---- losses

  /// Weighted element losses lack ω where it could not go beside the weights.
  double missing_weight() const { return arrays_.weights() != nullptr ? omega() : 1; }

  /// Writes the losses, or adds them to those of their images.
  void finish_loss(const std::vector<Part>& parts, std::vector<double>& sums) const {
    const LossDescriptor& d = request_.descriptor;
    if (!d.reduces()) {
      const double factor = missing_weight();
      for (const Part& part : parts)
        download(*part.loss, request_.loss, part.rectangle.first,
                 [=](std::int64_t) { return factor; });
      return;
    }
    for (const Part& part : parts) {
      std::vector<float> values(static_cast<std::size_t>(part.loss->shape().elements()));
      part.loss->download(0, 1, reinterpret_cast<std::byte*>(values.data()));
      std::int64_t element = part.rectangle.first;
      for (const float value : values) {
        const auto sum = across() ? 0 : static_cast<std::size_t>(element / shape_.image_elements());
        sums[sum] += static_cast<double>(value);
        ++element;
      }
    }
  }

  /// The sums of the images, or of the batch; D divides them here.
  void write_reduced_loss(const std::vector<double>& sums) const {
    const Operand& loss = request_.loss;
    if (!request_.descriptor.reduces()) return;  // an array without elements
    for (std::int64_t i = 0; i < loss.shape().images; ++i) {
      const bool is_other = across() && i > 0;
      const double sum = is_other       ? 0
                         : sums.empty() ? 0
                                        : sums[sums.size() == 1 ? 0 : static_cast<std::size_t>(i)];
      const double d = divisors_[i];
      double value = sum / d;
      if (d == 0) {
        const bool mean_of_nothing = request_.descriptor.reduction_type == ReductionType::mean;
        value = mean_of_nothing ? std::numeric_limits<double>::quiet_NaN() : 0;
      }
      write_value(loss, i, is_other ? 0 : value);
    }
  }

  /// ω v (1 - Σ y t) summed, each pixel from an image of its own.
  std::vector<double> losses_of_pixels() const {
    const std::int64_t bytes = device_bytes({1, 1, 1, shape_.channels});
    const std::int64_t at_once =
        std::clamp<std::int64_t>(most_bytes_of_an_image() / bytes, 1, 4096);
    std::vector<double> sums(across() ? 1 : static_cast<std::size_t>(shape_.images));
    const std::int64_t pixels = shape_.images * shape_.pixels();
    for (std::int64_t first = 0; first < pixels; first += at_once) {
      @autoreleasepool {
        const Shape shape{std::min(at_once, pixels - first), 1, 1, shape_.channels};
        ShortBuffer buffer(workshop_);
        Part part{{shape, first * shape.channels}, nullptr, nullptr, nullptr, nullptr, nullptr};
        part.predictions = images(shape, arrays_.predictions() + part.rectangle.first);
        part.labels = images(shape, arrays_.labels() + part.rectangle.first);
        part.loss = images(reduced(shape), nullptr);
        LossRequest r = request_on(part, Work::loss, ReductionType::sum, 1);
        r.loss = make_operand("loss", part.loss);
        encode_pooled(buffer, part, std::move(r));
        buffer.run(waiting_);
        std::vector<float> values(static_cast<std::size_t>(shape.images));
        part.loss->download(0, shape.images, reinterpret_cast<std::byte*>(values.data()));
        for (std::int64_t i = 0; i < shape.images; ++i) {
          const std::int64_t pixel = first + i;
          const double v = arrays_.weight_of(pixel * shape_.channels);
          if (v == 0) continue;
          const auto sum = across() ? 0 : static_cast<std::size_t>(pixel / shape_.pixels());
          sums[sum] += omega() * v * static_cast<double>(values[static_cast<std::size_t>(i)]);
        }
      }
    }
    return sums;
  }

  // ---- gradients

  /// g ω / D of an image, without g where that differs by element.
  double factor(std::int64_t image) const {
    const Operand& g = request_.source_gradients;
    double value = omega();
    if (arrays_.source_gradients() == nullptr) {
      value *= g ? arrays_.source_gradient_of(across() ? 0 : image) : request_.source_gradient;
    }
    const double d = divisors_[image];
    return d == 0 ? 0 : value / d;
  }
  bool factor_is_uniform() const {
    for (std::int64_t image = 1; image < shape_.images; ++image) {
      if (factor(image) != factor(0)) return false;
    }
    return true;
  }
  /// Whether the kernel's scalar weight takes it over.
  bool factor_is_on_kernel() const { return arrays_.weights() == nullptr && factor_is_uniform(); }

  /// No weight but 0: the divisor 0 never reaches Metal.
  bool gradient_is_zero() const {
    return request_.gradient &&
           std::all_of(divisors_.begin(), divisors_.end(), [](double d) { return d == 0; });
  }

  void finish_gradient(const std::vector<Part>& parts) const {
    std::vector<double> factors(static_cast<std::size_t>(shape_.images), 1.0);
    for (std::int64_t image = 0; image < shape_.images && !factor_is_on_kernel(); ++image)
      factors[static_cast<std::size_t>(image)] = factor(image);
    const std::int64_t per_image = shape_.image_elements();
    const bool by_weight = is_of_pixels();
    for (const Part& part : parts) {
      download(*part.gradient, request_.gradient, part.rectangle.first, [&](std::int64_t element) {
        const double f = factors[static_cast<std::size_t>(element / per_image)];
        return by_weight ? f * arrays_.weight_of(element) : f;
      });
    }
  }

  /// An image's values, each times factor(element), to where they belong in `to`.
  template <class Factor>
  static void download(const ImageBatch& from, const Operand& to, std::int64_t first,
                       Factor factor) {
    std::vector<float> values(static_cast<std::size_t>(from.shape().elements()));
    from.download(0, 1, reinterpret_cast<std::byte*>(values.data()));
    std::int64_t element = first;
    for (const float value : values) {
      const double f = factor(element);
      write_value(to, element,
                  f == 1 ? static_cast<double>(value) : f * static_cast<double>(value));
      ++element;
    }
  }

  const std::shared_ptr<Device> device_;
  ArrayWorkshop& workshop_;
  const Waiting waiting_;
  const LossRequest& request_;
  const Shape shape_;
  const PerImage divisors_;
  const DenseArrays arrays_;
};

}  // namespace

void compute(const std::shared_ptr<Device>& device, ArrayWorkshop& workshop, const LossCall& call,
             Waiting waiting) {
  if (call->kernel != nullptr) return run_kernel(device, workshop, call, waiting);
  const std::string why = device->supports_arrays(call->descriptor, call->predictions.shape());
  if (!why.empty()) {
    throw ValueError(refusal("predictions", "have a size of the device (" + why + ")",
                             to_string(call->predictions.shape())));
  }
  guarded("computing", [&] { ArrayCall(device, workshop, call, waiting).run(); });
}

}  // namespace mpsnn_loss::metal
