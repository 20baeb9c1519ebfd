#include "arithmetic.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace softmetal {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// A product whose label factor is exactly 0 is exactly 0.
double product(double label, double other) { return label == 0 ? 0 : label * other; }
double quotient(double label, double other) { return label == 0 ? 0 : label / other; }

double smoothed(Loss loss, double t, const Parameters& p) {
  if (p.label_smoothing <= 0) return t;
  if (loss == Loss::softmax_cross_entropy) {
    return t * (1 - p.label_smoothing) + p.label_smoothing / p.classes;
  }
  if (loss == Loss::sigmoid_cross_entropy)
    return t * (1 - p.label_smoothing) + p.label_smoothing / 2;
  return t;
}

double sign(double x) { return std::isnan(x) ? x : (x > 0) - (x < 0); }

double clamped(double x, double limit) { return x > limit ? limit : x < -limit ? -limit : x; }

/// One element; `t` is smoothed. Softmax and cosine distance have functions of their own.
double element_loss(Loss loss, double y, double t, const Parameters& p) {
  const double e = y - t;
  switch (loss) {
    case Loss::mean_absolute_error: return std::fabs(e);
    case Loss::mean_squared_error: return e * e;
    case Loss::sigmoid_cross_entropy:
      return (y > 0 ? y : 0) - product(t, y) + std::log1p(std::exp(-std::fabs(y)));
    case Loss::categorical_cross_entropy: return -product(t, std::log(y));
    case Loss::hinge: {
      const double margin = 1 - (2 * t - 1) * y;
      return margin <= 0 ? 0 : margin;
    }
    case Loss::huber:
      return std::fabs(e) <= p.delta ? e * e / 2
                                     : p.delta * p.delta / 2 + p.delta * (std::fabs(e) - p.delta);
    case Loss::log:
      return -product(t, std::log(y + p.epsilon)) - product(1 - t, std::log(1 - y + p.epsilon));
    case Loss::kullback_leibler: return t == 0 ? 0 : t * (std::log(t) - y);
    default: return nan;
  }
}

double by_prediction(Loss loss, double y, double t, const Parameters& p) {
  const double e = y - t;
  switch (loss) {
    case Loss::mean_absolute_error: return sign(e);
    case Loss::mean_squared_error: return 2 * e;
    case Loss::sigmoid_cross_entropy: {
      const double x = std::exp(-std::fabs(y));  // no overflow, no cancellation at t = 0 and 1
      return y > 0 ? ((1 - t) - t * x) / (1 + x) : ((1 - t) * x - t) / (1 + x);
    }
    case Loss::categorical_cross_entropy: return -quotient(t, y);
    case Loss::hinge: {
      const double m = 2 * t - 1, margin = 1 - m * y;
      return std::isnan(margin) ? nan : margin > 0 ? -m : 0;
    }
    case Loss::huber: return clamped(e, p.delta);
    case Loss::cosine_distance: return -t;
    case Loss::log: return -quotient(t, y + p.epsilon) + quotient(1 - t, 1 - y + p.epsilon);
    case Loss::kullback_leibler: return -t;
    default: return nan;
  }
}

double by_label(Loss loss, double y, double t, const Parameters& p) {
  const double e = y - t;
  switch (loss) {
    case Loss::mean_absolute_error: return -sign(e);
    case Loss::mean_squared_error: return -2 * e;
    case Loss::sigmoid_cross_entropy: return -(1 - p.label_smoothing) * y;
    case Loss::categorical_cross_entropy: return -std::log(y);
    case Loss::hinge: {
      const double margin = 1 - (2 * t - 1) * y;
      return std::isnan(margin) ? nan : margin > 0 ? -2 * y : 0;
    }
    case Loss::huber: return -clamped(e, p.delta);
    case Loss::cosine_distance: return -y;
    case Loss::log: return std::log(1 - y + p.epsilon) - std::log(y + p.epsilon);
    case Loss::kullback_leibler: return std::log(t) + 1 - y;
    default: return nan;
  }
}

/// One image with its labels and weights.
struct Sample {
  Loss loss;
  const Values& y;
  const Values& t;
  const Values* v;  // null: 1 everywhere
  const Parameters& p;

  double weight(std::size_t pixel, std::size_t channel) const {
    return v ? v->at(pixel, channel) : 1;
  }
  double label(std::size_t pixel, std::size_t channel) const {
    return smoothed(loss, t.at(pixel, channel), p);
  }
  bool has_weight(std::size_t pixel) const {
    for (std::size_t c = 0; c < y.channels; ++c) {
      if (weight(pixel, c) != 0) return true;
    }
    return false;
  }
};

/// log-softmax of one pixel; NaN throughout for a row with NaN or +inf, or of nothing but -inf.
std::vector<double> log_softmax(const Sample& s, std::size_t pixel) {
  const std::size_t channels = s.y.channels;
  double top = -std::numeric_limits<double>::infinity();
  bool broken = false;
  for (std::size_t c = 0; c < channels; ++c) {
    const double y = s.y.at(pixel, c);
    broken = broken || std::isnan(y);
    if (y > top) top = y;
  }
  if (broken || std::isinf(top)) return std::vector<double>(channels, nan);
  double sum = 0;
  for (std::size_t c = 0; c < channels; ++c) sum += std::exp(s.y.at(pixel, c) - top);
  std::vector<double> result;
  for (std::size_t c = 0; c < channels; ++c) {
    result.push_back(s.y.at(pixel, c) - top - std::log(sum));
  }
  return result;
}

/// ω·v·ℓ of every element; for the cosine distance one value a pixel.
std::vector<double> weighted_losses(const Sample& s) {
  std::vector<double> result;
  for (std::size_t i = 0; i < s.y.pixels; ++i) {
    std::vector<double> lp;
    if (s.loss == Loss::softmax_cross_entropy && s.has_weight(i)) lp = log_softmax(s, i);
    if (s.loss == Loss::cosine_distance) {
      double dot = 0;
      for (std::size_t c = 0; c < s.y.channels; ++c) dot += product(s.t.at(i, c), s.y.at(i, c));
      result.push_back(s.weight(i, 0) == 0 ? 0 : s.p.weight * s.weight(i, 0) * (1 - dot));
      continue;
    }
    for (std::size_t c = 0; c < s.y.channels; ++c) {
      const double v = s.weight(i, c), t = s.label(i, c);
      double loss = 0;
      if (v != 0)
        loss = lp.empty() ? element_loss(s.loss, s.y.at(i, c), t, s.p) : -product(t, lp[c]);
      result.push_back(v == 0 ? 0 : s.p.weight * v * loss);
    }
  }
  return result;
}

double divisor(const Sample& s, Reduction reduction) {
  const bool by_pixel = s.loss == Loss::softmax_cross_entropy;
  const double pixels = static_cast<double>(s.y.pixels),
               channels = static_cast<double>(s.y.channels);
  if (reduction == Reduction::mean) return by_pixel ? pixels : pixels * channels;
  if (reduction != Reduction::sum_by_non_zero_weights) return 1;
  double count = 0;
  for (std::size_t i = 0; i < s.y.pixels; ++i) {
    if (by_pixel) count += s.has_weight(i);
    for (std::size_t c = 0; !by_pixel && c < s.y.channels; ++c) count += s.weight(i, c) != 0;
  }
  return count;
}

std::vector<Sample> samples(const Problem& problem, const Batch& y, const Batch& t,
                            const Batch& v) {
  std::vector<Sample> result;
  for (std::size_t n = 0; n < y.size(); ++n) {
    result.push_back(
        {problem.loss, y[n], t[n], v.empty() ? nullptr : &v[n], problem.parameters[n]});
  }
  return result;
}

bool reduces_across(const Problem& problem) {
  return problem.across_batch && problem.reduction != Reduction::none;
}

/// The divisor of each image; with a reduction across the batch of the batch, except for the sum.
std::vector<double> divisors(const Problem& problem, const std::vector<Sample>& all) {
  std::vector<double> result;
  double total = 0;
  for (const Sample& s : all) result.push_back(divisor(s, problem.reduction));
  for (double d : result) total += d;
  if (reduces_across(problem) && problem.reduction != Reduction::sum)
    result.assign(all.size(), total);
  return result;
}

double divided(double x, double by) { return by == 0 ? 0 : x / by; }

/// What one pixel adds to a gradient: g is its source gradient, `by` the divisor, not 0.
struct PixelGradient {
  const Sample& s;
  const Values& g;
  std::size_t pixel;
  double by;
  bool for_labels;

  double scale(std::size_t c) const {
    return g.at(pixel, c) * s.p.weight * s.weight(pixel, c) / by;
  }

  void append_elements(std::vector<double>& to) const {
    const auto derivative = for_labels ? by_label : by_prediction;
    for (std::size_t c = 0; c < s.y.channels; ++c) {
      const double d = derivative(s.loss, s.y.at(pixel, c), s.label(pixel, c), s.p);
      to.push_back(s.weight(pixel, c) == 0 ? 0 : scale(c) * d);
    }
  }

  void append_softmax_by_label(std::vector<double>& to) const {
    const std::vector<double> lp = log_softmax(s, pixel);
    for (std::size_t c = 0; c < s.y.channels; ++c) {
      const double d = -(1 - s.p.label_smoothing) * lp[c];
      to.push_back(s.weight(pixel, c) == 0 ? 0 : scale(c) * d);
    }
  }

  /// p Σa - a; of the largest channel, whose p may be near 1, from what the others sum up to.
  void append_softmax_by_prediction(std::vector<double>& to) const {
    const std::vector<double> lp = log_softmax(s, pixel);
    const auto top = static_cast<std::size_t>(std::max_element(lp.begin(), lp.end()) - lp.begin());
    std::vector<double> a;
    double a_of_others = 0, others = 0;
    for (std::size_t c = 0; c < s.y.channels; ++c) {
      a.push_back(s.weight(pixel, c) == 0 ? 0 : product(s.label(pixel, c), scale(c)));
      if (c == top) continue;
      a_of_others += a[c];
      others += std::exp(s.y.at(pixel, c) - s.y.at(pixel, top));
    }
    for (std::size_t c = 0; c < s.y.channels; ++c) {
      to.push_back(c == top && !std::isnan(lp[c])
                       ? (a_of_others - a[c] * others) / (1 + others)
                       : std::exp(lp[c]) * (a_of_others + a[top]) - a[c]);
    }
  }

  void append(std::vector<double>& to) const {
    if (by == 0 || !s.has_weight(pixel)) {
      to.insert(to.end(), s.y.channels, 0.0);
    } else if (s.loss != Loss::softmax_cross_entropy) {
      append_elements(to);
    } else if (for_labels) {
      append_softmax_by_label(to);
    } else {
      append_softmax_by_prediction(to);
    }
  }
};

}  // namespace

Batch forward_loss(const Problem& problem, const Batch& predictions, const Batch& labels,
                   const Batch& weights) {
  const std::vector<Sample> all = samples(problem, predictions, labels, weights);
  const std::vector<double> by = divisors(problem, all);
  Batch results;
  for (std::size_t n = 0; n < all.size(); ++n) {
    std::vector<double> losses = weighted_losses(all[n]);
    if (problem.reduction == Reduction::none) {
      results.push_back({all[n].y.pixels, all[n].y.channels, std::move(losses)});
      continue;
    }
    double sum = 0;
    for (double loss : losses) sum += loss;
    results.push_back({1, 1, {divided(sum, by[n])}});
    if (reduces_across(problem) && n > 0) {
      results[0].data[0] += results[n].data[0];
      results[n].data[0] = 0;
    }
  }
  return results;
}

Batch loss_gradient(const Problem& problem, bool for_labels, const Batch& gradients,
                    const Batch& predictions, const Batch& labels, const Batch& weights) {
  const std::vector<Sample> all = samples(problem, predictions, labels, weights);
  const std::vector<double> by = divisors(problem, all);
  Batch results;
  for (std::size_t n = 0; n < all.size(); ++n) {
    const Values& g = gradients[reduces_across(problem) ? 0 : n];
    Values result{all[n].y.pixels, all[n].y.channels, {}};
    for (std::size_t i = 0; i < all[n].y.pixels; ++i) {
      PixelGradient{all[n], g, i, by[n], for_labels}.append(result.data);
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace softmetal
