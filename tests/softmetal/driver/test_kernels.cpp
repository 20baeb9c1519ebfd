// Kernels of every class, with every property.
#include <atomic>
#include <thread>
#include <vector>

#include "objects/archive.hpp"
#include "on_the_double.hpp"

namespace mpsnn_loss::test {

constexpr KernelKind kKinds[] = {KernelKind::forward_loss, KernelKind::loss_gradient,
                                 KernelKind::initial_gradient};

/// A value of this form that is no default.
PropertyValue another_value(PropertyForm form) {
  switch (form) {
    case PropertyForm::count: return {4};
    case PropertyForm::flag: return {1};
    case PropertyForm::offset: return {1, -2, 0};
    case PropertyForm::region: return {0, 1, 0, 2, 3, 1};
    case PropertyForm::edge_mode: return {1};
    case PropertyForm::padding: return {1};
    case PropertyForm::allocator: return {1};
  }
  return {};
}

/// Every property away from its default.
void change_everything(KernelKind kind, KernelProperties& p) {
  if (kind != KernelKind::initial_gradient) p.parameters = {2, 0.25, 1e-3, 0.5};
  p.compute_label_gradients = kind == KernelKind::loss_gradient;
  p.options = 1;
  p.label = "named";
  p.has_label = true;
  const auto rows = inherited_properties(kind);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].read_only) p.moved[i] = another_value(rows[i].form);
  }
}

void check_changed(const Kernel& kernel) {
  KernelProperties expected;
  change_everything(kernel.kind(), expected);
  const KernelProperties p = kernel.properties();
  if (kernel.kind() != KernelKind::initial_gradient) CHECK(p.parameters == expected.parameters);
  CHECK(p.compute_label_gradients == expected.compute_label_gradients);
  CHECK(p.options == expected.options);
  CHECK(p.label == expected.label);
  const auto rows = inherited_properties(kernel.kind());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CAPTURE(rows[i].name);
    if (!rows[i].read_only) CHECK(kernel.inherited(i) == another_value(rows[i].form));
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "a new kernel has Apple's defaults") {
  for (const KernelKind kind : kKinds) {
    const auto kernel = device->make_kernel(kind, {});
    const KernelProperties p = kernel->properties();
    CHECK(p.parameters == LossParameters{});
    CHECK_FALSE(p.has_label);
    CHECK_NOTHROW(request_of(*kernel));
    CHECK(foreign.kernel_pointer(*kernel) != nullptr);
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "every property is kept, by copies and archives too") {
  for (const KernelKind kind : kKinds) {
    const auto kernel = device->make_kernel(kind, {});
    kernel->update([&](KernelProperties& p) { change_everything(kind, p); });
    check_changed(*kernel);
    check_changed(*kernel->copy(device));
    check_changed(*unarchive(archive(*kernel), kind, device));
    check_refused<ValueError>("", [&] { request_of(*kernel); });
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "the properties of the moment of the encode count") {
  Random random(3);
  Problem problem{descriptor_of(LossType::huber, ReductionType::mean)};
  problem.shape = {2, 2, 3, 5};
  Inputs in = make_inputs(problem, random);
  for (const KernelKind kind : {KernelKind::forward_loss, KernelKind::loss_gradient}) {
    const bool forward = kind == KernelKind::forward_loss;
    const auto kernel = make_kernel(*device, kind, problem);
    const Encode call = kernel_encode(kernel, problem, in);
    const Buffer buffer = make_buffer();
    buffer->encode(call);
    kernel->update([](KernelProperties& p) { p.parameters.weight = 100; });
    CHECK(kernel->properties().parameters.weight == 100);
    buffer->commit();
    buffer->wait(kLong);
    const Outputs expected = run(problem, in, Work::loss_and_gradient);
    check_near(download(*call.results), forward ? expected.loss : expected.gradient,
               problem.text());
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "one kernel may encode on several threads while others change it") {
  constexpr int kThreads = 3, kRounds = 20;
  Problem problem{descriptor_of(LossType::mean_squared_error, ReductionType::none)};
  problem.shape = {1, 1, 1, 4};
  Random random(4);
  const Inputs in = make_inputs(problem, random);
  const auto kernel = make_kernel(*device, KernelKind::loss_gradient, problem);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const auto queue = device->make_queue("");
      for (int i = 0; i < kRounds; ++i) {
        kernel->update([&](KernelProperties& p) { p.parameters.weight = 1 + t; });
        const Encode call = kernel_encode(kernel, problem, in);
        const Buffer buffer = queue->make_command_buffer("");
        buffer->encode(call);
        buffer->commit();
        buffer->wait(kLong);
        const double e = in.predictions.get(0) - in.labels.get(0);
        const double given = download(*call.results).get(0);
        bool is_of_one = false;  // the weight that one of the threads has set
        for (int weight = 1; weight <= kThreads; ++weight) {
          const double expected = 2 * e * weight;
          is_of_one = is_of_one || std::abs(given - expected) <= 1e-6 * std::abs(expected);
        }
        wrong += !is_of_one;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace mpsnn_loss::test
