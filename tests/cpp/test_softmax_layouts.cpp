// Softmax on arrays whose channels come first, as far apart as powers of two among them, and the
// diagonal of its Hessian.
#include <cfloat>
#include <cmath>
#include <numeric>
#include <vector>

#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr std::int64_t kChannels[] = {1, 2, 3, 4, 5, 8, 17, 21, 63, 64, 65, 150, 255, 256, 300};

Strides channels_first(const Shape& s) {
  Strides strides{s.image_elements(), s.width, 1, s.pixels()};
  for (std::size_t i = 0; i < 4; ++i) {
    if (s.axes()[i] == 1) strides[i] = 0;
  }
  return strides;
}

/// Where an element of a batch lies when channels come first.
std::int64_t place(const Shape& s, std::int64_t i) {
  const std::int64_t channel = i % s.channels, pixel = i / s.channels;
  return pixel / s.pixels() * s.image_elements() + channel * s.pixels() + pixel % s.pixels();
}

Array moved(const Array& from, const Shape& s, std::int64_t offset) {
  Array to(from.format(), from.count(), offset);
  for (std::int64_t i = 0; i < from.count(); ++i) to.set(place(s, i), from.get(i));
  return to;
}

struct Results {
  Array loss, gradient, hessian;
};

/// Computes with those operands channels-first that `first` has a bit for: predictions, labels,
/// gradient, Hessian, loss.
Results run_with(const Problem& problem, Inputs& in, Work work, unsigned first) {
  const Shape& s = problem.shape;
  Request request = request_of(problem, in, work);
  request.by_functions = true;
  Array y, t;
  const auto move = [&](unsigned bit, Operand& operand, const Array& from, Array& to) {
    if ((first >> bit & 1u) == 0) return;
    to = moved(from, s, bit);
    operand.data = to.data();
    operand.strides = channels_first(s);
  };
  move(0, request.predictions, in.predictions, y);
  if (request.labels) move(1, *request.labels, in.labels, t);
  Results out;
  const auto output = [&](unsigned bit, const char* name, Array& array, Format format) {
    array = Array(format, s.elements(), bit, true);
    Operand operand = Operand(name, {s, format}, array.data(), true);
    if ((first >> bit & 1u) != 0) operand.strides = channels_first(s);
    return operand;
  };
  const Format format = problem.formats.predictions;
  if (work != Work::loss) request.gradient = output(2, "gradient", out.gradient, format);
  if (work == Work::gradient_and_hessian)
    request.hessian = output(3, "hessian", out.hessian, format);
  const Format of_losses = info(format).of_losses;
  if (work == Work::loss || work == Work::loss_and_gradient) {
    if (problem.descriptor.reduces()) {
      const Shape reduced = loss_shape(problem.descriptor, s);
      out.loss = Array(of_losses, reduced.elements(), 4, true);
      request.loss = Operand("loss", {reduced, of_losses}, out.loss.data(), true);
    } else {
      request.loss = output(4, "loss", out.loss, of_losses);
    }
  }
  cpu_device()->engine().compute(Computation(std::move(request)), nullptr);
  CHECK(out.loss.guards_intact());
  CHECK(out.gradient.guards_intact());
  CHECK(out.hessian.guards_intact());
  const auto back = [&](unsigned bit, Array& array) {
    if ((first >> bit & 1u) == 0 || array.count() != s.elements()) return;
    Array rows(array.format(), array.count(), 0);
    for (std::int64_t i = 0; i < array.count(); ++i) rows.set(i, array.get(place(s, i)));
    array = rows;
  };
  back(2, out.gradient);
  back(3, out.hessian);
  if (!problem.descriptor.reduces()) back(4, out.loss);
  return out;
}

void add_classes(Inputs& in, std::int64_t pixels, std::int64_t channels, Random& random) {
  for (std::int64_t i = 0; i < pixels; ++i)
    in.classes.push_back(random.one_in(5) ? -100 : random.below(channels));
  in.ignored = -100;
}

}  // namespace

TEST_CASE("softmax on channels-first arrays gives the bits of their channels-last copies") {
  Random random(1);
  constexpr Work kWorks[] = {Work::loss, Work::gradient, Work::loss_and_gradient,
                             Work::gradient_and_hessian};
  constexpr Shape kPixels[] = {{2, 5, 7, 1},   {3, 16, 16, 1}, {1, 1, 37, 1},
                               {2, 64, 32, 1}, {40, 1, 1, 1},  {3, 2, 2, 1}};
  for (const std::int64_t channels : kChannels) {
    for (int round = 0; round < 60; ++round) {
      Shape shape = random.one_of(kPixels);
      shape.channels = channels;
      if (shape.elements() > 100000 && !random.one_in(4)) continue;
      const ReductionType reduction = random.one_of(kAllReductions).type;
      Problem problem{descriptor_of(LossType::softmax_cross_entropy, reduction, random.one_in(2)),
                      Wrt::predictions, random.one_of(kFormatMixes), shape};
      const Work work = random.one_of(kWorks);
      if (work != Work::gradient_and_hessian && random.one_in(4)) problem.wrt = Wrt::labels;
      if (problem.wrt == Wrt::labels) problem.formats.labels = problem.formats.predictions;
      problem.weights = weights_shape(round, shape, info(LossType::softmax_cross_entropy));
      if (!problem.descriptor.reduces() && random.one_in(3)) problem.gradients = shape;
      Inputs in = make_inputs(problem, random);
      if (random.one_in(3)) add_special_values(in, random);
      if (problem.wrt == Wrt::predictions && random.one_in(3))
        add_classes(in, shape.images * shape.pixels(), channels, random);
      const Results expected = run_with(problem, in, work, 0);
      const unsigned first = random.one_in(2) ? 31u : static_cast<unsigned>(random.below(32));
      const Results given = run_with(problem, in, work, first);
      INFO(problem.text());
      INFO(first);
      CHECK(first_difference(given.loss, expected.loss) == -1);
      CHECK(first_difference(given.gradient, expected.gradient) == -1);
      CHECK(first_difference(given.hessian, expected.hessian) == -1);
    }
  }
}

TEST_CASE("planes a power of two apart, large enough to be stored past the caches") {
  Random random(2);
  Problem problem{{LossType::softmax_cross_entropy, ReductionType::mean, true, 1, {}},
                  Wrt::predictions,
                  kFormatMixes[0],
                  {2, 128, 128, 21}};
  Inputs in = make_inputs(problem, random);
  const Results expected = run_with(problem, in, Work::gradient_and_hessian, 0);
  for (const unsigned first : {31u, 1u, 4u, 9u}) {
    const Results given = run_with(problem, in, Work::gradient_and_hessian, first);
    CHECK(first_difference(given.gradient, expected.gradient) == -1);
    CHECK(first_difference(given.hessian, expected.hessian) == -1);
  }
}

TEST_CASE("the diagonal of softmax's Hessian is right to the contract's bounds") {
  Random random(3);
  for (const Formats& formats : {kFormatMixes[0], kFormatMixes[1]}) {
    const bool wide = formats.predictions == Format::float64;
    if (wide && LDBL_MANT_DIG <= DBL_MANT_DIG) continue;  // nothing to compare with
    for (const std::int64_t channels : kChannels) {
      for (const std::int64_t rows : {1, 5, 40}) {
        for (int kind = 0; kind < 6; ++kind) {
          Problem problem{{LossType::softmax_cross_entropy, ReductionType::none, false, 1, {}},
                          Wrt::predictions,
                          formats,
                          {1, rows, 1, channels}};
          LossParameters& p = problem.descriptor.parameters;
          p.weight = random.one_of(std::vector<double>{1, -3.7, 1e10, 1e-3});
          p.label_smoothing = random.one_of(std::vector<double>{0, 0.1});
          problem.descriptor.number_of_classes = channels;
          if (kind % 3 == 1) problem.weights = {1, 1, 1, channels};
          Inputs in = make_inputs(problem, random);
          const double most = random.one_in(2) ? 5 : 80;
          for (std::int64_t r = 0; r < rows; ++r) {
            const std::int64_t top = r * channels + random.below(channels);
            in.predictions.set(top, in.predictions.get(top) + random.uniform(0, most));
          }
          const Results out = run_with(problem, in, Work::gradient_and_hessian, 0);
          double worst = 0;
          for (std::int64_t r = 0; r < rows; ++r) {
            long double high = -HUGE_VALL, low = HUGE_VALL, sum = 0, pull = 0, size = 0;
            for (std::int64_t c = 0; c < channels; ++c) {
              const long double y = in.predictions.get(r * channels + c);
              high = std::max(high, y), low = std::min(low, y);
              const long double v = problem.weights ? in.weights.get(c) : 1;
              const long double smooth = static_cast<long double>(p.label_smoothing);
              const long double t = in.labels.get(r * channels + c) * (1 - smooth) +
                                    smooth / static_cast<long double>(channels);
              const long double a = t * v * static_cast<long double>(p.weight);
              pull += a, size += std::abs(a);
            }
            std::vector<long double> e;
            for (std::int64_t c = 0; c < channels; ++c) {
              e.push_back(std::exp(in.predictions.get(r * channels + c) - high));
              sum += e.back();
            }
            const long double range = std::min(high - low, wide ? 745.0L : 104.0L);
            for (std::int64_t j = 0; j < channels; ++j) {
              const auto place = e.begin() + j;
              const long double others =
                  std::accumulate(place + 1, e.end(), std::accumulate(e.begin(), place, 0.0L));
              const long double own = *place / sum;
              const long double exact = own * (others / sum) * pull;
              const long double given = out.hessian.get(r * channels + j);
              if (std::abs(exact) < (wide ? DBL_MIN : FLT_MIN)) continue;
              const long double bound =
                  (wide ? 1e-14L : 1e-6L) * (1 + range / 8) * own * (others / sum) * size;
              worst = std::max(worst, static_cast<double>(std::abs(given - exact) / bound));
            }
          }
          INFO(problem.text());
          CHECK(worst <= 1);
        }
      }
    }
  }
}

TEST_CASE("the Hessian of a row that weighs nothing, or has one class, is 0") {
  Random random(4);
  for (const std::int64_t channels : kChannels) {
    Problem problem{{LossType::softmax_cross_entropy, ReductionType::none, false, 1, {}},
                    Wrt::predictions,
                    kFormatMixes[0],
                    {1, 40, 1, channels}};
    problem.weights = {1, 40, 1, 1};
    Inputs in = make_inputs(problem, random);
    for (std::int64_t r = 0; r < 40; ++r) {
      in.weights.set(r, r % 3 == 0 ? 0 : 1);
      if (r % 3 == 0) in.predictions.set(r * channels, HUGE_VAL);
    }
    const Results out = run_with(problem, in, Work::gradient_and_hessian, 0);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < out.hessian.count(); ++i)
      wrong += (channels == 1 || i / channels % 3 == 0) && out.hessian.get(i) != 0;
    CHECK(wrong == 0);
  }
}

}  // namespace mpsnn_loss::test
