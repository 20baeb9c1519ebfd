// One piece of work, as data. A LossRequest is what a caller asks for; a LossCall is a request that
// was found valid, and the only thing an engine accepts. It captures every property, and knows no
// engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/backend.hpp"
#include "core/image.hpp"
#include "core/loss_descriptor.hpp"
#include "core/memory_range.hpp"

namespace mpsnn_loss {

enum class Work : std::uint8_t { initial_gradient, loss, gradient, loss_and_gradient };
enum class Wrt : std::uint8_t { predictions, labels };

/// The images a call reads or writes: a batch, or plain host memory of a one-call function.
struct Operand {
  const char* name = "";  // the argument, as the caller knows it
  BatchDescriptor descriptor;
  std::byte* data = nullptr;           // C-contiguous host memory; null where there is none
  std::shared_ptr<ImageBatch> images;  // null for a host array
  bool writable = false;
  bool present = false;

  const Shape& shape() const { return descriptor.shape; }
  explicit operator bool() const { return present; }
  bool has_memory() const { return data != nullptr || images != nullptr; }
  /// Host memory of one image; null where a device keeps it.
  std::byte* image_data(std::int64_t image) const;
};

Operand make_operand(const char* name, std::shared_ptr<ImageBatch> images);
inline Operand make_operand(const char* name, const BatchDescriptor& descriptor, void* data,
                            bool writable) {
  return {name, descriptor, static_cast<std::byte*>(data), nullptr, writable, true};
}

/// Labels as one class index per pixel, instead of a dense batch.
struct ClassIndices {
  const std::int64_t* data = nullptr;
  std::optional<std::int64_t> ignored;  // pixels of this class weigh nothing

  explicit operator bool() const { return data != nullptr; }
};

struct LossRequest {
  Work work = Work::gradient;
  Wrt wrt = Wrt::predictions;
  LossDescriptor descriptor;
  std::shared_ptr<Kernel> kernel;  // what the user encodes with; null in one-call functions
  Operand predictions;
  Operand labels;  // absent with class indices
  ClassIndices class_indices;
  Operand weights;               // optional; each axis that of predictions, or 1
  Operand source_gradients;      // optional; N images, 1x1x1 or (no reduction) of predictions' size
  double source_gradient = 1.0;  // where source_gradients is absent
  Operand loss;                  // written by loss and loss_and_gradient
  bool loss_is_one_value = false;  // across the batch: `loss` holds image 0 alone
  Operand gradient;                // written by gradient, loss_and_gradient and initial_gradient
  bool gradient_like_predictions = false;  // in their format, also where it is by labels
  /// The caller's own memory where it is read but no operand: what was converted or copied into
  /// one, class indices, scalars in arrays. No output may lie there.
  std::vector<std::pair<const char*, MemoryRange>> also_read;
  std::vector<std::shared_ptr<LossState>> source_states;       // none, 1 or N
  std::vector<std::shared_ptr<LossState>> destination_states;  // none, 1 or N
};

/// What is required of a request: shapes, formats, counts, states, writability and no overlap.
/// Throws ValueError, TypeError or StateError, whose words name the argument. Touches no memory of
/// any operand; where there is none yet, the operand has neither data nor images.
void validate(const LossRequest& request);

class LossCall {
 public:
  /// Validates.
  explicit LossCall(LossRequest&& request);
  explicit LossCall(const LossRequest& request) : LossCall(LossRequest(request)) {}

  /// Adds the output of a call that was made without one: images of its own, of the right shape and
  /// format.
  void add_output(Operand output);

  const LossRequest* operator->() const { return &request_; }
  const LossRequest& operator*() const { return request_; }

  /// One entry per image where states carry different values, else empty: the descriptor's hold.
  const std::vector<LossParameters>& image_parameters() const { return image_parameters_; }

 private:
  void resolve_source_states();

  LossRequest request_;
  std::vector<LossParameters> image_parameters_;
};

/// Throws ValueError where the loss has one weight per pixel, and weights with these axes have
/// more.
void check_weight_channels(const char* name, const LossInfo& loss,
                           std::span<const std::int64_t> axes);

/// The format of the gradient: that of what it is taken with respect to, unless the request says
/// otherwise.
Format gradient_format(const LossRequest& request);

/// The shape and format of what a kernel writes.
BatchDescriptor result_descriptor(const LossRequest& request);

/// The shape of a forward result: predictions' own, or one 1x1x1 image per entry.
Shape loss_shape(const LossDescriptor& descriptor, const Shape& predictions);

}  // namespace mpsnn_loss
