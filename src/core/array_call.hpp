// From arrays of any rank to a Request: the last axis is the channels, the first (from rank 2
// on) the batch, all between are pixels. Every rule about array shapes of the one-call functions
// stands here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/computation.hpp"
#include "core/shape.hpp"
#include "core/strided_array.hpp"

namespace mpsnn_loss {

/// What the rules ask of an array.
struct ArrayView {
  const char* name = "";
  std::span<const std::int64_t> axes;
};

/// Predictions and weights as batches of the same rank-4 layout.
struct Folded {
  Shape predictions;
  Shape weights;
  bool weights_fit = true;  // false: no rank-4 shape broadcasts alike, expand their pixels first
};

/// Folds the axes of predictions to [N, H, W, C] and those of weights (may be null: scalar or
/// absent) alike; to [N, 1, 1, 0] where an axis is empty. `format`: of the predictions. Throws
/// ValueError where predictions have rank 0 or weights do not broadcast to them.
Folded fold(const ArrayView& predictions, Format format, const ArrayView* weights,
            const LossInfo& loss);

/// Throws ValueError unless `array` has exactly `axes`.
void require_axes(const ArrayView& array, std::span<const std::int64_t> axes);

/// Whether there are no elements. Asked before axes are multiplied: those of nothing may be
/// enormous.
bool is_empty(std::span<const std::int64_t> axes);

enum class LabelKind { dense, class_indices };
/// What labels of that shape and type are to predictions with those axes. Throws ValueError or
/// TypeError that names the mistake.
LabelKind judge_labels(const ArrayView& labels, ElementType type,
                       std::span<const std::int64_t> predictions, const LossInfo& loss);

[[noreturn]] void refuse_class_index(const ArrayView& labels, std::int64_t place,
                                     const std::string& index, std::int64_t classes);
/// Throws ValueError naming the position of an index outside [0, classes) that is not `ignored`.
void check_class_indices(const ArrayView& labels, const std::int64_t* indices, std::int64_t classes,
                         std::optional<std::int64_t> ignored);

/// The axes of the loss of predictions with `axes`: theirs, or [N], or none at all.
std::span<const std::int64_t> loss_axes(const LossDescriptor& descriptor,
                                        std::span<const std::int64_t> axes);

/// The shape of an array of source gradients, as an operand of a request that has its predictions.
/// Throws ValueError where it is not that of the loss.
Shape source_gradient_shape(const Request& request, const ArrayView& array,
                            std::span<const std::int64_t> prediction_axes);

}  // namespace mpsnn_loss
