// The gradient of softmax keeps its digits where one channel is sure: p Σ a - a cancels there.
#include <cfloat>
#include <cmath>
#include <vector>

#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr std::int64_t kChannels[] = {1,   2,   3,   4,   5,    7,    8,   9,   13,
                                      15,  16,  17,  21,  33,   64,   100, 129, 254,
                                      255, 256, 257, 300, 1000, 1025, 2500};

/// Labels of each kind: one-hot for the largest channel or another, of any sum, of both signs.
void set_labels(Inputs& in, std::int64_t rows, std::int64_t channels, std::int64_t kind,
                Random& random) {
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t hot = random.below(channels);
    for (std::int64_t c = 0; kind == 0 && c < channels; ++c) {
      if (in.predictions.get(r * channels + c) > in.predictions.get(r * channels + hot)) hot = c;
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      const double any = kind == 2 ? random.uniform(0, 1) : random.uniform(-2, 2);
      in.labels.set(r * channels + c, kind > 1 ? any : c == hot ? 1 : 0);
    }
    if (kind < 2 && random.one_in(2)) in.classes.push_back(hot);
  }
  if (in.classes.size() != static_cast<std::size_t>(rows)) in.classes.clear();
}

/// Logits of which one in each row stands out by up to `most`; often the others are equal, whose
/// rounding errors add up.
void set_logits(Array& y, std::int64_t rows, std::int64_t channels, double most, Random& random) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const double spread = random.one_in(3) ? 0 : 3;
    for (std::int64_t c = 0; c < channels; ++c)
      y.set(r * channels + c, 0.3 + random.uniform(-spread, spread));
    const std::int64_t top = r * channels + random.below(channels);
    y.set(top, y.get(top) + std::log(static_cast<double>(channels)) + random.uniform(-1, most));
  }
}

/// The worst error of a row's gradient by the contract's bound. `factor` holds g v of each channel.
double worst_of_row(const Problem& problem, const Inputs& in, const Outputs& out,
                    std::int64_t first, const std::vector<long double>& factor) {
  const auto channels = static_cast<std::size_t>(problem.shape.channels);
  const LossParameters& parameters = problem.descriptor.parameters;
  const long double s = parameters.label_smoothing,
                    offset = s / problem.descriptor.number_of_classes;
  std::vector<long double> y(channels), p(channels), a(channels), size(channels);
  long double top = -HUGE_VALL, bottom = HUGE_VALL, sum = 0;
  for (std::size_t c = 0; c < channels; ++c) {
    y[c] = in.predictions.get(first + static_cast<std::int64_t>(c));
    top = std::max(top, y[c]), bottom = std::min(bottom, y[c]);
  }
  for (std::size_t c = 0; c < channels; ++c) sum += p[c] = std::exp(y[c] - top);
  for (std::size_t c = 0; c < channels; ++c) {
    const long double t = in.labels.get(first + static_cast<std::int64_t>(c));
    const long double scale = factor[c] * static_cast<long double>(parameters.weight);
    p[c] /= sum;
    a[c] = (t * (1 - s) + offset) * scale;
    size[c] = (std::abs(t) * (1 - s) + offset) * std::abs(scale);
  }
  const bool wide = problem.formats.predictions == Format::float64;
  const long double bound =
      (wide ? 1e-14L : 1e-6L) * (1 + std::min(top - bottom, wide ? 745.0L : 104.0L) / 8);
  const long double smallest = wide ? DBL_MIN : FLT_MIN;
  double worst = 0;
  for (std::size_t j = 0; j < channels; ++j) {
    long double p_rest = 0, a_rest = 0, size_rest = 0;
    for (std::size_t k = 0; k < channels; ++k) {
      if (k != j) p_rest += p[k], a_rest += a[k], size_rest += size[k];
    }
    const long double exact = p[j] * a_rest - a[j] * p_rest;
    const long double given = out.gradient.get(first + static_cast<std::int64_t>(j));
    if (std::abs(exact) < smallest && std::abs(given) <= smallest) continue;
    const long double error = std::abs(given - exact), of = p[j] * size_rest + size[j] * p_rest;
    if (error > 0) worst = std::max(worst, static_cast<double>(error / (bound * of)));
  }
  return worst;
}

}  // namespace

TEST_CASE("a softmax gradient keeps its digits where one channel is sure") {
  Random random(1);
  for (const Formats& formats : {kFormatMixes[0], kFormatMixes[1]}) {
    const bool wide = formats.predictions == Format::float64;
    if (wide && LDBL_MANT_DIG <= DBL_MANT_DIG) continue;  // nothing to compare with
    for (const std::int64_t channels : kChannels) {
      for (const std::int64_t rows : {1, 3, 70}) {
        if (rows * channels > 20000) continue;
        for (int kind = 0; kind < 12; ++kind) {
          Problem problem{{LossType::softmax_cross_entropy, ReductionType::none, false, 1, {}},
                          Wrt::predictions,
                          formats,
                          {1, rows, 1, channels}};
          LossDescriptor& d = problem.descriptor;
          d.parameters.weight = random.one_of(std::vector<double>{1, -1, 3.7, 1e10, 1e-3});
          d.parameters.label_smoothing = random.one_of(std::vector<double>{0, 0, 0.1, 1});
          d.number_of_classes = random.one_in(2) ? channels : 7;
          if (kind % 4 == 1) problem.weights = {1, 1, 1, channels};
          if (kind % 4 == 2) problem.weights = {1, rows, 1, 1};
          if (kind % 3 == 1) problem.gradients = problem.shape;
          Inputs in = make_inputs(problem, random);
          set_logits(in.predictions, rows, channels, random.one_in(2) ? 5 : 85, random);
          set_labels(in, rows, channels, random.below(4), random);
          const Outputs out = run(problem, in, Work::gradient);
          INFO(problem.text());
          double worst = 0;
          for (std::int64_t r = 0; r < std::min<std::int64_t>(rows, 5); ++r) {
            std::vector<long double> factor(static_cast<std::size_t>(channels), 1);
            for (std::int64_t c = 0; c < channels; ++c) {
              long double& f = factor[static_cast<std::size_t>(c)];
              if (problem.gradients) f *= in.gradients.get(r * channels + c);
              // They differ along one axis at most.
              if (const auto& w = problem.weights)
                f *= in.weights.get((w->height == 1 ? 0 : r) + (w->channels == 1 ? 0 : c));
            }
            worst = std::max(worst, worst_of_row(problem, in, out, r * channels, factor));
          }
          CHECK(worst <= 1);
        }
      }
    }
  }
}

TEST_CASE("one-hot labels: no gradient has the wrong sign, and that of one class is +0") {
  Random random(2);
  for (const Formats& formats : kFormatMixes) {
    for (const std::int64_t channels : kChannels) {
      const std::int64_t rows = channels > 300 ? 2 : 50;
      Problem problem{{LossType::softmax_cross_entropy, ReductionType::sum, true, 1, {}},
                      Wrt::predictions,
                      formats,
                      {1, rows, 1, channels}};
      Inputs in = make_inputs(problem, random);
      set_logits(in.predictions, rows, channels, 40, random);
      set_labels(in, rows, channels, random.below(2), random);
      const Outputs out = run(problem, in, Work::gradient);
      std::int64_t wrong = 0;
      for (std::int64_t i = 0; i < out.gradient.count(); ++i) {
        const double x = out.gradient.get(i);
        wrong += in.labels.get(i) == 1 ? x > 0 : x < 0;
        wrong += channels == 1 && (x != 0 || std::signbit(x));
      }
      INFO(problem.text());
      CHECK(wrong == 0);
    }
  }
}

}  // namespace mpsnn_loss::test
