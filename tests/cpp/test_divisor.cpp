// The divisor of a reduction (core/divisor.hpp) against a plain loop over all elements.
#include "core/divisor.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// An operand that lies anyhow: axes in any order, apart and backwards, or each image by itself.
class Scattered {
 public:
  Scattered(const char* name, const Shape& shape, Format format, Random& random)
      : Scattered(name, shape, format, random, random.below(3)) {}

  const Operand& operand() const { return operand_; }
  double get(const std::array<std::int64_t, 4>& at) const {
    std::int64_t place = first_;
    for (std::size_t i = 0; i < 4; ++i)
      place += operand_.shape().axes()[i] == 1 ? 0 : at[i] * strides_[i];
    return memory_->get(place);
  }
  /// Calls set(value()) for each element.
  template <class F>
  void fill(F value) {
    for (std::int64_t i = 0; i < memory_->count(); ++i) memory_->set(i, value());
  }

 private:
  enum { contiguous, by_image };

  Scattered(const char* name, const Shape& shape, Format format, Random& random, std::int64_t kind)
      : strides_(contiguous_strides(shape)) {
    const auto axes = shape.axes();
    std::int64_t count = shape.elements();
    if (kind > by_image) {
      std::array<std::size_t, 4> order{0, 1, 2, 3};
      for (std::size_t i = 4; i > 1; --i)
        std::swap(order[i - 1],
                  order[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
      count = 1 + random.below(2);
      for (const std::size_t i : order) {
        strides_[i] = axes[i] == 1 ? 0 : random.one_in(3) ? -count : count;
        if (strides_[i] < 0) first_ += count * (axes[i] - 1);
        count *= axes[i];
        count += random.below(2);
      }
    }
    memory_ = std::make_shared<Array>(format, count, 0);
    operand_ = Operand(name, {shape, format}, memory_->data(), false);
    if (kind == by_image) {
      const std::int64_t bytes = operand_.descriptor.image_bytes();
      extents_ = std::make_shared<std::vector<MemoryRange>>();
      for (std::int64_t i = 0; i < shape.images; ++i) {
        const auto begin = reinterpret_cast<std::uintptr_t>(memory_->data() + i * bytes);
        extents_->push_back({begin, begin + static_cast<std::uintptr_t>(bytes)});
      }
      operand_.data = nullptr;
      operand_.extents = extents_->data();
    } else {
      operand_.data += first_ * info(format).size;
      operand_.strides = strides_;
    }
  }

  Strides strides_;
  std::int64_t first_ = 0;
  std::shared_ptr<Array> memory_;
  std::shared_ptr<std::vector<MemoryRange>> extents_;
  Operand operand_;
};

struct Case {
  Request request;
  std::vector<Scattered> weights;  // whose product counts
  std::optional<Scattered> labels;
  std::vector<std::int64_t> indices;  // or these

  std::int64_t index(std::int64_t image, std::int64_t row, std::int64_t column) const {
    const Shape& s = request.predictions.shape();
    return indices[static_cast<std::size_t>((image * s.height + row) * s.width + column)];
  }
  double weight(const std::array<std::int64_t, 4>& at) const {
    double product = 1;
    for (const Scattered& one : weights) {
      if (one.get(at) == 0) return 0;
      product *= one.get(at);
    }
    if (indices.empty()) return product;
    return index(at[0], at[1], at[2]) == request.class_indices->ignored ? 0 : product;
  }
  double label(const std::array<std::int64_t, 4>& at) const {
    if (indices.empty()) return labels->get(at);
    return index(at[0], at[1], at[2]) == at[3] ? 1 : 0;
  }
};

/// What one image adds to D, and the size of the terms that it is the sum of.
struct Exact {
  double divisor = 0, size = 0;
};

Exact exact_divisor(const Case& c, std::int64_t image) {
  const Shape& shape = c.request.predictions.shape();
  const LossInfo& loss = info(c.request.descriptor.loss_type);
  long double divisor = 0, size = 0;
  for (std::int64_t row = 0; row < shape.height; ++row) {
    for (std::int64_t column = 0; column < shape.width; ++column) {
      std::int64_t counted = 0;
      for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
        const std::array at{image, row, column, channel};
        const double v = c.weight(at);
        switch (c.request.descriptor.reduction_type) {
          case ReductionType::none:
          case ReductionType::sum: break;
          case ReductionType::mean: counted += 1; break;
          case ReductionType::sum_by_non_zero_weights: counted += v != 0; break;
          case ReductionType::mean_by_weights: {
            const double t = loss.weighs_by_labels ? c.label(at) : 1;
            if (v == 0 || t == 0) break;
            divisor += static_cast<long double>(v) * t;
            size += std::abs(static_cast<long double>(v) * t);
          }
        }
      }
      divisor += loss.couples_channels ? std::min<std::int64_t>(counted, 1) : counted;
    }
  }
  if (!info(c.request.descriptor.reduction_type).divides) divisor = 1;
  return {static_cast<double>(divisor), static_cast<double>(size)};
}

bool is_near(double given, const Exact& exact) {
  if (std::isnan(exact.divisor)) return std::isnan(given);
  if (std::isinf(exact.divisor)) return given == exact.divisor;
  return std::abs(given - exact.divisor) <= 1e-15 * exact.size;
}

Format random_format(bool wide, Random& random) {
  if (wide) return Format::float64;
  return random.one_of(std::array{Format::float16, Format::float32, Format::bfloat16});
}

Case random_case(const LossInfo& loss, const ReductionInfo& reduction, Random& random) {
  Case c;
  const Shape shape{1 + random.below(3), 1 + random.below(4), 1 + random.below(4),
                    1 + random.below(6)};
  const bool wide = random.one_in(3), special = random.one_in(4);
  const auto weight = [&]() -> double {
    if (random.one_in(3)) return random.one_in(2) ? 0.0 : -0.0;
    if (special && random.one_in(9))
      return random.one_of(std::array{kInfinity, -kInfinity, std::nan(""), -1.0});
    return random.uniform(-0.5, 2);
  };
  Request& r = c.request;
  r.by_functions = true;
  r.descriptor = {loss.type, reduction.type, random.one_in(2), 1, {}};
  // Never read.
  r.predictions = Operand("predictions", {shape, random_format(wide, random)}, nullptr, false);
  const auto add_weights = [&](auto& operand, const Shape& axes) {
    c.weights.emplace_back("weights", axes, random_format(wide, random), random).fill(weight);
    operand = c.weights.back().operand();
  };
  const auto maybe = [&](std::int64_t extent) { return random.one_in(2) ? extent : 1; };
  const std::int64_t channels = loss.one_weight_per_pixel ? 1 : shape.channels;
  if (random.one_in(2))
    add_weights(r.weights,
                {maybe(shape.images), maybe(shape.height), maybe(shape.width), maybe(channels)});
  if (random.one_in(2)) {
    add_weights(r.sample_weights, random.one_in(2)
                                      ? Shape{shape.images, shape.height, shape.width, 1}
                                      : Shape{shape.images, 1, 1, 1});
  }
  if (random.one_in(2)) add_weights(r.class_weights, {1, 1, 1, channels});
  if (loss.takes_class_indices && random.one_in(2)) {
    r.class_indices.emplace();
    if (random.one_in(2)) r.class_indices->ignored = random.one_in(2) ? -100 : 0;
    for (std::int64_t i = 0; i < shape.images * shape.pixels(); ++i) {
      const bool ignored = r.class_indices->ignored && random.one_in(3);
      c.indices.push_back(ignored ? *r.class_indices->ignored : random.below(shape.channels));
    }
    r.class_indices->data = c.indices.data();
  } else {
    c.labels.emplace("labels", shape, random_format(wide, random), random).fill(weight);
    r.labels = c.labels->operand();
  }
  return c;
}

/// Predictions and labels that nobody reads, of so many pixels.
Request unread(const LossInfo& loss, ReductionType reduction, const Shape& shape) {
  Request r;
  r.by_functions = true;
  r.descriptor = {loss.type, reduction, true, 1, {}};
  r.predictions = Operand("predictions", {shape, Format::float64}, nullptr, false);
  r.labels = Operand("labels", {shape, Format::float64}, nullptr, false);
  return r;
}

}  // namespace

TEST_CASE("every reduction divides by what a plain loop counts or adds up") {
  Random random(1);
  int wrong = 0, zeros = 0;
  for (const LossInfo& loss : kLosses) {
    for (const ReductionInfo& reduction : kReductions) {
      if (loss.sums_only && reduction.type != ReductionType::sum) continue;
      for (int trial = 0; trial < 300; ++trial) {
        const Case c = random_case(loss, reduction, random);
        const std::int64_t images = c.request.predictions.shape().images;
        const PerImage given = divisors(Computation(c.request));
        Exact total;
        for (std::int64_t i = 0; i < images; ++i) {
          const Exact one = exact_divisor(c, i);
          if (!c.request.descriptor.reduces_across_batch() && !is_near(given[i], one)) ++wrong;
          total.divisor += one.divisor;
          total.size += one.size;
        }
        zeros += total.divisor == 0;
        if (!c.request.descriptor.reduces_across_batch()) continue;
        if (!reduction.divides) total.divisor = 1;
        if (!given.is_one() || !is_near(given[0], total)) ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(zeros > 10);
}

TEST_CASE("a divisor of the call stands in for that of every image, 0 included") {
  Random random(2);
  for (const LossInfo& loss : kLosses) {
    if (loss.sums_only) continue;
    for (const ReductionInfo& reduction : kReductions) {
      if (!reduction.divides) continue;
      for (const double divisor : {0.0, 1.0, -2.5, 1e300}) {
        Case c = random_case(loss, reduction, random);
        c.request.divisor = divisor;
        const PerImage given = divisors(Computation(c.request));
        CHECK(given.is_one());
        CHECK(given[0] == divisor);
        CHECK(loss_of_nothing(c.request) == 0);
      }
    }
  }
}

TEST_CASE("nothing has a divisor of 0, and only its mean is not a number") {
  for (const LossInfo& loss : kLosses) {
    for (const ReductionInfo& reduction : kReductions) {
      if (loss.sums_only || !reduction.divides) continue;
      for (const Shape& shape : {Shape{0, 1, 1, 3}, Shape{2, 1, 1, 0}, Shape{2, 0, 3, 1}}) {
        Request r = unread(loss, reduction.type, shape);
        for (const bool across : {false, true}) {
          r.descriptor.reduce_across_batch = across;
          const PerImage given = divisors(Computation(r));
          for (std::int64_t i = 0; i < (across ? 1 : shape.images); ++i) CHECK(given[i] == 0);
        }
        CHECK(std::isnan(loss_of_nothing(r)) == (reduction.type == ReductionType::mean));
      }
    }
  }
}

TEST_CASE("the weights of pixels add up to what a plain loop adds") {
  Random random(3);
  const LossInfo& cosine = info(LossType::cosine_distance);
  for (int trial = 0; trial < 500; ++trial) {
    const Case c = random_case(cosine, info(ReductionType::sum), random);
    const Shape& shape = c.request.predictions.shape();
    const Computation computation(c.request);
    for (std::int64_t image = 0; image < shape.images; ++image) {
      Exact exact;
      for (std::int64_t pixel = 0; pixel < shape.pixels(); ++pixel) {
        const double v = c.weight({image, pixel / shape.width, pixel % shape.width, 0});
        exact.divisor += v;
        exact.size += std::abs(v);
      }
      CHECK(is_near(sum_of_pixel_weights(computation, image), exact));
    }
  }
}

TEST_CASE("a mean by weights adds up millions of them without losing digits") {
  Random random(4);
  const Shape shape{1, 4000, 1000, 1};
  Request r = unread(info(LossType::huber), ReductionType::mean_by_weights, shape);
  Scattered weight("weights", {1, 1, 1, 1}, Format::float64, random);
  weight.fill([] { return 0.1; });
  r.weights = weight.operand();
  const double exact = 0.1 * static_cast<double>(shape.pixels());
  CHECK(std::abs(divisors(Computation(r))[0] - exact) <= 1e-15 * exact);
}

TEST_CASE("weights of images that cancel leave all digits of the rest") {
  Random random(7);
  constexpr double kRest = 1.7824287251513058;
  const double values[] = {-65504, kRest, 65504, 0};
  Request r = unread(info(LossType::huber), ReductionType::mean_by_weights, {2, 1, 1, 2});
  r.descriptor.reduce_across_batch = true;
  Scattered weights("weights", {2, 1, 1, 2}, Format::float64, random);
  weights.fill([&, i = 0]() mutable { return values[i++]; });
  r.weights = weights.operand();
  CHECK(divisors(Computation(r))[0] == kRest);
}

TEST_CASE("a mean by weights divides by a product that would round to 0") {
  Random random(5);
  Request r = unread(info(LossType::huber), ReductionType::mean_by_weights, {1, 1, 1, 2});
  Scattered sample("sample_weight", {1, 1, 1, 1}, Format::float64, random);
  Scattered classes("class_weight", {1, 1, 1, 2}, Format::float64, random);
  for (Scattered* one : {&sample, &classes}) one->fill([] { return 1e-200; });
  r.sample_weights = sample.operand();
  r.class_weights = classes.operand();
  CHECK(divisors(Computation(r))[0] == 2 * std::numeric_limits<double>::denorm_min());
}

TEST_CASE("the weights of millions of pixels add up without losing digits") {
  Random random(6);
  const Shape shape{1, 4000, 1000, 1};
  Request r = unread(info(LossType::cosine_distance), ReductionType::sum, shape);
  Scattered weight("weights", {1, 1, 1, 1}, Format::float64, random);
  weight.fill([] { return 0.1; });
  r.weights = weight.operand();
  const double exact = 0.1 * static_cast<double>(shape.pixels());
  CHECK(std::abs(sum_of_pixel_weights(Computation(r), 0) - exact) <= 1e-13 * exact);
}

}  // namespace mpsnn_loss::test
