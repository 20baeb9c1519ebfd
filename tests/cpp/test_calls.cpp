// Whole calls: the same bits for every number of threads, for fused and separate work, for every
// place in memory, and for batches in pieces.
#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "objects/image_batch.hpp"
#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr std::int64_t kThreads[] = {1, 2, 7};

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

/// The values of a host operand in a batch whose images lie backwards in memory.
std::shared_ptr<ImageBatch> backwards(const Operand& operand) {
  const std::int64_t count = operand.shape().images;
  const auto images = cpu_device()->make_images(operand.descriptor);
  std::vector<Image> order;
  for (std::int64_t i = count; i-- > 0;) order.push_back({images, i});
  auto gathered = gather_images(operand.name, order);
  gathered->upload(0, count, operand.data);
  CHECK(gathered->data() == nullptr);
  return gathered;
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
    for (const std::int64_t threads : {2, 7}) {
      const ThreadCount scope(threads);
      check_same(problem, run(problem, in, Work::loss_and_gradient), expected);
    }
    for (const Work work : {Work::loss, Work::gradient}) {
      const ThreadCount scope(random.one_of(kThreads));
      check_same(problem, run(problem, in, work), expected);
    }
  });
}

TEST_CASE("calls from several threads at once give the bits of calls one by one") {
  const ThreadCount scope(2);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> callers;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    callers.emplace_back([&, seed] {
      Random random(seed);
      for (const LossInfo& loss : kLosses) {
        const Shape shape{2, 90, 91, 3};
        Problem problem{descriptor_of(loss.type, ReductionType::mean), Wrt::predictions,
                        kFormatMixes[seed], shape};
        Inputs in = make_inputs(problem, random);
        const Outputs expected = run(problem, in, Work::loss_and_gradient);
        for (int trial = 0; trial < 10; ++trial) {
          const Outputs given = run(problem, in, Work::loss_and_gradient);
          wrong += first_difference(given.loss, expected.loss) != -1;
          wrong += first_difference(given.gradient, expected.gradient) != -1;
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
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
        Outputs out;
        out.loss = Array(expected.loss.format(), expected.loss.count(), 0);
        out.gradient = Array(expected.gradient.format(), expected.gradient.count(), 0);
        Request request = request_of(problem, in, Work::loss_and_gradient);
        request.loss = Operand("loss", {loss_shape(problem.descriptor, shape), Format::float32},
                               out.loss.data(), true);
        request.gradient = Operand("gradient", {shape, Format::float32}, out.gradient.data(), true);
        std::vector<std::shared_ptr<ImageBatch>> batches;
        for (Operand* operand : {&request.predictions, &*request.labels, &*request.weights,
                                 &*request.source_gradients, &*request.loss, &*request.gradient}) {
          batches.push_back(backwards(*operand));
          *operand = batches.back()->operand(operand->name);
        }
        cpu_device()->engine().compute(Computation(request), nullptr);
        batches[4]->download(0, request.loss->shape().images, out.loss.data());
        batches[5]->download(0, shape.images, out.gradient.data());
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

}  // namespace mpsnn_loss::test
