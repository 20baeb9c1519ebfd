// What an encode accepts and refuses beside what a Computation does: devices and states.
#include <memory>
#include <vector>

#include "buffers.hpp"
#include "fake_device.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr LossParameters kValues{2, 0.5, 1e-3, 3}, kOthers{2, 0.5, 1e-3, 4};

/// A forward loss of three images.
Encode forward() {
  const BatchDescriptor form{{3, 1, 1, 3}, Format::float32};
  Encode call;
  call.kernel = cpu_device()->make_kernel(KernelKind::forward_loss, Images::descriptor());
  call.predictions = cpu_device()->make_images(form);
  call.labels = cpu_device()->make_images(form);
  return call;
}

}  // namespace

TEST_CASE("states are one for the batch or one for each image, and filled") {
  for (const std::size_t count : {1u, 2u, 3u, 4u}) {
    Encode reads = Images({3, 1, 1, 3}).call(), writes = forward();
    for (std::size_t i = 0; i < count; ++i) reads.source_states.push_back(make_state(kValues));
    writes.destination_states = reads.source_states;
    if (count == 1 || count == 3) {
      const Computation computation = to_computation(reads);
      CHECK(computation->descriptor.parameters == kValues);
      CHECK(computation->image_parameters.empty());
      CHECK_NOTHROW(to_computation(writes));
    } else {
      check_refused<ValueError>("source_states", [&] { to_computation(reads); });
      check_refused<ValueError>("destination_states", [&] { to_computation(writes); });
    }
  }
  Encode call = Images({3, 1, 1, 3}).call();
  call.source_states = {make_state(kValues), make_state(kOthers), make_state(kValues)};
  const std::vector<LossParameters> expected{kValues, kOthers, kValues};
  CHECK(to_computation(call)->image_parameters == expected);
  call.source_states[2] = make_state(std::nullopt);
  check_refused<StateError>("source_states[2]", [&] { to_computation(call); });
}

TEST_CASE("a forward encode fills its states with the properties of that moment") {
  const Buffer buffer = make_buffer();
  Encode call = forward();
  const auto state = make_state(std::nullopt);
  call.destination_states = {state};
  for (const double weight : {1.5, 2.5}) {
    call.kernel->update([&](KernelProperties& p) { p.parameters.weight = weight; });
    buffer->encode(call);
    REQUIRE(state->values.has_value());
    CHECK(state->values->weight == weight);  // before any commit, and a second encode overwrites
  }
}

TEST_CASE("results are made where none are given, and are the buffer's to write") {
  const Buffer buffer = make_buffer();
  const Encode call = forward();
  const auto results = buffer->encode(call);
  CHECK(results->shape() == call.predictions->shape());
  check_refused<StateError>("the command buffer", [&] { results->check_readable(); });
  buffer->commit();
  buffer->wait(kLong);
  CHECK_NOTHROW(results->check_readable());
}

TEST_CASE("an encode refuses images and states of another device by name, and does nothing else") {
  const auto other = std::make_shared<FakeDevice>();
  const Buffer buffer = make_buffer();
  const Images images;
  const auto state = make_state(std::nullopt);
  const auto check = [&](const char* name, auto spoil) {
    Encode call = images.call();
    call.destination_states = {state};
    spoil(call);
    check_refused<StateError>(name, [&] { buffer->encode(call); });
    CHECK_FALSE(state->values.has_value());
    CHECK_NOTHROW(images.gradient->check_readable());
  };
  const auto elsewhere = other->make_images(images.predictions->descriptor());
  check("source_images", [&](Encode& call) { call.predictions = elsewhere; });
  check("labels", [&](Encode& call) { call.labels = elsewhere; });
  check("weights", [&](Encode& call) { call.weights = elsewhere; });
  check("source_gradients", [&](Encode& call) { call.source_gradients = elsewhere; });
  check("destination_gradients", [&](Encode& call) { call.results = elsewhere; });
  check("source_states",
        [&](Encode& call) { call.source_states = {std::make_shared<State>(other)}; });
  buffer->commit();
  CHECK_NOTHROW(buffer->wait(kLong));
}

TEST_CASE("a device on host memory makes no images by itself, and says so") {
  Encode call = forward();
  call.allocator = ResultAllocator::image;
  check_refused<StateError>("allocator must be None", [&] { make_buffer()->encode(call); });
}

}  // namespace mpsnn_loss::test
