// Whole calls: the same bits for every number of threads, for fused and separate work and for every
// place in memory; sums close to the exact ones; divisors; batches in pieces; empty arrays.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/gathered_images.hpp"
#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

/// One large image, a few of them, many small ones, and both sides of the cuts into chunks.
constexpr Shape kShapes[] = {{1, 1, 1, 40000}, {3, 5, 7, 11},   {700, 1, 1, 30},  {2, 90, 91, 3},
                             {1, 2500, 1, 10}, {170, 3, 5, 13}, {3, 1, 1, 17000}, {5, 1, 1, 1},
                             {41, 20, 20, 1},  {16400, 1, 1, 2}};

constexpr std::int64_t kThreads[] = {1, 2, 7};

/// Every reduction, with and without the batch.
struct Reduction {
  ReductionType type;
  bool across;
};
constexpr Reduction kAllReductions[] = {{ReductionType::none, false},
                                        {ReductionType::sum, false},
                                        {ReductionType::mean, false},
                                        {ReductionType::sum_by_non_zero_weights, false},
                                        {ReductionType::sum, true},
                                        {ReductionType::mean, true},
                                        {ReductionType::sum_by_non_zero_weights, true}};

/// None, or one weight per image, pixel, class or element.
std::optional<Shape> weights_shape(int kind, const Shape& s, const LossInfo& loss) {
  const bool by_pixel = loss.one_weight_per_pixel;
  switch (kind % 5) {
    case 1: return Shape{s.images, 1, 1, 1};
    case 2: return Shape{s.images, s.height, s.width, 1};
    case 3: return Shape{1, 1, 1, by_pixel ? 1 : s.channels};
    case 4: return Shape{s.images, s.height, s.width, by_pixel ? 1 : s.channels};
    default: return std::nullopt;
  }
}

/// Calls visit(problem) for each loss, shape, format and derivative; the reductions, the weights,
/// the source gradients and ω take turns.
template <class Visit>
void for_each_call(Visit visit) {
  int turn = 0;
  for (const LossInfo& loss : kLosses) {
    for (const Shape& shape : kShapes) {
      for (const Formats& formats : kFormatMixes) {
        for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
          const Reduction& reduction = kAllReductions[turn % 7];
          Problem problem{descriptor_of(loss.type, reduction.type, reduction.across), wrt, formats,
                          shape};
          problem.weights = weights_shape(turn / 7, shape, loss);
          const bool reduces = problem.descriptor.reduces();
          if (turn % 3 == 1) problem.gradients = reduced(shape);
          if (turn % 3 == 2 && !reduces) problem.gradients = shape;
          if (turn % 11 == 0) problem.descriptor.parameters.weight = 1e-42;  // subnormal in float32
          visit(problem);
          ++turn;
        }
      }
    }
  }
}

void check_same(const Problem& problem, const Outputs& given, const Outputs& expected) {
  INFO(problem.text());
  CHECK(given.guards_intact());
  if (given.loss.count() > 0) CHECK(first_difference(given.loss, expected.loss) == -1);
  if (given.gradient.count() > 0) CHECK(first_difference(given.gradient, expected.gradient) == -1);
}

}  // namespace

TEST_CASE("fused and separate calls give the same bits with every number of threads") {
  Random random(1);
  for_each_call([&](const Problem& problem) {
    Inputs in = make_inputs(problem, random);
    Outputs expected;
    {
      const ThreadCount one(1);
      expected = run(problem, in, Work::loss_and_gradient);
    }
    for (const std::int64_t threads : kThreads) {
      const ThreadCount scope(threads);
      for (const Work work : {Work::loss_and_gradient, Work::loss, Work::gradient}) {
        check_same(problem, run(problem, in, work), expected);
      }
    }
  });
}

TEST_CASE("sums do not depend on where in memory the inputs are") {
  Random random(2);
  for (const LossInfo& loss : kLosses) {
    for (const Formats& formats : kFormatMixes) {
      for (const Shape& shape : {Shape{1, 1, 1, 3001}, Shape{3, 4, 5, 23}, Shape{2, 1, 1, 17001}}) {
        Problem problem{descriptor_of(loss.type, ReductionType::mean), Wrt::predictions, formats,
                        shape};
        problem.weights = weights_shape(4, shape, loss);
        Inputs in = make_inputs(problem, random);
        const Outputs expected = run(problem, in, Work::loss_and_gradient);
        for (std::int64_t offset = 0; offset < 17; offset += 1 + offset / 4) {
          Inputs moved;
          moved.predictions = in.predictions.slice(0, in.predictions.count(), offset);
          moved.labels = in.labels.slice(0, in.labels.count(), offset / 2);
          moved.weights = in.weights.slice(0, in.weights.count(), 16 - offset);
          check_same(problem, run(problem, moved, Work::loss_and_gradient, offset), expected);
        }
      }
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
  const Shape shape{4, 3, 5, 6};
  for (const LossInfo& loss : kLosses) {
    if (loss.sums_only) continue;
    for (int kind = 0; kind < 5; ++kind) {
      for (const bool across : {false, true}) {
        for (const ReductionType type :
             {ReductionType::mean, ReductionType::sum_by_non_zero_weights}) {
          Problem sum{descriptor_of(loss.type, ReductionType::sum, across), Wrt::predictions,
                      kFormatMixes[1], shape};
          sum.weights = weights_shape(kind, shape, loss);
          Problem mean = sum;
          mean.descriptor.reduction_type = type;
          Inputs in = make_inputs(sum, random);
          if (kind == 1) in.weights.set(2, 0);  // an image without any weight
          const Outputs sums = run(sum, in, Work::loss_and_gradient);
          const Outputs means = run(mean, in, Work::loss_and_gradient);
          // D of each image by its definition.
          const auto v = [&](std::int64_t image, std::int64_t pixel, std::int64_t c) {
            if (!sum.weights) return 1.0;
            const Shape& w = *sum.weights;
            const std::int64_t row = w.images == 1 ? 0 : image, at = w.height == 1 ? 0 : pixel;
            return in.weights.get((row * w.pixels() + at) * w.channels + (w.channels == 1 ? 0 : c));
          };
          std::vector<double> divisors;
          for (std::int64_t image = 0; image < shape.images; ++image) {
            double d = 0;
            for (std::int64_t pixel = 0; pixel < shape.pixels(); ++pixel) {
              double counted = 0;
              for (std::int64_t c = 0; c < shape.channels; ++c) {
                counted += type == ReductionType::mean || v(image, pixel, c) != 0;
              }
              d += loss.family == Family::channel ? std::min(counted, 1.0) : counted;
            }
            divisors.push_back(d);
          }
          INFO(mean.text());
          double all = 0;
          for (const double d : divisors) all += d;
          std::int64_t wrong = 0;
          const auto is_near = [](double a, double b) {
            return std::abs(a - b) <= 1e-14 * std::abs(b);
          };
          for (std::int64_t image = 0; image < shape.images; ++image) {
            const double d = across ? all : divisors[static_cast<std::size_t>(image)];
            const double expected = d == 0 ? 0 : sums.loss.get(image) / d;
            wrong += !is_near(means.loss.get(image), expected);
            for (std::int64_t i = 0; i < shape.image_elements(); ++i) {
              const std::int64_t at = image * shape.image_elements() + i;
              const double g = d == 0 ? 0 : sums.gradient.get(at) / d;
              // A softmax gradient is a difference: near in the measure of its terms.
              wrong += !is_near(means.gradient.get(at), g) &&
                       std::abs(means.gradient.get(at) - g) > 1e-13 / d;
            }
          }
          CHECK(wrong == 0);
        }
      }
    }
  }
}

TEST_CASE("a gathered batch gives the results of the same images in one piece") {
  Random random(6);
  for (const LossInfo& loss : kLosses) {
    for (const Shape& shape : {Shape{5, 3, 4, 7}, Shape{3, 1, 1, 17000}}) {
      for (const Reduction& reduction : kAllReductions) {
        Problem problem{descriptor_of(loss.type, reduction.type, reduction.across),
                        Wrt::predictions, kFormatMixes[0], shape};
        problem.gradients = reduced(shape);
        problem.weights = weights_shape(4, shape, loss);
        Inputs in = make_inputs(problem, random);
        const Outputs expected = run(problem, in, Work::loss_and_gradient);
        // The same values in images that lie backwards in memory.
        const auto backwards = [](const Operand& operand) {
          const std::int64_t count = operand.shape().images,
                             bytes = operand.descriptor.image_bytes();
          const auto images = cpu_device()->make_images(operand.descriptor);
          std::vector<Image> order;
          for (std::int64_t i = count; i-- > 0;) order.push_back({images, i});
          auto gathered = gather_images(operand.name, order);
          if (!operand.writable) gathered->upload(0, count, operand.data);
          REQUIRE((count == 1 || bytes == 0 || gathered->data() == nullptr));
          return make_operand(operand.name, gathered);
        };
        Outputs out;
        out.loss = Array(expected.loss.format(), expected.loss.count(), 0);
        out.gradient = Array(expected.gradient.format(), expected.gradient.count(), 0);
        LossRequest request = request_of(problem, in, Work::loss_and_gradient);
        request.loss =
            make_operand("loss", {loss_shape(problem.descriptor, shape), Format::float32},
                         out.loss.data(), true);
        request.gradient =
            make_operand("gradient", {shape, Format::float32}, out.gradient.data(), true);
        for (Operand* operand : {&request.predictions, &request.labels, &request.weights,
                                 &request.source_gradients, &request.loss, &request.gradient}) {
          *operand = backwards(*operand);
        }
        const LossCall call(request);
        cpu_device()->compute(call);
        call->loss.images->download(0, call->loss.shape().images, out.loss.data());
        call->gradient.images->download(0, shape.images, out.gradient.data());
        INFO(problem.text());
        CHECK(first_difference(out.gradient, expected.gradient) == -1);
        if (!problem.descriptor.reduces()) {
          CHECK(first_difference(out.loss, expected.loss) == -1);
        } else {
          for (std::int64_t i = 0; i < out.loss.count(); ++i) {
            CHECK(out.loss.get(i) == doctest::Approx(expected.loss.get(i)).epsilon(2e-6));
          }
        }
      }
    }
  }
}

TEST_CASE("each image is computed with the parameters of its own state") {
  Random random(7);
  const Shape shape{3, 4, 5, 6};
  const std::vector<LossParameters> states{
      {2, 0, 1e-3, 0.5}, {-1, 0.25, 0, 0.125}, {0.5, 1, 1e-2, 2}};
  for (const LossInfo& loss : kLosses) {
    for (const ReductionType type : {ReductionType::none, ReductionType::mean}) {
      Problem problem{descriptor_of(loss.type, type), Wrt::predictions, kFormatMixes[0], shape};
      problem.states = states;
      problem.gradients = reduced(shape);
      Inputs in = make_inputs(problem, random);
      const Outputs given = run(problem, in, Work::loss_and_gradient);
      Problem single = problem;
      for (std::int64_t i = 0; i < shape.images; ++i) {
        single.states = {states[static_cast<std::size_t>(i)]};
        const Outputs expected = run(single, in, Work::loss_and_gradient);
        const std::int64_t size = shape.image_elements();
        INFO(problem.text());
        CHECK(first_difference(given.gradient, i * size, expected.gradient, i * size, size) == -1);
        if (problem.descriptor.reduces()) {
          CHECK(given.loss.get(i) == doctest::Approx(expected.loss.get(i)).epsilon(2e-6));
        } else {
          CHECK(first_difference(given.loss, i * size, expected.loss, i * size, size) == -1);
        }
      }
    }
  }
}

TEST_CASE(
    "across the batch, the source gradient of image 0 counts for all, the others for nothing") {
  Random random(8);
  for (const LossInfo& loss : kLosses) {
    Problem problem{descriptor_of(loss.type, ReductionType::sum, true),
                    Wrt::predictions,
                    kFormatMixes[0],
                    {4, 2, 3, 5}};
    problem.gradients = Shape{4, 1, 1, 1};
    Inputs in = make_inputs(problem, random);
    in.gradients.set(0, 1.5);
    for (std::int64_t i = 1; i < 4; ++i) in.gradients.set(i, std::nan(""));
    Problem scalar = problem;
    scalar.gradients = {};
    scalar.source_gradient = 1.5;
    check_same(problem, run(problem, in, Work::gradient), run(scalar, in, Work::gradient));
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
