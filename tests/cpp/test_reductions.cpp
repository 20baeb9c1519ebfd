// Reductions: sums close to the exact ones, divisors, and what becomes of nothing.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

/// D of each image by its definition.
std::vector<double> exact_divisors(const Problem& problem, const Inputs& in) {
  const Shape& shape = problem.shape;
  const LossDescriptor& descriptor = problem.descriptor;
  const auto counts = [&](std::int64_t image, std::int64_t pixel, std::int64_t channel) {
    if (descriptor.reduction_type == ReductionType::mean || !problem.weights) return true;
    const Shape& w = *problem.weights;
    const std::int64_t row = (w.images == 1 ? 0 : image) * w.pixels() + (w.height == 1 ? 0 : pixel);
    return in.weights.get(row * w.channels + (w.channels == 1 ? 0 : channel)) != 0;
  };
  std::vector<double> divisors(static_cast<std::size_t>(shape.images));
  for (std::int64_t image = 0; image < shape.images; ++image) {
    double& d = divisors[static_cast<std::size_t>(image)];
    for (std::int64_t pixel = 0; pixel < shape.pixels(); ++pixel) {
      double counted = 0;
      for (std::int64_t c = 0; c < shape.channels; ++c) counted += counts(image, pixel, c);
      const bool by_pixel = info(descriptor.loss_type).couples_channels;
      d += by_pixel ? std::min(counted, 1.0) : counted;
    }
  }
  if (!descriptor.reduces_across_batch()) return divisors;
  return std::vector<double>(divisors.size(),
                             std::accumulate(divisors.begin(), divisors.end(), 0.0));
}

}  // namespace

TEST_CASE("across the batch, one value or one per image: image 0 is the same, the others are 0") {
  Random random(11);
  for (const LossInfo& loss : kLosses) {
    for (const Shape& shape : kShapes) {
      Problem problem{descriptor_of(loss.type, ReductionType::mean, true), Wrt::predictions,
                      kFormatMixes[0], shape};
      Inputs in = make_inputs(problem, random);
      const Outputs each = run(problem, in, Work::loss);
      Array one(Format::float32, 1, 0, true);
      Request request = request_of(problem, in, Work::loss);
      request.loss_is_one_value = true;
      request.loss = Operand("loss", {{}, Format::float32}, one.data(), true);
      cpu_device()->engine().compute(Computation(request), nullptr);
      INFO(problem.text());
      CHECK(one.guards_intact());
      CHECK(first_difference(one, 0, each.loss, 0, 1) == -1);
      for (std::int64_t i = 1; i < each.loss.count(); ++i) REQUIRE(each.loss.get(i) == 0);
    }
  }
}

TEST_CASE("sums are as close to the sum of the elements as the contract has it") {
  Random random(3);
  for (const LossInfo& loss : kLosses) {
    if (loss.sums_only) continue;  // has no element results to compare with
    for (const Formats& formats : kFormatMixes) {
      for (const Shape& shape : kShapes) {
        Problem each{descriptor_of(loss.type, ReductionType::none), Wrt::predictions, formats,
                     shape};
        each.weights = weights_shape(4, shape, loss);
        Inputs in = make_inputs(each, random);
        const Outputs elements = run(each, in, Work::loss);
        const double bound = formats.predictions == Format::float64 ? 1e-13 : 1e-6;
        long double total = 0, total_size = 0;
        Problem sum = each, across = each;
        sum.descriptor.reduction_type = across.descriptor.reduction_type = ReductionType::sum;
        across.descriptor.reduce_across_batch = true;
        const Outputs sums = run(sum, in, Work::loss), all = run(across, in, Work::loss);
        INFO(each.text());
        bool near = true;
        for (std::int64_t image = 0; image < shape.images; ++image) {
          long double exact = 0, size = 0;
          for (std::int64_t i = 0; i < shape.image_elements(); ++i) {
            const long double u = elements.loss.get(image * shape.image_elements() + i);
            exact += u;
            size += std::abs(u);
          }
          near = near && std::abs(sums.loss.get(image) - exact) <= bound * size;
          if (image > 0) near = near && all.loss.get(image) == 0;
          total += exact;
          total_size += size;
        }
        CHECK(near);
        CHECK(std::abs(all.loss.get(0) - total) <= bound * total_size);
      }
    }
  }
}

TEST_CASE("cosine distance sums 1 and the products of every pixel with its weight") {
  Random random(4);
  for (const Formats& formats : kFormatMixes) {
    for (const Shape& shape : kShapes) {
      Problem problem{descriptor_of(LossType::cosine_distance, ReductionType::sum),
                      Wrt::predictions, formats, shape};
      problem.descriptor.parameters.weight = 1;
      problem.weights = weights_shape(2, shape, info(LossType::cosine_distance));
      Inputs in = make_inputs(problem, random);
      const Outputs out = run(problem, in, Work::loss);
      const double bound = formats.predictions == Format::float64 ? 1e-13 : 1e-6;
      bool near = true;
      for (std::int64_t image = 0, i = 0; image < shape.images; ++image) {
        long double exact = 0, size = 0;
        for (std::int64_t pixel = 0; pixel < shape.pixels(); ++pixel) {
          const long double v = in.weights.get(image * shape.pixels() + pixel);
          exact += v;
          size += v;
          for (std::int64_t c = 0; c < shape.channels; ++c, ++i) {
            const long double product = v * in.predictions.get(i) * in.labels.get(i);
            exact -= product;
            size += std::abs(product);
          }
        }
        near = near && std::abs(out.loss.get(image) - exact) <= bound * size;
      }
      INFO(problem.text());
      CHECK(near);
    }
  }
}

TEST_CASE("a mean is the sum over D, and so is its gradient") {
  Random random(5);
  for (const LossInfo& loss : kLosses) {
    if (loss.sums_only) continue;
    for (int kind = 0; kind < 10; ++kind) {
      for (const Reduction& reduction : kAllReductions) {
        const Shape shape{4, 3, 5, 6};
        Problem mean{descriptor_of(loss.type, reduction.type, reduction.across), Wrt::predictions,
                     kFormatMixes[1], shape};
        if (reduction.type == ReductionType::none || reduction.type == ReductionType::sum) continue;
        mean.weights = weights_shape(kind, shape, loss);
        Problem sum = mean;
        sum.descriptor.reduction_type = ReductionType::sum;
        Inputs in = make_inputs(mean, random);
        if (kind == 6) in.weights.set(2, 0);  // an image without any weight
        const Outputs sums = run(sum, in, Work::loss_and_gradient);
        const Outputs means = run(mean, in, Work::loss_and_gradient);
        const std::vector<double> divisors = exact_divisors(mean, in);
        std::int64_t wrong = 0;
        const auto meet = [&](double given, double of_sum, double d, double scale) {
          const double expected = d == 0 ? 0 : of_sum / d;
          const double bound = d == 0 ? 0 : 1e-14 * std::max(std::abs(expected), scale / d);
          wrong += !(std::abs(given - expected) <= bound);
        };
        for (std::int64_t image = 0; image < shape.images; ++image) {
          const double d = divisors[static_cast<std::size_t>(image)];
          meet(means.loss.get(image), sums.loss.get(image), d, 0);
          for (std::int64_t i = 0; i < shape.image_elements(); ++i) {
            const std::int64_t at = image * shape.image_elements() + i;
            // A softmax gradient is a difference of terms of about 1.
            const double scale = loss.couples_channels ? 8 : 0;
            meet(means.gradient.get(at), sums.gradient.get(at), d, scale);
          }
        }
        INFO(mean.text());
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("the sum of nothing is 0, its mean is NaN, and there is no gradient") {
  Random random(9);
  for (const LossInfo& loss : kLosses) {
    if (loss.one_weight_per_pixel) continue;  // sums its pixels, too
    for (const Shape& shape :
         {Shape{0, 1, 1, 3}, Shape{2, 0, 1, 3}, Shape{2, 3, 0, 1}, Shape{2, 1, 1, 0}}) {
      for (const Reduction& reduction : kAllReductions) {
        Problem problem{descriptor_of(loss.type, reduction.type, reduction.across),
                        Wrt::predictions, kFormatMixes[0], shape};
        Inputs in = make_inputs(problem, random);
        const Outputs out = run(problem, in, Work::loss_and_gradient);
        INFO(problem.text());
        CHECK(out.guards_intact());
        CHECK(out.gradient.count() == 0);
        const bool is_mean = reduction.type == ReductionType::mean;
        for (std::int64_t i = 0; i < out.loss.count(); ++i) {
          const bool is_nan = is_mean && (i == 0 || !reduction.across);
          if (is_nan) {
            CHECK(std::isnan(out.loss.get(i)));
          } else {
            CHECK(out.loss.get(i) == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("without any weight but 0 the loss and the gradient are 0") {
  Random random(10);
  for (const LossInfo& loss : kLosses) {
    for (const Reduction& reduction : kAllReductions) {
      Problem problem{descriptor_of(loss.type, reduction.type, reduction.across),
                      Wrt::predictions,
                      kFormatMixes[0],
                      {3, 2, 5, 7}};
      problem.weights = Shape{3, 2, 5, 1};
      Inputs in = make_inputs(problem, random);
      add_special_values(in, random);
      for (std::int64_t i = 0; i < in.weights.count(); ++i) in.weights.set(i, 0);
      const Outputs out = run(problem, in, Work::loss_and_gradient);
      INFO(problem.text());
      std::int64_t wrong = 0;
      for (std::int64_t i = 0; i < out.loss.count(); ++i) wrong += out.loss.get(i) != 0;
      for (std::int64_t i = 0; i < out.gradient.count(); ++i) wrong += out.gradient.get(i) != 0;
      CHECK(wrong == 0);
    }
  }
}

}  // namespace mpsnn_loss::test
