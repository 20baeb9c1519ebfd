// What fails inside Metal becomes an error of ours, and nothing stays behind.
#include <functional>
#include <string>
#include <vector>

#include "on_the_double.hpp"

namespace mpsnn_loss::test {

/// How something ended: "" or the words of an error of ours. Any other exception is a failure.
std::string outcome(const std::function<void()>& run) {
  try {
    run();
  } catch (const StateError& error) {
    return error.what();
  } catch (const DeviceError& error) {
    return error.what();
  } catch (const MemoryError& error) {
    return error.what();
  }
  return "";
}

Problem small_problem() {
  Problem problem{descriptor_of(LossType::softmax_cross_entropy, ReductionType::mean)};
  problem.shape = {2, 1, 2, 5};
  problem.weights = Shape{2, 1, 2, 1};
  return problem;
}

/// Everything that asks Metal for something, once; checks the results.
void whole_session(const std::shared_ptr<Device>& device) {
  Random random(11);
  const Problem problem = small_problem();
  Inputs in = make_inputs(problem, random);
  const Outputs expected = run(problem, in, Work::loss_and_gradient);

  const auto forward = make_kernel(*device, KernelKind::forward_loss, problem);
  const auto gradient = make_kernel(*device, KernelKind::loss_gradient, problem)->copy(device);
  Encode loss = kernel_encode(forward, problem, in);
  loss.destination_states = {forward->make_state(), forward->make_state()};
  const Buffer buffer = device->make_queue("")->make_command_buffer("");
  buffer->encode(loss);
  Encode slope = kernel_encode(gradient, problem, in);
  slope.source_states = loss.destination_states;
  buffer->encode(slope);
  Encode ones;
  ones.kernel = device->make_kernel(KernelKind::initial_gradient, {});
  ones.predictions = loss.predictions;
  ones.results = filled(*device, problem.shape, 0);
  buffer->encode(ones);
  buffer->commit();
  buffer->wait(kLong);
  check_near(download(*loss.results), expected.loss, problem.text());
  check_near(download(*slope.results), expected.gradient, problem.text());
  CHECK(download(*ones.results).get(0) == 1);

  const Outputs given = run(problem, in, Work::loss_and_gradient, 0, device);
  check_near(given.loss, expected.loss, problem.text());
  check_near(given.gradient, expected.gradient, problem.text());
}

/// Lets the fault strike the first, the second, ... occasion of a session until none is left.
/// Returns how many there were; `see` is told how each ended.
unsigned strike_each_occasion(const std::shared_ptr<Device>& device, const char* name, double value,
                              const std::function<void(const std::string&)>& see) {
  for (unsigned occasion = 0; occasion < 1000; ++occasion) {
    const Fault fault(name, value, occasion, 1);
    CAPTURE(std::string(name));
    CAPTURE(occasion);
    const std::string words = outcome([&] { whole_session(device); });
    if (fault.strikes() == 0) return occasion;
    see(words);
  }
  return 1000;
}

TEST_CASE_FIXTURE(OnTheDouble, "whatever returns nil, and whenever, ends in an error") {
  for (const char* const fault : {"queue_is_nil", "command_buffer_is_nil", "kernel_is_nil",
                                  "descriptor_is_nil", "image_is_nil", "texture_is_nil"}) {
    const unsigned occasions =
        strike_each_occasion(device, fault, 1, [](const std::string& w) { CHECK(w != ""); });
    CHECK_MESSAGE(occasions > 1, fault);
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "an encode that raises ends in an error") {
  const unsigned occasions = strike_each_occasion(device, "encode_raises", 1, [](const auto& w) {
    CHECK(w.find("NSInternalInconsistencyException") != std::string::npos);
  });
  CHECK(occasions > 3);
}

TEST_CASE_FIXTURE(OnTheDouble, "a result state of nil costs nothing but the state") {
  const unsigned occasions = strike_each_occasion(device, "result_state_is_nil", 1,
                                                  [](const std::string& w) { CHECK(w == ""); });
  CHECK(occasions > 0);
}

TEST_CASE_FIXTURE(OnTheDouble, "behaviours that documents leave open make no difference") {
  for (const char* const open :
       {"forget_read_count_decrement", "copy_forgets_properties", "archive_forgets_properties",
        "temporary_states_are_temporary", "results_follow_source_format", "run_handlers_of_dropped",
        "log_and_do_nothing"}) {
    const Fault on(open);
    CAPTURE(std::string(open));
    CHECK(outcome([&] { whole_session(device); }) == "");
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "a buffer that fails says its domain, code and words, every time") {
  Random random(12);
  const Problem problem = small_problem();
  const Inputs in = make_inputs(problem, random);
  for (const int code : {1, 2, 3, 4, 7, 8, 9, 10, 11, 12}) {
    const Fault fault("buffer_error", code);
    const auto kernel = make_kernel(*device, KernelKind::loss_gradient, problem);
    const Encode call = kernel_encode(kernel, problem, in);
    const Buffer buffer = make_buffer();
    buffer->encode(call);
    bool handled = false;
    buffer->on_completed([&] { handled = buffer->error() != nullptr; });
    buffer->commit();
    const std::string expected = "MTLCommandBufferErrorDomain " + std::to_string(code) + ": ";
    for (int i = 0; i < 2; ++i) {
      const std::string words = refusal_of<DeviceError>([&] { buffer->wait(kLong); });
      CAPTURE(words);
      CHECK(words.find(expected) != std::string::npos);
    }
    CHECK(handled);
    CHECK(buffer->status() == Status::error);
    check_refused<DeviceError>("", [&] { download(*call.results); });
    Inputs again = in;
    check_refused<DeviceError>("", [&] { run(problem, again, Work::gradient, 0, device); });
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "a failed buffer does not stop those behind it, or the device") {
  const unsigned occasions =
      strike_each_occasion(device, "buffer_error", 2, [](const std::string& w) { CHECK(w != ""); });
  CHECK(occasions > 1);
  CHECK(outcome([&] { whole_session(device); }) == "");
}

TEST_CASE_FIXTURE(OnTheDouble, "a buffer in error without an NSError is an error too") {
  const Fault fault("buffer_error_without_nserror", 1, 0, 1);
  const Buffer buffer = make_buffer();
  buffer->encode([&] {
    Random random(13);
    const Problem problem = small_problem();
    const auto kernel = make_kernel(*device, KernelKind::forward_loss, problem);
    return kernel_encode(kernel, problem, make_inputs(problem, random));
  }());
  buffer->commit();
  check_refused<DeviceError>("", [&] { buffer->wait(kLong); });
}

TEST_CASE_FIXTURE(OnTheDouble, "a wait that times out may be repeated") {
  const Fault late("completion_late", 60);
  const Buffer buffer = make_buffer();
  buffer->commit();
  check_refused<TimeoutError>("command_buffer", [&] { buffer->wait(0.001); });
  CHECK_FALSE(buffer->finished_within(0.0));
  CHECK_NOTHROW(buffer->wait(kLong));
}

TEST_CASE_FIXTURE(OnTheDouble, "a machine without a supported device says why") {
  for (const char* const missing : {"no_device", "device_unsupported"}) {
    const Fault fault(missing);
    std::string reason;
    CHECK(metal::make_devices(reason).empty());
    CHECK(reason != "");
  }
}

}  // namespace mpsnn_loss::test
