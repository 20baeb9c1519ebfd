// One piece of work, as data: what is computed, from which memory into which. A Request is what
// somebody asks for; a Computation is a request that was found valid, and the only thing that an
// engine accepts. Neither knows an engine, an image, a kernel or Python, and neither reads an
// operand.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/loss_descriptor.hpp"
#include "core/memory_range.hpp"
#include "core/shape.hpp"
#include "core/strided_array.hpp"

namespace mpsnn_loss {

enum class Work : std::uint8_t {
  initial_gradient,
  loss,
  gradient,
  loss_and_gradient,
  gradient_and_hessian,
};
enum class Wrt : std::uint8_t { predictions, labels };

/// A batch that is read or written: one array in host memory, or a range of addresses for each
/// image. Where a device keeps the images, ranges only tell whether they overlap. An input that has
/// yet to be converted has no address.
struct Operand {
  const char* name = "";  // the argument, as the caller knows it
  BatchDescriptor descriptor;
  std::byte* data = nullptr;             // element 0 of host memory that `strides` go through
  const MemoryRange* extents = nullptr;  // or one for each image, which lies C-contiguously
  bool writable = false;
  bool on_host = true;
  Strides strides{};  // those of one element; `place` sets all of these at once

  Operand() = default;
  /// One stretch of host memory, C-contiguously.
  Operand(const char* argument, const BatchDescriptor& batch, void* memory, bool is_writable) {
    place(argument, batch, memory, is_writable);
  }
  void place(const char* argument, const BatchDescriptor& batch, void* memory, bool is_writable) {
    name = argument;
    descriptor = batch;
    data = static_cast<std::byte*>(memory);
    extents = nullptr;
    on_host = true;
    writable = is_writable;
    set_contiguous_strides(descriptor.shape, strides);
  }

  const Shape& shape() const { return descriptor.shape; }
  bool is_contiguous() const { return same_axes(strides, contiguous_strides(descriptor.shape)); }
  /// Host memory of one image; null where there is none.
  std::byte* image_data(std::int64_t image) const {
    if (data != nullptr) return data + image * strides[0] * info(descriptor.format).size;
    if (extents == nullptr || !on_host) return nullptr;
    return reinterpret_cast<std::byte*>(extents[image].begin);
  }
};

/// Labels as one class index per pixel, instead of a dense batch.
struct ClassIndices {
  const std::int64_t* data = nullptr;
  std::optional<std::int64_t> ignored = {};  // pixels of this class weigh nothing
};

/// The extents that operands point to are kept by whoever asks.
struct Request {
  Work work = Work::gradient;
  Wrt wrt = Wrt::predictions;
  LossDescriptor descriptor;
  /// Those of each image where they differ, else empty: the descriptor's hold.
  std::vector<LossParameters> image_parameters;
  Operand predictions;
  std::optional<Operand> labels;  // or
  std::optional<ClassIndices> class_indices;
  // What each element weighs is their product. Each axis is that of predictions, or 1.
  std::optional<Operand> weights, sample_weights, class_weights;
  /// N images, 1x1x1 or (no reduction) of predictions' size; or
  std::optional<Operand> source_gradients;
  double uniform_source_gradient = 1.0;
  std::optional<double> divisor;    // instead of the reduction's own
  std::optional<Operand> loss;      // written by loss and loss_and_gradient
  bool loss_is_one_value = false;   // across the batch: `loss` holds image 0 alone
  std::optional<Operand> gradient;  // written by all but loss
  std::optional<Operand> hessian;   // its diagonal, written by gradient_and_hessian
  /// Of the functions: gradients have the format of predictions, also where they are by labels, or
  /// that of what computes with them; and `out` may be the memory of predictions.
  bool by_functions = false;
  /// The caller's own memory where it is no operand: what was converted or copied into one, class
  /// indices, scalars in arrays, and outputs that are copied there in the end. What they point to
  /// is kept by whoever asks.
  struct Elsewhere {
    const char* name;
    MemoryRange range;
    std::optional<StridedArray> array = {};  // of which these are the elements; none: all of it
    bool written = false;
  };
  std::vector<Elsewhere> elsewhere;

  /// Calls f(operand) for each of the weights that is there.
  template <class F>
  void for_each_weights(F f) const {
    for (const auto* operand : {&weights, &sample_weights, &class_weights}) {
      if (*operand) f(**operand);
    }
  }
  bool has_weights() const { return weights || sample_weights || class_weights; }
  /// The only output of a kernel.
  std::optional<Operand>& result() { return work == Work::loss ? loss : gradient; }
  const std::optional<Operand>& result() const { return work == Work::loss ? loss : gradient; }
};

/// A valid request: shapes, formats, counts and writability fit, and no output overlaps anything
/// else. It cannot be changed.
class Computation {
 public:
  /// Throws ValueError or TypeError, whose words name the argument.
  explicit Computation(Request request)
      : Computation([&](Request& own) { own = std::move(request); }, [](Request&) {}) {}
  /// `ask(request)` fills the request where it stays. `complete(request)` runs once the inputs are
  /// known to fit, and before the outputs are looked at: it adds outputs, and the memory of inputs
  /// that have to be made. So nothing is made for a call whose inputs are refused.
  template <std::invocable<Request&> Ask, class Complete>
  Computation(Ask ask, Complete complete) {
    ask(request_);
    check_inputs(request_);
    complete(request_);
    check_outputs(request_);
  }

  const Request* operator->() const { return &request_; }
  const Request& operator*() const { return request_; }

 private:
  static void check_inputs(const Request& request);
  static void check_outputs(const Request& request);

  Request request_;
};

/// Throws ValueError where the loss has one weight per pixel, and weights with these axes have
/// more.
void check_weight_channels(const char* name, const LossInfo& loss, std::int64_t channels,
                           std::span<const std::int64_t> axes);

/// The format of a kernel's gradient: that of what it is taken with respect to.
Format gradient_format(const Request& request);

/// The shape and format of what a kernel writes.
BatchDescriptor result_descriptor(const Request& request);

/// The shape of a forward result: predictions' own, or one 1x1x1 image per entry.
Shape loss_shape(const LossDescriptor& descriptor, const Shape& predictions);

}  // namespace mpsnn_loss
