// Objects that Metal knows and the package does not: queues, buffers and images adopted by their
// pointers, images that kernels make themselves, and archives of Apple's keyed archiver.
#include "on_the_double.hpp"

namespace mpsnn_loss::test {

using metal::ForeignKind;

TEST_CASE_FIXTURE(OnTheDouble, "an adopted queue serves like one of ours") {
  const auto queue = device->make_queue("");
  const auto adopted = foreign.adopt_queue(device, foreign.queue_pointer(*queue));
  CHECK(foreign.queue_pointer(*adopted) == foreign.queue_pointer(*queue));
  const Gradient gradient(device);
  const Buffer buffer = adopted->make_command_buffer("");
  buffer->encode(gradient.call);
  buffer->commit();
  buffer->wait(kLong);
  CHECK(gradient.result() == 3);
}

TEST_CASE_FIXTURE(OnTheDouble, "an adopted buffer is committed by its owner, or dropped") {
  for (const bool commit : {true, false}) {
    const Gradient own(device), other(device);
    Buffer owner = make_buffer();
    owner->encode(own.call);
    const Buffer adopted =
        foreign.adopt_command_buffer(device, foreign.command_buffer_pointer(*owner));
    adopted->encode(other.call);
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
  const Images owned = gradient.call.predictions;
  void* const second = foreign.image_pointer({owned, 1});
  const Images adopted = foreign.adopt_images(device, ForeignKind::image, second);
  CHECK(adopted->shape() == Shape{1, 1, 1, 3});
  CHECK(download(*adopted).get(2) == 2);
  Array fives(Format::float32, 3, 0);
  for (std::int64_t i = 0; i < 3; ++i) fives.set(i, 5);
  adopted->upload(0, 1, fives.data());
  CHECK(download(*owned).get(5) == 5);
  CHECK(foreign.owns(*device, ForeignKind::image, second));
  check_refused<TypeError>("pointer", [&] { foreign.owns(*device, ForeignKind::queue, second); });
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
      Encode loss = kernel_encode(forward, problem, in);
      const Array expected = run_alone(*device, loss);
      loss.results = nullptr;
      loss.allocator = allocator;
      const Buffer buffer = make_buffer();
      const Images results = buffer->encode(loss);
      CHECK_NOTHROW(request_of(*forward));
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
  Encode first = kernel_encode(kernel, problem, in);
  Encode second = first;
  first.results = nullptr;
  first.allocator = ResultAllocator::temporary_image;
  for (const bool commit : {true, false}) {
    const Buffer buffer = make_buffer();
    const Images temporary = buffer->encode(first);
    buffer->encode(first);
    second.predictions = temporary;
    second.results = filled(*device, problem.shape, 0);
    buffer->encode(second);
    buffer->encode(second);
    if (!commit) continue;
    buffer->commit();
    buffer->wait(kLong);
    const double w = problem.descriptor.parameters.weight;
    const double y = in.predictions.get(3), t = in.labels.get(3);
    CHECK(download(*second.results).get(3) ==
          doctest::Approx(w * 2 * (w * 2 * (y - t) - t)).epsilon(1e-5));
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "a kernel survives Apple's keyed archiver") {
  const auto kernel = device->make_kernel(KernelKind::loss_gradient,
                                          descriptor_of(LossType::log, ReductionType::mean));
  kernel->update([](KernelProperties& p) { p.parameters.weight = 3; });
  const std::string data = foreign.archived_data(*kernel);
  const auto back = foreign.unarchive_kernel(device, KernelKind::loss_gradient, data);
  CHECK(back->descriptor().loss_type == LossType::log);
  CHECK(back->descriptor().reduction_type == ReductionType::mean);
  CHECK(back->properties().parameters.weight == 3);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, data.size() / 2, data.size() - 1}) {
    CAPTURE(size);
    const auto truncated = [&] {
      foreign.unarchive_kernel(device, KernelKind::loss_gradient, data.substr(0, size));
    };
    CHECK(refusal_of<ValueError>(truncated) != "(no error)");
  }
  check_refused<ValueError>(
      "", [&] { foreign.unarchive_kernel(device, KernelKind::forward_loss, data); });
}

}  // namespace mpsnn_loss::test
