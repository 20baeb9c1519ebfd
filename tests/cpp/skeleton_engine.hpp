// A skeleton of an engine, to be copied: all that the interface asks for, in the plainest way. It
// knows one loss; whoever copies it puts their own way of computing in place of `compute`.
#pragma once

#include <cmath>
#include <string>

#include "core/compensated_sum.hpp"
#include "core/divisor.hpp"
#include "core/element.hpp"
#include "core/engine.hpp"
#include "core/floating_point.hpp"
#include "core/weight_product.hpp"

namespace mpsnn_loss::test {

class SkeletonEngine final : public Engine {
 public:
  std::string name() const override { return "skeleton"; }

  /// Any part of the need may be missing: then it is asked about the rest.
  std::string supports(const Need& need) const override {
    if (need.loss && need.loss->loss_type != LossType::mean_absolute_error)
      return "the skeleton knows mean_absolute_error alone";
    if (need.work == Work::gradient_and_hessian) return "the skeleton has no Hessian";
    return {};
  }

  /// Shapes, formats and overlaps were checked when the computation was made.
  void compute(const Computation& computation, Waiting) override {
    in_default_floating_point([&] { run(computation); });
  }

 private:
  struct Place {
    std::int64_t image, row, column, channel;
  };

  /// Where an operand has the element of that place; its axes may broadcast, and its images may lie
  /// anywhere.
  static std::byte* at(const Operand& operand, const Place& p) {
    const Strides& strides = operand.strides;
    const std::int64_t within = p.row * strides[1] + p.column * strides[2] + p.channel * strides[3];
    const std::int64_t image = operand.shape().images == 1 ? 0 : p.image;
    return operand.image_data(image) + within * info(operand.descriptor.format).size;
  }
  static double read(const Operand& operand, const Place& p) {
    return read_value(at(operand, p), operand.descriptor.format);
  }
  static void write(const Operand& operand, const Place& p, double value) {
    write_value(at(operand, p), operand.descriptor.format, value);
  }

  template <class F>
  static void for_each_place(const Shape& shape, std::int64_t image, F f) {
    for (std::int64_t h = 0; h < shape.height; ++h) {
      for (std::int64_t w = 0; w < shape.width; ++w) {
        for (std::int64_t c = 0; c < shape.channels; ++c) f(Place{image, h, w, c});
      }
    }
  }

  static double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

  static void run(const Computation& computation) {
    const Request& r = *computation;
    const Shape& shape = r.predictions.shape();
    if (r.work == Work::initial_gradient) {
      for (std::int64_t n = 0; n < shape.images; ++n)
        for_each_place(shape, n, [&](const Place& p) { write(*r.gradient, p, 1); });
      return;
    }
    const PerImage divisors = mpsnn_loss::divisors(computation);
    const bool across = r.descriptor.reduces_across_batch();
    CompensatedSum of_batch;
    for (std::int64_t n = 0; n < shape.images; ++n) {
      const auto& own = r.image_parameters;
      const LossParameters& parameters =
          own.empty() ? r.descriptor.parameters : own[static_cast<std::size_t>(n)];
      const double omega = parameters.weight, divisor = divisors[n];
      CompensatedSum sum;
      for_each_place(shape, n, [&](const Place& p) {
        const double difference = read(r.predictions, p) - read(*r.labels, p);
        double v = 1;  // an exact 0 wins over whatever it weighs
        r.for_each_weights(
            [&](const Operand& weights) { v = weight_product(v, read(weights, p)); });
        const double loss = v == 0 ? 0 : std::abs(difference) * v;
        sum.add(loss);
        if (r.loss && !r.descriptor.reduces()) write(*r.loss, p, loss * omega);
        if (!r.gradient) return;
        // One for each element, for each image, or for all.
        double g = r.uniform_source_gradient;
        if (const auto& gradients = r.source_gradients) {
          const bool of_elements = !r.descriptor.reduces() && gradients->shape() == shape;
          g = read(*gradients, of_elements ? p : Place{across ? 0 : n, 0, 0, 0});
        }
        const double slope = sign(r.wrt == Wrt::predictions ? difference : -difference);
        write(*r.gradient, p, v == 0 || divisor == 0 ? 0 : slope * v * g * omega / divisor);
      });
      of_batch.add(sum.total());
      if (!r.loss || !r.descriptor.reduces()) continue;
      const double total = (across ? of_batch : sum).total();
      const double reduced_loss = divisor == 0 ? loss_of_nothing(r) : total * omega / divisor;
      const bool is_last = n + 1 == shape.images;
      if (!across) write(*r.loss, {n, 0, 0, 0}, reduced_loss);
      // Across the batch the loss is in image 0, and the others are 0.
      if (across && n > 0 && !r.loss_is_one_value) write(*r.loss, {n, 0, 0, 0}, 0);
      if (across && is_last) write(*r.loss, {0, 0, 0, 0}, reduced_loss);
    }
  }
};

}  // namespace mpsnn_loss::test
