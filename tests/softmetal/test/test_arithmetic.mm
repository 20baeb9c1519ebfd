// The numbers of the double: every gradient against finite differences of its loss, and the
// conventions of semantics.md at the edges.
#include <cmath>
#include <limits>
#include <random>

#include "arithmetic.hpp"
#include "support.hpp"

namespace {

using namespace softmetal;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t images = 2, pixels = 6, channels = 5;

struct Case {
  Problem problem;
  Batch y, t, v, g;
};

Batch random_batch(std::mt19937& random, std::size_t pixel_count, std::size_t channel_count,
                   double low, double high) {
  std::uniform_real_distribution<double> value(low, high);
  Batch batch(images, Values{pixel_count, channel_count, {}});
  for (Values& image : batch) {
    for (std::size_t i = 0; i < pixel_count * channel_count; ++i)
      image.data.push_back(value(random));
  }
  return batch;
}

Case random_case(Loss loss, Reduction reduction, bool across, unsigned seed) {
  std::mt19937 random(seed);
  const bool reduced = reduction != Reduction::none;
  const Parameters p{1.5, 0.1, 7, 0.01, 0.2};
  Case c{{loss, reduction, across, std::vector<Parameters>(images, p)}, {}, {}, {}, {}};
  // Inside the domain of every loss; the kinks of absolute value, hinge and Huber are rarely near.
  c.y = random_batch(random, pixels, channels, 0.1, 0.9);
  c.t = random_batch(random, pixels, channels, 0.1, 0.9);
  c.v = random_batch(random, pixels, loss == Loss::cosine_distance ? 1 : channels, 0.5, 2);
  c.v[1].data[2] = 0;
  c.g = random_batch(random, reduced ? 1 : pixels, reduced ? 1 : channels, -2, 2);
  return c;
}

/// What the gradient is the gradient of: the results of the forward loss, each times its g.
double total(const Case& c) {
  const Batch losses = forward_loss(c.problem, c.y, c.t, c.v);
  const bool first_only = c.problem.across_batch && c.problem.reduction != Reduction::none;
  double sum = 0;
  for (std::size_t n = 0; n < (first_only ? 1 : images); ++n) {
    for (std::size_t i = 0; i < losses[n].data.size(); ++i) {
      sum += losses[n].data[i] * c.g[n].data[i];
    }
  }
  return sum;
}

void check_against_differences(const Case& c, bool for_labels) {
  const Batch gradient = loss_gradient(c.problem, for_labels, c.g, c.y, c.t, c.v);
  constexpr double step = 1e-6;
  for (std::size_t n = 0; n < images; ++n) {
    for (std::size_t i = 0; i < pixels * channels; ++i) {
      Case up = c, down = c;
      (for_labels ? up.t : up.y)[n].data[i] += step;
      (for_labels ? down.t : down.y)[n].data[i] -= step;
      const double difference = (total(up) - total(down)) / (2 * step);
      check_near(gradient[n].data[i], difference, 2e-7 * (1 + std::fabs(difference)),
                 "loss " + std::to_string(static_cast<int>(c.problem.loss)) + ", reduction " +
                     std::to_string(static_cast<int>(c.problem.reduction)));
    }
  }
}

void differences() {
  for (int loss = 0; loss < 10; ++loss) {
    const bool cosine = static_cast<Loss>(loss) == Loss::cosine_distance;
    for (int reduction = cosine ? 1 : 0; reduction < (cosine ? 2 : 4); ++reduction) {
      for (bool across : {false, true}) {
        const Case c = random_case(static_cast<Loss>(loss), static_cast<Reduction>(reduction),
                                   across, static_cast<unsigned>(loss * 10 + reduction));
        check_against_differences(c, false);
        check_against_differences(c, true);
      }
    }
  }
}

/// One pixel, no weights, no smoothing.
double loss_of(Loss loss, double y, double t, Parameters p = {1, 0, 1, 1e-7, 1}) {
  return forward_loss({loss, Reduction::sum, false, {p}}, {{1, 1, {y}}}, {{1, 1, {t}}}, {})[0]
      .data[0];
}

double slope_of(Loss loss, double y, double t, bool for_labels = false,
                Parameters p = {1, 0, 1, 1e-7, 1}) {
  return loss_gradient({loss, Reduction::sum, false, {p}}, for_labels, {{1, 1, {1}}}, {{1, 1, {y}}},
                       {{1, 1, {t}}}, {})[0]
      .data[0];
}

void edges() {
  check_near(slope_of(Loss::mean_absolute_error, 2, 2), 0, 0, "absolute error at equality");
  check_near(slope_of(Loss::hinge, 1, 1), 0, 0, "hinge at the margin");
  check_near(slope_of(Loss::huber, 3, 1), 1, 0, "Huber outside");
  check_near(slope_of(Loss::huber, -3, 1), -1, 0, "Huber outside, below");
  check_near(loss_of(Loss::huber, 2, 1), 0.5, 0, "Huber at delta");
  check_near(loss_of(Loss::categorical_cross_entropy, 0, 0), 0, 0, "label 0 costs nothing");
  check_near(slope_of(Loss::categorical_cross_entropy, 0, 0), 0, 0, "and has no slope");
  check_near(loss_of(Loss::kullback_leibler, -infinity, 0), 0, 0, "KL of label 0");
  const Parameters exact{1, 0, 1, 0, 1};
  check_near(loss_of(Loss::log, 1, 1, exact), 0, 0, "log at 1, epsilon 0");
  check_near(slope_of(Loss::log, 1, 1, false, exact), -1, 0, "its slope at 1");
  check_near(slope_of(Loss::log, 0, 0, false, exact), 1, 0, "its slope at 0");
  check_near(slope_of(Loss::sigmoid_cross_entropy, 37, 1) / -8.533047625744066e-17, 1, 1e-12, "37");
  check_near(slope_of(Loss::sigmoid_cross_entropy, -20, 0) / 2.0611536181902037e-9, 1, 1e-12,
             "-20");
  check(std::isnan(loss_of(Loss::hinge, nan, 1)) && std::isnan(slope_of(Loss::huber, nan, 1)),
        "NaN");
  check_near(slope_of(Loss::hinge, 0.5, 1, true), -1, 0, "hinge by label");
}

Batch row(std::vector<double> values) {
  const std::size_t count = values.size();
  return {{1, count, std::move(values)}};
}

void softmax() {
  const Problem problem{Loss::softmax_cross_entropy, Reduction::none, false, {{1, 0, 1, 0, 1}}};
  const auto losses = [&](std::vector<double> y, std::vector<double> t) {
    return forward_loss(problem, row(std::move(y)), row(std::move(t)), {})[0].data;
  };
  check_near(losses({-infinity, 0, 0}, {0, 1, 0})[0], 0, 0, "a masked class costs nothing");
  check_near(losses({-infinity, 0, 0}, {0, 1, 0})[1], std::log(2.0), 1e-15, "the others count");
  check(std::isnan(losses({infinity, 0, 0}, {0, 1, 0})[1]), "+inf spoils the row");
  check(std::isnan(losses({-infinity, -infinity}, {0.5, 0.5})[0]), "nothing but -inf does too");
  check_near(losses({1000, 0}, {0, 1})[1], 1000, 0, "no overflow");
  const Batch zeros = row({0, 0, 0});
  const Batch bad = row({nan, infinity, 0}), labels = row({1, 0, 0});
  check_near(forward_loss(problem, bad, labels, zeros)[0].data[0], 0, 0,
             "weight 0 in a whole pixel");
  const Batch g = loss_gradient(problem, false, row({1, 1, 1}), bad, labels, zeros);
  check_near(g[0].data[1], 0, 0, "and its gradient");
  const Batch some = row({0, 1, 1});
  const Batch part = loss_gradient(problem, false, row({1, 1, 1}), row({0, 0, 0}), labels, some);
  check_near(part[0].data[0], 0, 0, "one weight 0 removes its own term");
}

void divisors() {
  const auto loss = [](Loss type, Reduction reduction, bool across) {
    const Parameters p{1, 0, 1, 0, 1};
    const Batch y(2, {2, 3, {2, 2, 2, 2, 2, 2}}), t(2, {2, 3, {0, 0, 0, 0, 0, 0}});
    const Batch v{{2, 3, {1, 0, 0, 1, 1, 0}}, {2, 3, {0, 0, 0, 0, 0, 1}}};
    return forward_loss({type, reduction, across, {p, p}}, y, t, v);
  };
  using enum Loss;
  check_near(loss(mean_squared_error, Reduction::sum, false)[0].data[0], 12, 0, "sum");
  check_near(loss(mean_squared_error, Reduction::mean, false)[0].data[0], 2, 0, "mean");
  check_near(loss(mean_squared_error, Reduction::mean, true)[0].data[0], 16 / 12.0, 1e-15, "batch");
  check_near(loss(mean_squared_error, Reduction::mean, true)[1].data[0], 0, 0, "the other image");
  check_near(loss(mean_squared_error, Reduction::sum_by_non_zero_weights, true)[0].data[0], 4,
             1e-15, "non-zero weights of the batch");
  const Parameters p{1, 0.3, 3, 0, 1};
  const Batch y{{2, 3, {0, 0, 0, 0, 0, 0}}}, t = y, v{{2, 3, {1, 0, 0, 0, 0, 0}}};
  const double third = std::log(3.0) * 0.1;
  check_near(forward_loss({softmax_cross_entropy, Reduction::mean, false, {p}}, y, t, v)[0].data[0],
             third / 2, 1e-15, "softmax mean divides by pixels");
  const Batch counted = forward_loss(
      {softmax_cross_entropy, Reduction::sum_by_non_zero_weights, false, {p}}, y, t, v);
  check_near(counted[0].data[0], third, 1e-15, "one pixel has a weight");
  const Batch none{{2, 3, {0, 0, 0, 0, 0, 0}}};
  check_near(
      forward_loss({huber, Reduction::sum_by_non_zero_weights, false, {p}}, y, t, none)[0].data[0],
      0, 0, "no weights at all");
}

const Registration all[] = {
    {"gradients are the derivatives of the losses", differences},
    {"conventions at the edges", edges},
    {"softmax rows", softmax},
    {"divisors", divisors},
};

}  // namespace
