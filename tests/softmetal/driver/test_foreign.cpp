// Objects that Metal knows and the package does not: queues, buffers and images adopted by their
// pointers, images that kernels make themselves, and archives of Apple's keyed archiver.
#include "on_the_double.hpp"

namespace mpsnn_loss::test {

TEST_CASE_FIXTURE(OnTheDouble, "an adopted queue serves like one of ours") {
  const auto queue = device->make_queue("");
  const auto adopted = device->adopt_queue(queue->native_handle());
  CHECK(adopted->native_handle() == queue->native_handle());
  const Gradient gradient(device);
  const Buffer buffer = adopted->make_command_buffer("");
  buffer->encode(gradient.call());
  buffer->commit();
  buffer->wait(kLong);
  CHECK(gradient.result() == 3);
}

TEST_CASE_FIXTURE(OnTheDouble, "an adopted buffer is committed by its owner, or dropped") {
  for (const bool commit : {true, false}) {
    const Gradient own(device), other(device);
    Buffer owner = make_buffer();
    owner->encode(own.call());
    const Buffer adopted = device->adopt_command_buffer(owner->native_handle());
    adopted->encode(other.call());
    bool handled = false;
    adopted->on_completed([&] { handled = true; });
    if (!commit) {
      adopted->discard();
      owner.reset();
      continue;
    }
    owner->commit();
    adopted->wait(kLong);
    owner->wait(kLong);
    CHECK(handled);
    CHECK(own.result() == 3);
    CHECK(other.result() == 3);
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "an adopted image is read and written as its owner's") {
  const Gradient gradient(device);
  const Images owned = gradient.request.predictions.images;
  const Images adopted = device->adopt_images(ForeignKind::image, owned->native_handle(1));
  CHECK(adopted->shape() == Shape{1, 1, 1, 3});
  CHECK(download(*adopted).get(2) == 2);
  Array fives(Format::float32, 3, 0);
  for (std::int64_t i = 0; i < 3; ++i) fives.set(i, 5);
  adopted->upload(0, 1, fives.data());
  CHECK(download(*owned).get(5) == 5);
  CHECK(device->owns(ForeignKind::image, owned->native_handle(0)));
  check_refused<TypeError>("pointer",
                           [&] { device->owns(ForeignKind::queue, owned->native_handle(0)); });
}

TEST_CASE_FIXTURE(OnTheDouble, "images that kernels make hold what ours would") {
  Random random(14);
  for (const ResultAllocator allocator :
       {ResultAllocator::image, ResultAllocator::temporary_image}) {
    for (const ReductionType reduction : {ReductionType::none, ReductionType::mean}) {
      Problem problem{descriptor_of(LossType::huber, reduction)};
      problem.shape = {2, 2, 1, 5};
      const Inputs in = make_inputs(problem, random);
      const auto forward = make_kernel(*device, KernelKind::forward_loss, problem);
      LossRequest loss = kernel_request(forward, problem, in);
      const Array expected = run_alone(*device, loss);
      loss.loss = {};
      const Buffer buffer = make_buffer();
      const Images results = buffer->encode(LossCall(loss), allocator);
      CHECK_NOTHROW(forward->capture());
      buffer->commit();
      buffer->wait(kLong);
      if (allocator == ResultAllocator::image) {
        check_near(download(*results), expected, problem.text());
      } else {
        check_refused<StateError>("", [&] { download(*results); });
      }
    }
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "temporary results feed the next encode, used or not") {
  Random random(15);
  Problem problem{descriptor_of(LossType::mean_squared_error, ReductionType::none)};
  problem.shape = {2, 1, 1, 4};
  Inputs in = make_inputs(problem, random);
  const auto kernel = make_kernel(*device, KernelKind::loss_gradient, problem);
  LossRequest first = kernel_request(kernel, problem, in);
  LossRequest second = first;
  first.gradient = {};
  for (const bool commit : {true, false}) {
    const Buffer buffer = make_buffer();
    const Images temporary = buffer->encode(LossCall(first), ResultAllocator::temporary_image);
    static_cast<void>(buffer->encode(LossCall(first), ResultAllocator::temporary_image));
    second.predictions = make_operand("predictions", temporary);
    second.gradient = make_operand("gradient", filled(*device, problem.shape, 0));
    buffer->encode(LossCall(second));
    buffer->encode(LossCall(second));
    if (!commit) continue;
    buffer->commit();
    buffer->wait(kLong);
    const double w = problem.descriptor.parameters.weight;
    const double y = in.predictions.get(3), t = in.labels.get(3);
    CHECK(download(*second.gradient.images).get(3) ==
          doctest::Approx(w * 2 * (w * 2 * (y - t) - t)).epsilon(1e-5));
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "a kernel survives Apple's keyed archiver") {
  const auto kernel = device->make_kernel(KernelKind::loss_gradient,
                                          descriptor_of(LossType::log, ReductionType::mean));
  kernel->update([](KernelProperties& p) { p.parameters.weight = 3; });
  const std::string data = kernel->archived_data();
  const auto back = device->unarchive_kernel(KernelKind::loss_gradient, data);
  CHECK(back->descriptor().loss_type == LossType::log);
  CHECK(back->descriptor().reduction_type == ReductionType::mean);
  CHECK(back->properties().parameters.weight == 3);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, data.size() / 2, data.size() - 1}) {
    CAPTURE(size);
    const auto truncated = [&] {
      device->unarchive_kernel(KernelKind::loss_gradient, data.substr(0, size));
    };
    CHECK(refusal_of<ValueError>(truncated) != "(no error)");
  }
  check_refused<ValueError>("", [&] { device->unarchive_kernel(KernelKind::forward_loss, data); });
}

}  // namespace mpsnn_loss::test
