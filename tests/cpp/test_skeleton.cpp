// The skeleton of an engine, which CONTRIBUTING tells to copy, still computes.
#include "objects/host_device.hpp"
#include "problem.hpp"
#include "skeleton_engine.hpp"

namespace mpsnn_loss::test {
namespace {

bool is_near(const Array& given, const Array& expected) {
  const double rounding = given.format() == Format::float64   ? 1e-13
                          : given.format() == Format::float32 ? 1e-6
                                                              : 1e-3;
  for (std::int64_t i = 0; i < given.count(); ++i) {
    const double size = std::max(std::abs(expected.get(i)), 1e-6);
    if (!(std::abs(given.get(i) - expected.get(i)) <= rounding * size)) return false;
  }
  return given.count() == expected.count();
}

}  // namespace

TEST_CASE("the skeleton of an engine computes what the CPU engine computes") {
  const auto skeleton = make_host_device(std::make_shared<SkeletonEngine>(), "skeleton");
  Random random(7);
  int turn = 0;
  for (const Shape& shape : {Shape{1, 1, 1, 5}, Shape{3, 2, 3, 4}, Shape{4, 1, 1, 1}}) {
    for (const Reduction& reduction : kAllReductions) {
      for (const Formats& formats : kFormatMixes) {
        for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
          const LossType loss = LossType::mean_absolute_error;
          Problem problem{descriptor_of(loss, reduction.type, reduction.across), wrt, formats,
                          shape};
          problem.weights = weights_shape(turn, shape, info(loss));
          if (turn % 3 == 1) problem.gradients = reduced(shape);
          if (turn % 3 == 2 && !problem.descriptor.reduces()) problem.gradients = shape;
          ++turn;
          INFO(problem.text());
          Inputs in = make_inputs(problem, random);
          const Outputs given = run(problem, in, Work::loss_and_gradient, 0, skeleton);
          const Outputs expected = run(problem, in, Work::loss_and_gradient);
          CHECK(given.guards_intact());
          CHECK(is_near(given.loss, expected.loss));
          CHECK(is_near(given.gradient, expected.gradient));
        }
      }
    }
  }
}

TEST_CASE("the skeleton of an engine says what it does not know") {
  const SkeletonEngine engine;
  CHECK(engine.supports({}).empty());
  CHECK(engine.supports({.loss = descriptor_of(LossType::mean_absolute_error, ReductionType::mean)})
            .empty());
  CHECK(engine.supports({.loss = descriptor_of(LossType::hinge, ReductionType::mean)}) ==
        "the skeleton knows mean_absolute_error alone");
}

}  // namespace mpsnn_loss::test
