// The arguments of an encodeBatch, and the computation that they ask for.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/computation.hpp"
#include "objects/image_batch.hpp"
#include "objects/kernel.hpp"

namespace mpsnn_loss {

/// What makes the images of an encode that is given no destination (MPSImageAllocator).
enum class ResultAllocator { image, temporary_image };

/// One kernel on its images.
struct Encode {
  std::shared_ptr<Kernel> kernel;
  std::shared_ptr<ImageBatch> predictions;
  std::shared_ptr<ImageBatch> labels;                      // null for an initial gradient
  std::shared_ptr<ImageBatch> weights;                     // may be null
  std::shared_ptr<ImageBatch> source_gradients;            // of a gradient
  std::vector<std::shared_ptr<State>> source_states;       // none, 1 or N
  std::vector<std::shared_ptr<State>> destination_states;  // none, 1 or N
  /// Where the results go; null: to images made for them, by the kernel itself where there is an
  /// allocator.
  std::shared_ptr<ImageBatch> results;
  std::optional<ResultAllocator> allocator;
};

/// The argument that takes the results.
const char* name_of_results(KernelKind kind);

/// Calls f(name, images) with each of the inputs that is there.
template <class F>
void for_each_input(const Encode& call, F f) {
  if (call.predictions != nullptr) f("source_images", *call.predictions);
  if (call.labels != nullptr) f("labels", *call.labels);
  if (call.weights != nullptr) f("weights", *call.weights);
  if (call.source_gradients != nullptr) f("source_gradients", *call.source_gradients);
}

/// Calls f(name, images, writes) with each of the inputs and the results that are there, always in
/// this order.
template <class F>
void for_each_argument(const Encode& call, F f) {
  for_each_input(call, [&](const char* name, const ImageBatch& images) { f(name, images, false); });
  if (call.results != nullptr) f(name_of_results(call.kernel->kind()), *call.results, true);
}

/// Throws StateError "<name> must <expectation><device>" for what is of another device.
void check_device(const char* name, const char* expectation, const Device& expected,
                  const Device& given);
/// The same for each argument that is given.
void check_devices(const Encode& call, const Device& device);

/// The computation with the kernel's properties, or those of the source states, as they are now.
/// Makes `call.results`, where neither they nor an allocator are given, once the inputs are known
/// to fit and to have values. Throws ValueError, TypeError or StateError that names the argument.
Computation to_computation(Encode& call);

/// A call that was found valid. It keeps the images, which the computation only points to.
struct EncodedCall {
  explicit EncodedCall(Encode given) : call(std::move(given)), computation(to_computation(call)) {}

  Encode call;
  const Computation computation;
};

}  // namespace mpsnn_loss
