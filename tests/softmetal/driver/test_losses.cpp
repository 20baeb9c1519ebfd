// Losses and gradients by kernels and by one-call functions, held against the CPU engine.
#include "objects/image_batch.hpp"
#include "on_the_double.hpp"

namespace mpsnn_loss::test {

constexpr Formats kMetalMixes[] = {kFormatMixes[0], kFormatMixes[2], kFormatMixes[3],
                                   kFormatMixes[4]};
constexpr Shape kSmallShapes[] = {{2, 3, 2, 7}, {3, 1, 1, 5}, {1, 2, 1, 2}, {4, 1, 3, 8}};

/// Calls `use` with problems that go through every loss, reduction and derivative, and over the
/// shapes, storage types and kinds of weights.
template <class Use>
void for_each_problem(Use use) {
  std::size_t count = 0;
  for (const LossInfo& loss : kLosses) {
    for (const Reduction& reduction : kAllReductions) {
      if (loss.sums_only && reduction.type != ReductionType::sum) continue;
      for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
        Problem problem{descriptor_of(loss.type, reduction.type, reduction.across), wrt};
        problem.formats = kMetalMixes[count % std::size(kMetalMixes)];
        problem.shape = kSmallShapes[count / 2 % std::size(kSmallShapes)];
        problem.weights = weights_shape(static_cast<int>(count), problem.shape, loss);
        const bool reduces = problem.descriptor.reduces();
        if (count % 3 == 0) problem.gradients = reduced(problem.shape);
        if (count % 3 == 1 && !reduces) problem.gradients = problem.shape;
        if (!problem.gradients) problem.source_gradient = 1.5;
        ++count;
        use(problem);
      }
    }
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "kernels compute what the CPU engine computes") {
  Random random(5);
  for_each_problem([&](const Problem& problem) {
    Inputs in = make_inputs(problem, random);
    const Outputs expected = run(problem, in, Work::loss_and_gradient);
    const auto result = [&](KernelKind kind) {
      const auto kernel = make_kernel(*device, kind, problem);
      return run_alone(*device, kernel_encode(kernel, problem, in));
    };
    check_near(result(KernelKind::forward_loss), expected.loss, problem.text());
    check_near(result(KernelKind::loss_gradient), expected.gradient, problem.text());
  });
}

TEST_CASE_FIXTURE(OnTheDouble, "one-call functions compute what the CPU engine computes") {
  Random random(6);
  for_each_problem([&](const Problem& problem) {
    Inputs in = make_inputs(problem, random);
    for (const Work work : {Work::loss, Work::gradient, Work::loss_and_gradient}) {
      const Outputs expected = run(problem, in, work), given = run(problem, in, work, 3, device);
      if (work != Work::gradient) check_near(given.loss, expected.loss, problem.text());
      if (work != Work::loss) check_near(given.gradient, expected.gradient, problem.text());
      CHECK(given.guards_intact());
    }
  });
}

TEST_CASE_FIXTURE(OnTheDouble, "class indices, ignored ones among them, are labels too") {
  Random random(7);
  for (const LossType type :
       {LossType::softmax_cross_entropy, LossType::categorical_cross_entropy}) {
    for (const Reduction& reduction : kAllReductions) {
      Problem problem{descriptor_of(type, reduction.type, reduction.across)};
      problem.shape = {3, 2, 1, 5};
      Inputs in = make_inputs(problem, random);
      for (std::int64_t i = 0; i < 6; ++i) in.classes.push_back(random.below(6) - 1);
      in.ignored = -1;
      const Outputs expected = run(problem, in, Work::loss_and_gradient);
      const Outputs given = run(problem, in, Work::loss_and_gradient, 0, device);
      check_near(given.loss, expected.loss, problem.text());
      check_near(given.gradient, expected.gradient, problem.text());
    }
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "rows longer than an image, and more pixels than one, are cut up") {
  Random random(8);
  for (const Shape& shape : {Shape{2, 1, 1, 9001}, Shape{16411, 1, 1, 2}, Shape{1, 1, 16500, 1}}) {
    Problem problem{descriptor_of(LossType::sigmoid_cross_entropy, ReductionType::mean)};
    problem.shape = shape;
    Inputs in = make_inputs(problem, random);
    const Outputs expected = run(problem, in, Work::loss_and_gradient);
    const Outputs given = run(problem, in, Work::loss_and_gradient, 0, device);
    check_near(given.loss, expected.loss, problem.text());
    check_near(given.gradient, expected.gradient, problem.text());
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "an initial gradient is 1 everywhere") {
  for (const Format format : {Format::float16, Format::float32}) {
    const Shape shape{2, 2, 3, 5};
    Encode call;
    call.kernel = device->make_kernel(KernelKind::initial_gradient, {});
    call.predictions = filled(*device, shape, 3, format);
    const Array ones = run_alone(*device, call);
    for (std::int64_t i = 0; i < ones.count(); ++i) REQUIRE(ones.get(i) == 1);
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "a batch may be gathered from images of several, repeatedly") {
  const Shape shape{3, 1, 2, 5};
  Random random(9);
  Problem problem{descriptor_of(LossType::log, ReductionType::sum)};
  problem.shape = shape;
  Inputs in = make_inputs(problem, random);
  const auto kernel = make_kernel(*device, KernelKind::forward_loss, problem);
  Encode call = kernel_encode(kernel, problem, in);
  const Images predictions = call.predictions, labels = call.labels;
  const std::vector<std::int64_t> order{2, 0, 2};
  std::vector<Image> first, second;
  for (const std::int64_t i : order) {
    first.push_back({predictions, i});
    second.push_back({labels, i});
  }
  const Array straight = run_alone(*device, call);
  call.predictions = gather_images("predictions", first);
  call.labels = gather_images("labels", second);
  call.results = device->make_images({{3, 1, 1, 1}, Format::float32});
  const Array mixed = run_alone(*device, call);
  for (std::size_t i = 0; i < order.size(); ++i) {
    CHECK(mixed.get(static_cast<std::int64_t>(i)) == straight.get(order[i]));
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "the gradient takes its parameters from the forward loss's states") {
  Random random(10);
  for (const std::size_t states : {std::size_t{1}, std::size_t{3}}) {
    Problem problem{descriptor_of(LossType::softmax_cross_entropy, ReductionType::mean)};
    problem.shape = {3, 1, 2, 7};
    Inputs in = make_inputs(problem, random);
    const Outputs expected = run(problem, in, Work::loss_and_gradient);
    const auto forward = make_kernel(*device, KernelKind::forward_loss, problem);
    Problem other = problem;
    other.descriptor.parameters = {};
    const auto gradient = make_kernel(*device, KernelKind::loss_gradient, other);
    Encode loss = kernel_encode(forward, problem, in);
    for (std::size_t i = 0; i < states; ++i) {
      loss.destination_states.push_back(forward->make_state());
    }
    Encode by_states = kernel_encode(gradient, other, in);
    by_states.source_states = loss.destination_states;
    check_refused<StateError>("source_states", [&] { to_computation(by_states); });
    const Buffer buffer = make_buffer();
    buffer->encode(loss);
    buffer->encode(by_states);
    buffer->commit();
    buffer->wait(kLong);
    check_near(download(*loss.results), expected.loss, problem.text());
    check_near(download(*by_states.results), expected.gradient, problem.text());
    CHECK(gradient->properties().parameters == LossParameters{});  // nothing is written back
  }
}

}  // namespace mpsnn_loss::test
