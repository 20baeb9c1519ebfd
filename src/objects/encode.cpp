#include "objects/encode.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss {
namespace {

using States = std::vector<std::shared_ptr<State>>;

void check_count(const char* name, const States& states, std::int64_t images) {
  if (states.size() <= 1 || states.size() == static_cast<std::size_t>(images)) return;
  throw ValueError(
      refusal(name, "hold 1 state or " + std::to_string(images), std::to_string(states.size())));
}

/// The values that a forward encode has captured take the place of the kernel's own.
void take_values(Request& request, const States& states) {
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i]->values) continue;
    throw StateError("source_states[" + std::to_string(i) +
                     "] must be filled by a forward encode first");
  }
  if (states.empty()) return;
  request.descriptor.parameters = *states.front()->values;
  const auto differs = [&](const auto& state) { return *state->values != *states.front()->values; };
  if (std::ranges::none_of(states, differs)) return;
  for (const auto& state : states) request.image_parameters.push_back(*state->values);
}

}  // namespace

const char* name_of_results(KernelKind kind) {
  return kind == KernelKind::loss_gradient ? "destination_gradients" : "destination_images";
}

void check_device(const char* name, const char* expectation, const Device& expected,
                  const Device& given) {
  if (&given == &expected) return;
  throw StateError(refusal(name, expectation + expected.name(), given.name()));
}

void check_devices(const Encode& call, const Device& device) {
  check_device("command_buffer", "be on the device of the kernel, ", *call.kernel->device(),
               device);
  constexpr const char* kImages = "be on the device of the command buffer, ";
  constexpr const char* kStates = "be of the device of the command buffer, ";
  for_each_argument(call, [&](const char* name, const ImageBatch& images, bool) {
    check_device(name, kImages, device, *images.device());
  });
  for (const auto& state : call.source_states)
    check_device("source_states", kStates, device, *state->device);
  for (const auto& state : call.destination_states)
    check_device("destination_states", kStates, device, *state->device);
}

Computation to_computation(Encode& call) {
  const auto ask = [&](Request& request) {
    call.kernel->fill(request);
    const auto place = [](auto& operand, const char* name, const auto& images) {
      if (images != nullptr) operand = images->operand(name);
    };
    place(request.predictions, "source_images", call.predictions);
    place(request.labels, "labels", call.labels);
    place(request.weights, "weights", call.weights);
    place(request.source_gradients, "source_gradients", call.source_gradients);
    if (call.allocator && call.results != nullptr) {
      throw ValueError(refusal(
          "allocator", std::string("be None beside ") + name_of_results(call.kernel->kind()),
          call.allocator == ResultAllocator::image ? "'image'" : "'temporary_image'"));
    }
    const std::int64_t images = request.predictions.shape().images;
    check_count("source_states", call.source_states, images);
    check_count("destination_states", call.destination_states, images);
    take_values(request, call.source_states);
  };
  return Computation(ask, [&](Request& request) {
    for_each_input(call, [](const char*, const ImageBatch& batch) { batch.check_usable(); });
    if (call.allocator) return;
    if (call.results == nullptr)
      call.results = call.kernel->device()->make_images(result_descriptor(request));
    request.result() = call.results->operand(name_of_results(call.kernel->kind()));
  });
}

}  // namespace mpsnn_loss
