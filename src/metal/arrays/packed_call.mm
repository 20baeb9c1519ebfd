// The functions depend on nothing that the header leaves open, and pack the pixels of all images
// into few images:
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
#include "core/element.hpp"
#include "core/error.hpp"
#include "metal/arrays/array_layout.hpp"
#include "metal/arrays/packed_call.hpp"
#include "metal/mps/kernel_objects.hpp"

namespace mpsnn_loss::metal {
namespace {

/// float32 images, made of values that lie one after the other.
using Images = objc_ptr<ImageArray>;

class PackedCall {
 public:
  PackedCall(MetalEngine& engine, const Computation& call, Waiting waiting)
      : engine_(engine),
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
      for (std::int64_t i = 0; i < shape_.elements(); ++i) write_value(*request_.gradient, i, 0);
    }
    const bool encodes_gradient = request_.gradient && !gradient_is_zero();
    if (!encodes_loss() && !encodes_gradient) return;
    std::vector<double> sums(across() ? 1 : static_cast<std::size_t>(shape_.images));
    const std::vector<Rectangle> all =
        rectangles(shape_, request_.descriptor.loss_type, most_bytes_of_an_image());
    for (auto next = all.begin(); next != all.end();) {
      @autoreleasepool {  // the next buffer may need what this one's images take
        ShortBuffer buffer(engine_.queue());
        std::vector<Part> parts;
        for (std::int64_t room = engine_.most_bytes(); next != all.end(); ++next) {
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
  std::int64_t most_bytes_of_an_image() const { return engine_.most_bytes() / kMostImages; }

  /// The images of one rectangle of pixels.
  struct Part {
    Rectangle rectangle;
    Images predictions, labels, weights, loss, gradient;
  };

  bool is_of_pixels() const { return info(request_.descriptor.loss_type).one_weight_per_pixel; }
  bool encodes_loss() const { return request_.loss && !is_of_pixels(); }
  /// The header knows no weights of whole pixels; they go onto the results.
  bool sends_weights() const { return arrays_.weights() != nullptr && !is_of_pixels(); }
  bool across() const { return request_.descriptor.reduces_across_batch(); }
  double omega() const { return request_.descriptor.parameters.weight; }

  // ---- encoding

  Images images(const Shape& shape, const float* values) const {
    Images made = new_images(engine_.device(), {shape, Format::float32});
    if (values != nullptr) {
      write_images(made.get(), 0, shape.images, bytes_of(shape.image_elements()),
                   reinterpret_cast<const std::byte*>(values));
    }
    return made;
  }
  static std::int64_t bytes_of(std::int64_t elements) {
    return elements * std::int64_t{sizeof(float)};
  }
  /// The values of `count` images of so many elements each.
  static std::vector<float> values_of(const Images& images, std::int64_t count,
                                      std::int64_t elements) {
    std::vector<float> values(static_cast<std::size_t>(count * elements));
    read_images(images.get(), 0, count, bytes_of(elements),
                reinterpret_cast<std::byte*>(values.data()));
    return values;
  }

  Part encode(ShortBuffer& buffer, const Rectangle& rectangle) const {
    Part part{rectangle, {}, {}, {}, {}, {}};
    const auto upload = [&](const float* values) {
      return values == nullptr ? Images() : images(rectangle.shape, values + rectangle.first);
    };
    part.predictions = upload(arrays_.predictions());
    part.labels = upload(arrays_.labels());
    if (sends_weights()) part.weights = upload(arrays_.weights());
    if (encodes_loss()) encode_loss(buffer, part);
    if (request_.gradient && !gradient_is_zero()) encode_gradient(buffer, part);
    return part;
  }

  /// Encodes a kernel of the pool on a part, with `weight` on it where there are no weights.
  void encode_pooled(ShortBuffer& buffer, const Part& part, KernelKind kind,
                     ReductionType reduction, double weight, const Images& source_gradients,
                     const Images& results) const {
    LossDescriptor descriptor = request_.descriptor;
    descriptor.reduction_type = reduction;
    descriptor.reduce_across_batch = false;
    descriptor.parameters.weight = part.weights ? 1 : weight;
    const BorrowedKernel kernel(engine_.kernels(), engine_.device(), kind, descriptor);
    const bool by_labels = kind == KernelKind::loss_gradient && request_.wrt == Wrt::labels;
    set_dynamic_properties(kind, kernel.get(), {descriptor.parameters, by_labels});
    metal::encode(buffer.get(), kind, kernel.get(),
                  {part.predictions.get(), part.labels.get(), part.weights.get(),
                   source_gradients.get(), nil},
                  results.get());
  }

  void encode_loss(ShortBuffer& buffer, Part& part) const {
    const auto reduction = across() ? ReductionType::sum : ReductionType::none;
    part.loss = images(across() ? Shape{} : part.rectangle.shape, nullptr);
    encode_pooled(buffer, part, KernelKind::forward_loss, reduction, omega(), {}, part.loss);
  }

  void encode_gradient(ShortBuffer& buffer, Part& part) const {
    const float* const by_element = arrays_.source_gradients();
    const auto reduction = by_element != nullptr ? ReductionType::none : ReductionType::sum;
    constexpr float kOne = 1;
    const Images source_gradients =
        by_element == nullptr ? images(Shape{}, &kOne)
                              : images(part.rectangle.shape, by_element + part.rectangle.first);
    part.gradient = images(part.rectangle.shape, nullptr);
    encode_pooled(buffer, part, KernelKind::loss_gradient, reduction,
                  factor_is_on_kernel() ? factor(0) : 1, source_gradients, part.gradient);
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
        download(part.loss, part.rectangle, *request_.loss, [=](std::int64_t) { return factor; });
      return;
    }
    for (const Part& part : parts) {
      std::int64_t element = part.rectangle.first;
      const std::int64_t losses = across() ? 1 : part.rectangle.shape.image_elements();
      for (const float value : values_of(part.loss, 1, losses)) {
        const auto sum = across() ? 0 : static_cast<std::size_t>(element / shape_.image_elements());
        sums[sum] += static_cast<double>(value);
        ++element;
      }
    }
  }

  /// The sums of the images, or of the batch; D divides them here.
  void write_reduced_loss(const std::vector<double>& sums) const {
    const Operand& loss = *request_.loss;
    if (!request_.descriptor.reduces()) return;  // an array without elements
    for (std::int64_t i = 0; i < loss.shape().images; ++i) {
      const bool is_other = across() && i > 0;
      const double sum = is_other       ? 0
                         : sums.empty() ? 0
                                        : sums[sums.size() == 1 ? 0 : static_cast<std::size_t>(i)];
      const double d = divisors_[i];
      const double value = d == 0 ? loss_of_nothing(request_) : sum / d;
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
        ShortBuffer buffer(engine_.queue());
        Part part{{shape, first * shape.channels}, {}, {}, {}, {}, {}};
        part.predictions = images(shape, arrays_.predictions() + part.rectangle.first);
        part.labels = images(shape, arrays_.labels() + part.rectangle.first);
        part.loss = images(reduced(shape), nullptr);
        encode_pooled(buffer, part, KernelKind::forward_loss, ReductionType::sum, 1, {}, part.loss);
        buffer.run(waiting_);
        const std::vector<float> values = values_of(part.loss, shape.images, 1);
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
    const auto& g = request_.source_gradients;
    double value = omega();
    if (arrays_.source_gradients() == nullptr) {
      value *=
          g ? arrays_.source_gradient_of(across() ? 0 : image) : request_.uniform_source_gradient;
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
    const bool is_done = factor_is_on_kernel();
    std::vector<double> factors(static_cast<std::size_t>(shape_.images), 1.0);
    for (std::int64_t image = 0; image < shape_.images && !is_done; ++image)
      factors[static_cast<std::size_t>(image)] = factor(image);
    const std::int64_t per_image = shape_.image_elements();
    const bool by_weight = is_of_pixels();
    for (const Part& part : parts) {
      download(part.gradient, part.rectangle, *request_.gradient, [&](std::int64_t element) {
        const double f = factors[static_cast<std::size_t>(element / per_image)];
        return by_weight ? f * arrays_.weight_of(element) : f;
      });
    }
  }

  /// An image's values, each times factor(element), to where they belong in `to`.
  template <class Factor>
  static void download(const Images& from, const Rectangle& rectangle, const Operand& to,
                       Factor factor) {
    std::int64_t element = rectangle.first;
    for (const float value : values_of(from, 1, rectangle.shape.image_elements())) {
      const double f = factor(element);
      write_value(to, element,
                  f == 1 ? static_cast<double>(value) : f * static_cast<double>(value));
      ++element;
    }
  }

  MetalEngine& engine_;
  const Waiting waiting_;
  const Request& request_;
  const Shape shape_;
  const PerImage divisors_;
  const DenseArrays arrays_;
};

}  // namespace

void compute_packed(MetalEngine& engine, const Computation& computation, Waiting waiting) {
  const Request& r = *computation;
  const Need need{.loss = r.descriptor,
                  .format = r.predictions.descriptor.format,
                  .shape = r.predictions.shape(),
                  .work = r.work};
  if (const std::string why = engine.supports(need); !why.empty()) throw ValueError(why);
  if (!r.image_parameters.empty() || r.predictions.data == nullptr)
    throw ValueError("metal: only arrays are computed by the engine");
  PackedCall(engine, computation, waiting).run();
}

}  // namespace mpsnn_loss::metal
