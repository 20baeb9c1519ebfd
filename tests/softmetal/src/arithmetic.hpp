// The numbers: losses and their derivatives by the reference formulas of semantics.md, in double
// precision. Written from that page alone, so that it can be held against the CPU engine.
#pragma once
#include <cstddef>
#include <vector>

namespace softmetal {

/// Apple's raw values.
enum class Loss {
  mean_absolute_error,
  mean_squared_error,
  softmax_cross_entropy,
  sigmoid_cross_entropy,
  categorical_cross_entropy,
  hinge,
  huber,
  cosine_distance,
  log,
  kullback_leibler
};
enum class Reduction { none, sum, mean, sum_by_non_zero_weights };

/// The values of one image, in the order height, width, channel.
struct Values {
  std::size_t pixels = 0, channels = 0;
  std::vector<double> data;

  /// An axis of length 1 is repeated.
  double at(std::size_t pixel, std::size_t channel) const {
    return data[(pixels == 1 ? 0 : pixel) * channels + (channels == 1 ? 0 : channel)];
  }
};
using Batch = std::vector<Values>;

struct Parameters {
  double weight, label_smoothing, classes, epsilon, delta;
};

struct Problem {
  Loss loss;
  Reduction reduction;
  bool across_batch;
  std::vector<Parameters> parameters;  // one for each image
};

/// `weights` may be empty. The results have the data in the order of `predictions`, or one value.
Batch forward_loss(const Problem& problem, const Batch& predictions, const Batch& labels,
                   const Batch& weights);
Batch loss_gradient(const Problem& problem, bool for_labels, const Batch& gradients,
                    const Batch& predictions, const Batch& labels, const Batch& weights);

}  // namespace softmetal
