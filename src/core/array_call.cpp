#include "core/array_call.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <vector>

#include "core/element.hpp"
#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

using Axes = std::span<const std::int64_t>;

std::string text(Axes axes) { return to_string(axes.data(), axes.size()); }

/// Of axes that are not empty; the largest number where it is beyond that.
std::int64_t product(Axes axes) {
  std::int64_t result = 1;
  for (const std::int64_t axis : axes) {
    if (__builtin_mul_overflow(result, axis, &result))
      return std::numeric_limits<std::int64_t>::max();
  }
  return result;
}

/// The size of `weights` at axis `i` of predictions, right-aligned as NumPy broadcasts.
std::int64_t aligned_axis(Axes weights, Axes predictions, std::size_t i) {
  const std::size_t missing = predictions.size() - weights.size();
  return i < missing ? 1 : weights[i - missing];
}

void require_broadcast(const ArrayView& weights, Axes predictions, const LossInfo& loss) {
  bool fits = weights.axes.size() <= predictions.size();
  for (std::size_t i = 0; fits && i < predictions.size(); ++i) {
    const std::int64_t axis = aligned_axis(weights.axes, predictions, i);
    fits = axis == predictions[i] || axis == 1;
  }
  if (!fits) {
    throw ValueError(
        refusal(weights.name, "broadcast to shape " + text(predictions), text(weights.axes)));
  }
  check_weight_channels(weights.name, loss, weights.axes);
}

std::string position(Axes axes, std::int64_t flat) {
  std::string result;
  for (std::size_t i = axes.size(); i-- > 0;) {
    result = std::to_string(flat % axes[i]) + (result.empty() ? "" : ", ") + result;
    flat /= axes[i];
  }
  return "[" + result + "]";
}

}  // namespace

Folded fold(const ArrayView& predictions, Format format, const ArrayView* weights,
            const LossInfo& loss) {
  const Axes axes = predictions.axes;
  const std::size_t rank = axes.size();
  if (rank == 0) throw ValueError(refusal(predictions.name, "have at least 1 axis", "shape ()"));
  if (weights != nullptr) require_broadcast(*weights, axes, loss);
  if (is_empty(axes)) return {{rank > 1 ? axes[0] : 1, 1, 1, 0}, {}, true};
  const auto weight_axis = [&](std::size_t i) {
    return weights != nullptr ? aligned_axis(weights->axes, axes, i) : 1;
  };
  // Neighbouring pixel axes merge while the weights broadcast along all of them, or along none.
  std::array<std::int64_t, 2> pixels{1, 1}, weight_pixels{1, 1};
  std::size_t groups = 0;
  bool fits = true;
  for (std::size_t i = 1; i + 1 < rank; ++i) {
    const bool broadcasts = weight_axis(i) != axes[i];
    if (axes[i] == 1) continue;
    if (groups > 0 && broadcasts == (weight_pixels[groups - 1] != pixels[groups - 1])) {
      pixels[groups - 1] = product(std::array{pixels[groups - 1], axes[i]});
      weight_pixels[groups - 1] = product(std::array{weight_pixels[groups - 1], weight_axis(i)});
    } else if (groups < 2) {
      pixels[groups] = axes[i];
      weight_pixels[groups] = weight_axis(i);
      ++groups;
    } else {
      fits = false;
    }
  }
  Folded folded;
  folded.weights_fit = fits;
  const std::int64_t all_pixels = rank > 2 ? product(axes.subspan(1, rank - 2)) : 1;
  if (!fits) pixels = {all_pixels, 1};
  folded.predictions = {rank > 1 ? axes[0] : 1, pixels[0], pixels[1], axes[rank - 1]};
  folded.weights = {rank > 1 ? weight_axis(0) : 1, weight_pixels[0], weight_pixels[1],
                    weight_axis(rank - 1)};
  if (!fits) {  // the pixels of the weights are to be expanded, and nothing else
    folded.weights.height = all_pixels;
    folded.weights.width = 1;
  }
  check_shape(predictions.name, {folded.predictions, format});
  return folded;
}

void require_axes(const ArrayView& array, Axes axes) {
  if (std::equal(axes.begin(), axes.end(), array.axes.begin(), array.axes.end())) return;
  throw ValueError(refusal(array.name, "have shape " + text(axes), text(array.axes)));
}

bool is_empty(Axes axes) { return std::ranges::find(axes, 0) != axes.end(); }

LabelKind judge_labels(const ArrayView& labels, ElementType type, Axes predictions,
                       const LossInfo& loss) {
  const Axes pixels = predictions.first(predictions.size() - 1);
  const auto has_axes = [&](Axes axes) { return std::ranges::equal(labels.axes, axes); };
  if (has_axes(predictions)) return LabelKind::dense;
  if (loss.takes_class_indices && has_axes(pixels) && is_integer(type))
    return LabelKind::class_indices;
  const std::string given = name_of(type) + (" of shape " + text(labels.axes));
  const std::string dense = "have shape " + text(predictions);
  if (!loss.takes_class_indices) {
    const char* const why =
        has_axes(pixels) && is_integer(type) ? ", as this loss takes no class indices" : "";
    throw ValueError(refusal(labels.name, dense + why, given));
  }
  if (has_axes(pixels)) {
    throw TypeError(
        refusal(labels.name, "hold integers where they are class indices, or " + dense, given));
  }
  const bool has_channel_of_1 = labels.axes.size() == predictions.size() &&
                                labels.axes.back() == 1 &&
                                std::ranges::equal(labels.axes.first(pixels.size()), pixels);
  throw ValueError(refusal(labels.name,
                           dense + ", or " + text(pixels) + " where they are class indices" +
                               (has_channel_of_1 ? ", without a channel axis" : ""),
                           given));
}

void refuse_class_index(const ArrayView& labels, std::int64_t place, const std::string& index,
                        std::int64_t classes) {
  throw ValueError(labels.name + position(labels.axes, place) + " is " + index +
                   ", but class indices must be in [0, " + std::to_string(classes) +
                   ") or equal to ignore_index");
}

void check_class_indices(const ArrayView& labels, const std::int64_t* indices, std::int64_t classes,
                         std::optional<std::int64_t> ignored) {
  const std::int64_t count = product(labels.axes);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t index = indices[i];
    if ((index >= 0 && index < classes) || index == ignored) continue;
    refuse_class_index(labels, i, std::to_string(index), classes);
  }
}

Axes loss_axes(const LossDescriptor& descriptor, Axes axes) {
  static constexpr std::array<std::int64_t, 1> kOneImage{1};
  if (!descriptor.reduces()) return axes;
  if (descriptor.reduce_across_batch) return {};
  return axes.size() > 1 ? axes.first(1) : Axes(kOneImage);
}

Shape source_gradient_shape(const Request& request, const ArrayView& array, Axes prediction_axes) {
  const Axes expected = loss_axes(request.descriptor, prediction_axes);
  if (!std::ranges::equal(expected, array.axes)) {
    throw ValueError(refusal(array.name,
                             expected.empty() ? std::string("be a scalar")
                                              : "be a scalar or have shape " + text(expected),
                             "shape " + text(array.axes)));
  }
  const Shape& shape = request.predictions.shape();
  return request.descriptor.reduces() ? reduced(shape) : shape;
}

}  // namespace mpsnn_loss
