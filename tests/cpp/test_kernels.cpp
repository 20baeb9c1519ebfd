// The kernels on arrays of every length, at every place in memory, in every storage format. Each
// result must depend on its own inputs alone, and nothing may be written beside it.
#include <cmath>
#include <string>
#include <vector>

#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

/// Around the widths of vectors, blocks, tiles and chunks.
const std::vector<std::int64_t>& lengths() {
  static const std::vector<std::int64_t> all = [] {
    std::vector<std::int64_t> result{1023, 1024, 1025, 16383, 16384, 16385};
    for (std::int64_t n = 1; n <= 70; ++n) result.push_back(n);
    return result;
  }();
  return all;
}

constexpr Work kLossWork[] = {Work::loss, Work::gradient, Work::loss_and_gradient};

/// Calls visit(problem) for each mix of formats, each derivative, with and without weights and
/// source gradients. The problem has no shape yet.
template <class Visit>
void for_each_kernel(const LossInfo& loss, Visit visit) {
  for (const Formats& formats : kFormatMixes) {
    for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
      for (const bool weighted : {false, true}) {
        Problem problem{descriptor_of(loss.type, ReductionType::none), wrt, formats, {}};
        visit(problem, weighted);
      }
    }
  }
}

void set_shape(Problem& problem, const Shape& shape, bool weighted) {
  problem.shape = shape;
  problem.weights = problem.gradients = {};
  if (!weighted) return;
  problem.weights = shape;
  if (info(problem.descriptor.loss_type).one_weight_per_pixel) problem.weights->channels = 1;
  // Reductions have one source gradient per image.
  if (!problem.descriptor.reduces()) problem.gradients = shape;
}

/// Elements [first, first + count) of the inputs of one image without pixels, somewhere else in
/// memory.
Inputs slice(const Problem& problem, const Inputs& in, std::int64_t first, std::int64_t count,
             Random& random) {
  Inputs part;
  part.predictions = in.predictions.slice(first, count, random.below(6));
  part.labels = in.labels.slice(first, count, random.below(6));
  if (problem.weights) {
    const bool each = problem.weights->channels == problem.shape.channels;
    part.weights = in.weights.slice(each ? first : 0, each ? count : 1, random.below(6));
  }
  if (problem.gradients) part.gradients = in.gradients.slice(first, count, random.below(6));
  return part;
}

/// Adds up to `distance` to the predictions of each row, or takes it away, and lowers some of them
/// so that their exponentials are among the least normal numbers.
void move_rows_apart(Inputs& in, std::int64_t rows, std::int64_t channels, double distance,
                     Random& random) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const double shift = random.uniform(-distance, distance);
    for (std::int64_t i = row * channels; i < (row + 1) * channels; ++i) {
      const double lower = random.one_in(4) ? random.uniform(60, 82) : 0;
      in.predictions.set(i, in.predictions.get(i) + shift - lower);
    }
  }
}

void move_all(Inputs& in, double distance) {
  for (std::int64_t i = 0; i < in.predictions.count(); ++i)
    in.predictions.set(i, in.predictions.get(i) + distance);
}

}  // namespace

TEST_CASE("element results depend on neither length nor position, and nothing else is written") {
  constexpr std::int64_t kLongest = 16385 + 500;
  Random random(1);
  for (const LossInfo& loss : kLosses) {
    if (loss.couples_channels) continue;
    for_each_kernel(loss, [&](Problem problem, bool weighted) {
      set_shape(problem, {1, 1, 1, kLongest}, weighted);
      Inputs all = make_inputs(problem, random);
      add_special_values(all, random);
      if (loss.one_weight_per_pixel && weighted) all.weights.set(0, 1.5);
      const Outputs expected = run(problem, all, Work::loss_and_gradient);
      for (const std::int64_t length : lengths()) {
        const std::int64_t first = random.below(500);
        Inputs part = slice(problem, all, first, length, random);
        Problem shorter = problem;
        set_shape(shorter, {1, 1, 1, length}, weighted);
        for (const Work work : kLossWork) {
          const Outputs given = run(shorter, part, work, random.below(20));
          INFO(shorter.text());
          REQUIRE(given.guards_intact());
          if (work != Work::gradient && !problem.descriptor.reduces()) {
            REQUIRE(first_difference(given.loss, 0, expected.loss, first, length) == -1);
          }
          if (work != Work::loss) {
            REQUIRE(first_difference(given.gradient, 0, expected.gradient, first, length) == -1);
          }
        }
      }
    });
  }
}

TEST_CASE("softmax rows depend on neither their neighbours nor their place") {
  const LossInfo& loss = info(LossType::softmax_cross_entropy);
  Random random(2);
  for_each_kernel(loss, [&](Problem problem, bool weighted) {
    for (const std::int64_t channels : lengths()) {
      const std::int64_t rows = channels > 2000 ? 2 : channels > 40 ? 5 : 50;
      set_shape(problem, {1, rows, 1, channels}, weighted);
      Inputs all = make_inputs(problem, random);
      if (random.one_in(3)) add_special_values(all, random);
      if (random.one_in(3))
        move_rows_apart(all, rows, channels, random.one_in(2) ? 5 : 300, random);
      // Around what exponentials are reduced from without a shift, in float32 and float64.
      if (random.one_in(2)) move_all(all, random.one_in(2) ? 8190.5 : 524287.5);
      const Outputs expected = run(problem, all, Work::loss_and_gradient);
      REQUIRE(expected.guards_intact());
      for (std::int64_t row = 0; row < rows; ++row) {
        if (row >= 5 && row + 5 < rows && !random.one_in(8)) continue;
        const std::int64_t first = row * channels;
        Inputs part = slice(problem, all, first, channels, random);
        Problem alone = problem;
        set_shape(alone, {1, 1, 1, channels}, weighted);
        // All three kinds of work on the first row, one of them on the others.
        for (const Work work : kLossWork) {
          if (row > 0 && work != kLossWork[row % 3]) continue;
          if (weighted) part.weights = all.weights.slice(first, channels, random.below(6));
          const Outputs given = run(alone, part, work, random.below(20));
          INFO(alone.text());
          REQUIRE(given.guards_intact());
          if (work != Work::gradient) {
            REQUIRE(first_difference(given.loss, 0, expected.loss, first, channels) == -1);
          }
          if (work != Work::loss) {
            REQUIRE(first_difference(given.gradient, 0, expected.gradient, first, channels) == -1);
          }
        }
      }
    }
  });
}

TEST_CASE("softmax rows of every length are right to the contract's bounds") {
  Random random(3);
  for (const Formats& formats : {kFormatMixes[0], kFormatMixes[1]}) {
    const bool wide = formats.predictions == Format::float64;
    const double bound = wide ? 1e-14 : 1e-6;
    for (const std::int64_t channels : lengths()) {
      Problem problem{{LossType::softmax_cross_entropy, ReductionType::none, false, 1, {}},
                      Wrt::predictions,
                      formats,
                      {1, 1, 1, channels}};
      Inputs in = make_inputs(problem, random);
      const Outputs out = run(problem, in, Work::loss_and_gradient);
      long double maximum = -HUGE_VALL, sum = 0, pull = 0;
      for (std::int64_t c = 0; c < channels; ++c) {
        maximum = std::max(maximum, static_cast<long double>(in.predictions.get(c)));
        pull += static_cast<long double>(in.labels.get(c));
      }
      for (std::int64_t c = 0; c < channels; ++c) sum += std::exp(in.predictions.get(c) - maximum);
      double worst_loss = 0, worst_gradient = 0;
      for (std::int64_t c = 0; c < channels; ++c) {
        const long double log_p = in.predictions.get(c) - maximum - std::log(sum);
        const long double p = std::exp(log_p), t = in.labels.get(c), loss = -t * log_p;
        const long double gradient = p * pull - t, scale = std::max(p * pull, t);
        const long double error = std::abs(out.loss.get(c) - loss);
        if (t != 0) {
          // lp: 8 ULP, or so much absolutely.
          const long double of_log = 8 * (wide ? 0x1p-53L : 0x1p-24L) * std::abs(log_p) * 2;
          worst_loss = std::max(
              worst_loss, static_cast<double>(error / t / std::max(of_log, wide ? 1e-15L : 1e-7L)));
        }
        worst_gradient = std::max(
            worst_gradient, static_cast<double>(std::abs(out.gradient.get(c) - gradient) / scale));
      }
      INFO(problem.text());
      CHECK(worst_loss <= 1.1);  // and the rounding of the product with t
      CHECK(worst_gradient <= bound);
    }
  }
}

TEST_CASE("float16 is computed in float32 and rounded once") {
  Random random(4);
  for (const LossInfo& loss : kLosses) {
    for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
      Problem half{descriptor_of(loss.type, ReductionType::none), wrt, kFormatMixes[2], {}};
      set_shape(half, {3, 5, 7, 13}, true);
      Problem single = half;
      single.formats = kFormatMixes[0];
      Inputs small = make_inputs(half, random);
      Inputs in = make_inputs(single, random);
      const auto widen = [](Array& to, const Array& from) {
        for (std::int64_t i = 0; i < from.count(); ++i) to.set(i, from.get(i));
      };
      widen(in.predictions, small.predictions);
      widen(in.labels, small.labels);
      widen(in.weights, small.weights);
      widen(in.gradients, small.gradients);
      const Outputs given = run(half, small, Work::loss_and_gradient);
      const Outputs expected = run(single, in, Work::loss_and_gradient);
      Array rounded(Format::float16, expected.gradient.count(), 0);
      widen(rounded, expected.gradient);
      INFO(half.text());
      CHECK(first_difference(given.loss, expected.loss) == -1);
      CHECK(first_difference(given.gradient, rounded) == -1);
    }
  }
}

TEST_CASE("an element of weight 0 gives exactly 0, whatever else it is") {
  Random random(5);
  for (const LossInfo& loss : kLosses) {
    for (const Formats& formats : kFormatMixes) {
      for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
        Problem problem{descriptor_of(loss.type, ReductionType::none), wrt, formats, {}};
        set_shape(problem, {2, 3, 4, 37}, true);
        Inputs in = make_inputs(problem, random);
        add_special_values(in, random);
        // Zero for whole pixels: softmax and cosine distance couple channels.
        const std::int64_t channels = problem.shape.channels;
        const std::int64_t per_pixel = problem.weights->channels;
        for (std::int64_t i = 0; i < in.weights.count(); ++i) {
          const bool masked = i / per_pixel % 2 == 0;
          in.weights.set(i, masked ? (random.one_in(2) ? 0.0 : -0.0) : 1.5);
        }
        const Outputs out = run(problem, in, Work::loss_and_gradient);
        std::int64_t wrong = 0;
        for (std::int64_t i = 0; i < out.gradient.count(); ++i) {
          if (i / channels % 2 != 0) continue;
          wrong += out.gradient.get(i) != 0;
          if (!problem.descriptor.reduces()) wrong += out.loss.get(i) != 0;
        }
        INFO(problem.text());
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("an initial gradient is 1 in every element, and nothing else is written") {
  for (const Format format : {Format::float16, Format::float32, Format::float64}) {
    for (const std::int64_t length : lengths()) {
      Array source(format, length, 0), ones(format, length, length % 5, true);
      const BatchDescriptor d{{1, 1, 1, length}, format};
      Request request;
      request.work = Work::initial_gradient;
      request.predictions = Operand("predictions", d, source.data(), false);
      request.gradient = Operand("gradient", d, ones.data(), true);
      cpu_device()->engine().compute(Computation(request), nullptr);
      std::int64_t wrong = 0;
      for (std::int64_t i = 0; i < length; ++i) wrong += ones.get(i) != 1;
      CHECK(wrong == 0);
      CHECK(ones.guards_intact());
    }
  }
}

TEST_CASE(
    "class indices give the results of one-hot labels, and an ignored class those of weight 0") {
  Random random(6);
  for (const LossInfo& loss : kLosses) {
    if (!loss.takes_class_indices) continue;
    for (const Formats& formats : kFormatMixes) {
      for (const ReductionInfo& reduction : kReductions) {
        for (const std::int64_t channels : {1, 3, 10, 67, 1500}) {
          Problem dense{descriptor_of(loss.type, reduction.type),
                        Wrt::predictions,
                        formats,
                        {3, 2, 5, channels}};
          dense.weights = {3, 2, 5, 1};
          Inputs one_hot = make_inputs(dense, random);
          Inputs sparse = one_hot;
          const bool ignores = random.one_in(2);
          if (ignores) sparse.ignored = -100;
          for (std::int64_t pixel = 0; pixel < 30; ++pixel) {
            const bool ignored = ignores && random.one_in(4);
            const std::int64_t hot = random.below(channels);
            sparse.classes.push_back(ignored ? -100 : hot);
            if (ignored) one_hot.weights.set(pixel, 0);
            for (std::int64_t c = 0; c < channels; ++c) {
              one_hot.labels.set(pixel * channels + c, c == hot && !ignored ? 1 : 0);
            }
          }
          const Outputs given = run(dense, sparse, Work::loss_and_gradient);
          const Outputs expected = run(dense, one_hot, Work::loss_and_gradient);
          INFO(dense.text());
          CHECK(given.guards_intact());
          CHECK(agree(loss, given.loss, expected.loss));
          CHECK(agree(loss, given.gradient, expected.gradient));
        }
      }
    }
  }
}

TEST_CASE("weights that broadcast give the results of weights written out") {
  Random random(7);
  for (const LossInfo& loss : kLosses) {
    for (unsigned pattern = 0; pattern < 32; ++pattern) {
      const Shape shape{3, 4, 5, pattern < 16 ? 7 : 19};
      const auto axis = [&](unsigned i, std::int64_t full) { return pattern >> i & 1u ? full : 1; };
      Problem narrow{descriptor_of(loss.type, kReductions[pattern % kReductions.size()].type,
                                   pattern % 3 == 0),
                     pattern % 2 == 0 ? Wrt::predictions : Wrt::labels,
                     kFormatMixes[random.below(5)], shape};
      narrow.weights = {axis(0, 3), axis(1, 4), axis(2, 5), axis(3, shape.channels)};
      if (loss.one_weight_per_pixel) narrow.weights->channels = 1;
      Problem full = narrow;
      full.weights = shape;
      if (loss.one_weight_per_pixel) full.weights->channels = 1;
      Inputs in = make_inputs(narrow, random);
      Inputs written_out = in;
      written_out.weights = Array(in.weights.format(), full.weights->elements(), 1);
      const Shape from = *narrow.weights, to = *full.weights;
      for (std::int64_t i = 0; i < to.elements(); ++i) {
        std::int64_t rest = i, stride = 1, index = 0;
        for (std::size_t a = 4; a-- > 0;) {
          const std::int64_t at = rest % to.axes()[a];
          rest /= to.axes()[a];
          if (from.axes()[a] != 1) index += at * stride;
          stride *= from.axes()[a];
        }
        written_out.weights.set(i, in.weights.get(index));
      }
      const Outputs given = run(narrow, in, Work::loss_and_gradient);
      const Outputs expected = run(full, written_out, Work::loss_and_gradient);
      INFO(narrow.text());
      CHECK(agree(loss, given.loss, expected.loss));
      CHECK(agree(loss, given.gradient, expected.gradient));
    }
  }
}

}  // namespace mpsnn_loss::test
