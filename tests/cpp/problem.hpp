// A loss on arrays in host memory, computed on the CPU engine.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "core/computation.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {

/// Storage of the four inputs.
struct Formats {
  Format predictions, labels, weights, gradients;
};

inline constexpr Formats kFormatMixes[] = {
    {Format::float32, Format::float32, Format::float32, Format::float32},
    {Format::float64, Format::float64, Format::float64, Format::float64},
    {Format::float16, Format::float16, Format::float16, Format::float16},
    {Format::float16, Format::float32, Format::float16, Format::float32},
    {Format::float32, Format::float16, Format::float32, Format::float16},
};

struct Problem {
  LossDescriptor descriptor;
  Wrt wrt = Wrt::predictions;
  Formats formats = kFormatMixes[0];
  Shape shape = {};
  std::optional<Shape> weights = {};    // none: no weights
  std::optional<Shape> gradients = {};  // none: the source gradient is `source_gradient`
  double source_gradient = 1;
  std::vector<LossParameters> states = {};  // none, one, or of each image

  std::string text() const {
    std::string words = info(descriptor.loss_type).name;
    words += std::string(" ") + info(descriptor.reduction_type).name;
    words += descriptor.reduce_across_batch ? " across" : "";
    words += wrt == Wrt::labels ? " by labels " : " by predictions ";
    words += info(formats.predictions).name + to_string(shape) + " and " +
             info(formats.labels).name + " labels";
    if (weights) words += " weights " + to_string(*weights);
    if (gradients) words += " gradients " + to_string(*gradients);
    return words;
  }
};

/// One large image, a few of them, many small ones, and both sides of the cuts into chunks.
inline constexpr Shape kShapes[] = {
    {1, 1, 1, 40000}, {3, 5, 7, 11},    {700, 1, 1, 30}, {2, 90, 91, 3},  {1, 2500, 1, 10},
    {170, 3, 5, 13},  {3, 1, 1, 17000}, {5, 1, 1, 1},    {41, 20, 20, 1}, {16400, 1, 1, 2}};

/// Every reduction, with and without the batch.
struct Reduction {
  ReductionType type;
  bool across;
};
inline constexpr Reduction kAllReductions[] = {{ReductionType::none, false},
                                               {ReductionType::sum, false},
                                               {ReductionType::mean, false},
                                               {ReductionType::sum_by_non_zero_weights, false},
                                               {ReductionType::sum, true},
                                               {ReductionType::mean, true},
                                               {ReductionType::sum_by_non_zero_weights, true}};

/// None, or one weight per image, pixel, class or element.
inline std::optional<Shape> weights_shape(int kind, const Shape& s, const LossInfo& loss) {
  const bool by_pixel = loss.one_weight_per_pixel;
  switch (kind % 5) {
    case 1: return Shape{s.images, 1, 1, 1};
    case 2: return Shape{s.images, s.height, s.width, 1};
    case 3: return Shape{1, 1, 1, by_pixel ? 1 : s.channels};
    case 4: return Shape{s.images, s.height, s.width, by_pixel ? 1 : s.channels};
    default: return std::nullopt;
  }
}

struct Inputs {
  Array predictions, labels, weights, gradients;
  std::vector<std::int64_t> classes;  // instead of labels, unless empty
  std::optional<std::int64_t> ignored;
};

struct Outputs {
  Array loss, gradient;

  bool guards_intact() const { return loss.guards_intact() && gradient.guards_intact(); }
};

/// True where two ways to the same results agree: to the bit where elements are independent, and
/// where softmax adds the channels up in another way, within the rounding of the storage format.
inline bool agree(const LossInfo& loss, const Array& given, const Array& expected) {
  if (!loss.couples_channels) return first_difference(given, expected) == -1;
  if (given.count() != expected.count()) return false;
  const double rounding = given.format() == Format::float16   ? 1e-3
                          : given.format() == Format::float32 ? 1e-6
                                                              : 1e-14;
  double largest = 0, difference = 0;
  for (std::int64_t i = 0; i < given.count(); ++i) {
    largest = std::max(largest, std::abs(expected.get(i)));
    difference = std::max(difference, std::abs(given.get(i) - expected.get(i)));
  }
  return difference <= rounding * largest;
}

/// A descriptor with every parameter away from its default; the reduction is one the loss accepts.
inline LossDescriptor descriptor_of(LossType type, ReductionType reduction, bool across = false) {
  const ReductionType accepted = info(type).sums_only ? ReductionType::sum : reduction;
  return {type, accepted, across, 7, {1.25, 0.125, 1e-3, 0.5}};
}

/// Values in the domain of the loss, some of the labels and weights exactly 0 or 1.
inline double random_prediction(LossType type, Random& random) {
  switch (type) {
    case LossType::softmax_cross_entropy:
    case LossType::sigmoid_cross_entropy:
    case LossType::hinge: return random.uniform(-6, 6);
    case LossType::kullback_leibler_divergence: return random.uniform(-6, 0);
    default: return random.uniform(0.02, 0.98);
  }
}
inline double random_label(Random& random) {
  if (random.one_in(4)) return static_cast<double>(random.below(2));
  return random.uniform(0.01, 1);
}
inline double random_weight(Random& random) {
  return random.one_in(5) ? 0 : random.uniform(0.25, 2);
}

inline Inputs make_inputs(const Problem& problem, Random& random) {
  const Formats& f = problem.formats;
  const std::int64_t count = problem.shape.elements();
  Inputs in;
  in.predictions = Array(f.predictions, count, random.below(6));
  in.labels = Array(f.labels, count, random.below(6));
  for (std::int64_t i = 0; i < count; ++i) {
    in.predictions.set(i, random_prediction(problem.descriptor.loss_type, random));
    in.labels.set(i, random_label(random));
  }
  if (problem.weights) {
    in.weights = Array(f.weights, problem.weights->elements(), random.below(6));
    for (std::int64_t i = 0; i < in.weights.count(); ++i) in.weights.set(i, random_weight(random));
  }
  if (problem.gradients) {
    in.gradients = Array(f.gradients, problem.gradients->elements(), random.below(6));
    for (std::int64_t i = 0; i < in.gradients.count(); ++i) {
      in.gradients.set(i, random.uniform(-2, 2));
    }
  }
  return in;
}

/// Puts what is at the edge of the losses' domains among the values.
inline void add_special_values(Inputs& in, Random& random) {
  constexpr double kInfinity = __builtin_inf(), kNan = __builtin_nan("");
  constexpr double predictions[] = {0.0, -0.0, 1, kInfinity, -kInfinity, kNan, -3, 40, -200, 1e-7};
  constexpr double labels[] = {0, -0.0, 1, kNan, kInfinity, -0.5, 2};
  constexpr double weights[] = {0, -0.0, kNan, kInfinity, -1};
  const auto sprinkle = [&](Array& array, const auto& values) {
    for (std::int64_t i = 0; i < array.count(); ++i) {
      if (random.one_in(8)) array.set(i, random.one_of(values));
    }
  };
  sprinkle(in.predictions, predictions);
  sprinkle(in.labels, labels);
  sprinkle(in.weights, weights);
  sprinkle(in.gradients, weights);
}

inline Request request_of(const Problem& problem, Inputs& in, Work work) {
  Request request;
  request.work = work;
  request.wrt = problem.wrt;
  request.descriptor = problem.descriptor;
  const auto operand = [](const char* name, const Shape& shape, Array& array) {
    return Operand(name, {shape, array.format()}, array.data(), false);
  };
  request.predictions = operand("predictions", problem.shape, in.predictions);
  if (in.classes.empty()) {
    request.labels = operand("labels", problem.shape, in.labels);
  } else {
    request.class_indices = ClassIndices{in.classes.data(), in.ignored};
  }
  if (problem.weights) request.weights = operand("weights", *problem.weights, in.weights);
  if (problem.gradients) {
    request.source_gradients = operand("source_gradients", *problem.gradients, in.gradients);
  }
  request.uniform_source_gradient = problem.source_gradient;
  if (problem.states.size() == 1) request.descriptor.parameters = problem.states.front();
  if (problem.states.size() > 1) request.image_parameters = problem.states;
  return request;
}

/// Computes on a device; outputs start `offset` elements after an aligned address.
inline Outputs run(const Problem& problem, Inputs& in, Work work, std::int64_t offset = 0,
                   const std::shared_ptr<Device>& device = cpu_device()) {
  Request request = request_of(problem, in, work);
  Outputs out;
  if (work != Work::gradient) {
    const Shape shape = loss_shape(problem.descriptor, problem.shape);
    const Format format = info(problem.formats.predictions).of_losses;
    out.loss = Array(format, shape.elements(), offset, true);
    request.loss = Operand("loss", {shape, format}, out.loss.data(), true);
  }
  if (work != Work::loss) {
    const bool by_labels = problem.wrt == Wrt::labels;
    const Format format = by_labels ? problem.formats.labels : problem.formats.predictions;
    out.gradient = Array(format, problem.shape.elements(), offset + 1, true);
    request.gradient = Operand("gradient", {problem.shape, format}, out.gradient.data(), true);
  }
  device->engine().compute(Computation(std::move(request)), nullptr);
  return out;
}

}  // namespace mpsnn_loss::test
