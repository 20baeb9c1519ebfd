#include "core/array_call.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

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

std::string position(Axes axes, std::int64_t flat) {
  std::string result;
  for (std::size_t i = axes.size(); i-- > 0;) {
    result = std::to_string(flat % axes[i]) + (result.empty() ? "" : ", ") + result;
    flat /= axes[i];
  }
  return "[" + result + "]";
}

}  // namespace

Folding::Folding(const char* name, Axes axes, std::int64_t axis) : axes_(axes) {
  const auto rank = static_cast<std::int64_t>(axes_.size());
  if (rank == 0)
    throw_made([=] { return ValueError(refusal(name, "have at least 1 axis", "shape ()")); });
  if (axis < -rank || axis >= rank) {
    throw_made([=] {
      return ValueError(refusal("axis",
                                "be in [" + std::to_string(-rank) + ", " + std::to_string(rank) +
                                    ") for " + name + " of shape " + text(axes),
                                std::to_string(axis)));
    });
  }
  channel_axis_ = static_cast<std::size_t>(axis < 0 ? axis + rank : axis);
  batch_axis_ = rank == 1 ? kMostAxes : channel_axis_ == 0 ? 1 : 0;
  for (std::size_t i = 0, next = 0; i < axes_.size(); ++i) {
    if (i != channel_axis_) others_[next++] = axes_[i];
    is_empty_ = is_empty_ || axes_[i] == 0;
  }
}

std::optional<std::size_t> Folding::own_axis(Covers covers, std::size_t own_rank,
                                             std::size_t axis) const {
  switch (covers) {
    case Covers::everything: {
      const std::size_t missing = rank() - own_rank;
      return axis < missing ? std::nullopt : std::optional(axis - missing);
    }
    case Covers::pixels:
      if (axis == channel_axis_) return std::nullopt;
      return axis < channel_axis_ ? axis : axis - 1;
    case Covers::images: return axis == batch_axis_ ? std::optional<std::size_t>(0) : std::nullopt;
    case Covers::channels:
      return axis == channel_axis_ ? std::optional<std::size_t>(0) : std::nullopt;
  }
  return std::nullopt;
}

template <class F>
void Folding::for_each_pixel_axis(F f) const {
  for (std::size_t i = 0; i < rank(); ++i) {
    if (is_pixel_axis(i)) f(i, (breaks_ >> i & 1) != 0);
  }
}

bool Folding::admit(Axes strides) {
  std::uint64_t breaks = breaks_;
  std::optional<std::size_t> before;
  for_each_pixel_axis([&](std::size_t i, bool) {
    if (before && strides[*before] != strides[i] * axes_[i]) breaks |= std::uint64_t{1} << i;
    before = i;
  });
  if ((breaks & (breaks - 1)) != 0) return false;  // more than one
  breaks_ = breaks;
  return true;
}

std::array<std::uint8_t, Folding::kMostAxes> Folding::packed_order() const {
  std::array<std::uint8_t, kMostAxes> order;
  std::size_t next = 0;
  for (std::size_t i = 0; i < rank(); ++i) {
    if (i != channel_axis_) order[next++] = static_cast<std::uint8_t>(i);
  }
  order[next] = static_cast<std::uint8_t>(channel_axis_);
  return order;
}

Shape Folding::shape() const {
  if (is_empty_) return {images(), 1, 1, 0};
  std::array<std::int64_t, 2> pixels{1, 1};
  std::size_t group = 0;
  for_each_pixel_axis([&](std::size_t i, bool begins) {
    group += begins ? 1 : 0;
    pixels[group] = product(std::array{pixels[group], axes_[i]});
  });
  return {images(), pixels[0], pixels[1], channels()};
}

Strides Folding::fold(Axes strides) const {
  Strides folded{};
  std::size_t group = 1;
  for_each_pixel_axis([&](std::size_t i, bool begins) {
    group += begins ? 1 : 0;
    folded[group] = strides[i];  // of the innermost axis that has merged
  });
  if (rank() > 1 && images() != 1) folded[0] = strides[batch_axis_];
  if (channels() != 1) folded[3] = strides[channel_axis_];
  return folded;
}

void require_broadcast(const ArrayView& weights, const Folding& predictions, const LossInfo& loss) {
  const Axes full = predictions.axes();
  bool fits = weights.axes.size() <= full.size();
  for (std::size_t i = 0; fits && i < full.size(); ++i) {
    const auto own = predictions.own_axis(Covers::everything, weights.axes.size(), i);
    fits = !own || weights.axes[*own] == full[i] || weights.axes[*own] == 1;
  }
  if (!fits) {
    const bool one_per_image = same_axes(weights.axes, std::array{predictions.images()});
    throw ValueError(refusal(weights.name,
                             "broadcast to shape " + text(full) +
                                 (one_per_image ? "; pass sample_weight for one per image" : ""),
                             text(weights.axes)));
  }
  const auto own =
      predictions.own_axis(Covers::everything, weights.axes.size(), predictions.channel_axis());
  const std::int64_t channels = own ? weights.axes[*own] : 1;
  check_weight_channels(weights.name, loss, channels, weights.axes);
}

Covers judge_sample_weight(const ArrayView& array, const Folding& predictions) {
  const Axes pixels = predictions.axes_without_channels();
  if (same_axes(array.axes, pixels)) return Covers::pixels;
  const bool is_one_image = predictions.rank() == 1;
  if (same_axes(array.axes, std::array{predictions.images()})) return Covers::images;
  const bool is_of_classes = same_axes(array.axes, std::array{predictions.channels()});
  const std::string of_images = text(std::array{predictions.images()});
  throw ValueError(refusal(array.name,
                           "have shape " +
                               (is_one_image              ? "() or (1,)"
                                : predictions.rank() == 2 ? of_images
                                                          : of_images + " or " + text(pixels)) +
                               (is_of_classes ? "; pass class_weight for one per class" : ""),
                           text(array.axes)));
}

void require_class_weight(const ArrayView& array, const Folding& predictions,
                          const LossInfo& loss) {
  if (loss.one_weight_per_pixel)
    throw ValueError(array.name + (std::string(" must be None for ") + loss.name) +
                     ", which has one weight per pixel");
  const std::array classes{predictions.channels()};
  if (same_axes(array.axes, classes)) return;
  const bool is_of_images = same_axes(array.axes, std::array{predictions.images()});
  throw ValueError(refusal(array.name,
                           "have shape " + text(classes) +
                               (is_of_images ? "; pass sample_weight for one per image" : ""),
                           text(array.axes)));
}

void require_axes(const ArrayView& array, Axes axes) {
  if (same_axes(axes, array.axes)) return;
  throw_made([&] {
    return ValueError(refusal(array.name, "have shape " + text(axes), text(array.axes)));
  });
}

[[noreturn, gnu::cold]] static void refuse_labels(const ArrayView& labels, ElementType type,
                                                  const Folding& predictions,
                                                  const LossInfo& loss) {
  const Axes pixels = predictions.axes_without_channels();
  const auto has_axes = [&](Axes axes) { return same_axes(labels.axes, axes); };
  const std::string given = name_of(type) + (" of shape " + text(labels.axes));
  const std::string dense = "have shape " + text(predictions.axes());
  if (!loss.takes_class_indices) {
    const char* const why =
        has_axes(pixels) && is_integer(type) ? ", as this loss takes no class indices" : "";
    throw ValueError(refusal(labels.name, dense + why, given));
  }
  if (has_axes(pixels)) {
    throw TypeError(
        refusal(labels.name, "hold integers where they are class indices, or " + dense, given));
  }
  bool has_channel_of_1 = labels.axes.size() == predictions.rank();
  for (std::size_t i = 0; has_channel_of_1 && i < predictions.rank(); ++i)
    has_channel_of_1 =
        labels.axes[i] == (i == predictions.channel_axis() ? 1 : predictions.axes()[i]);
  throw ValueError(refusal(labels.name,
                           dense + ", or " + text(pixels) + " where they are class indices" +
                               (has_channel_of_1 ? ", without a channel axis" : ""),
                           given));
}

LabelKind judge_labels(const ArrayView& labels, ElementType type, const Folding& predictions,
                       const LossInfo& loss) {
  if (same_axes(labels.axes, predictions.axes())) return LabelKind::dense;
  if (loss.takes_class_indices && is_integer(type) &&
      same_axes(labels.axes, predictions.axes_without_channels())) {
    return LabelKind::class_indices;
  }
  refuse_labels(labels, type, predictions, loss);
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

Axes loss_axes(const LossDescriptor& descriptor, const Folding& predictions) {
  static constexpr std::array<std::int64_t, 1> kOneImage{1};
  if (!descriptor.reduces()) return predictions.axes();
  if (descriptor.reduce_across_batch) return {};
  const Axes others = predictions.axes_without_channels();
  return others.empty() ? Axes(kOneImage) : others.first(1);
}

Covers judge_source_gradient(const LossDescriptor& descriptor, const ArrayView& array,
                             const Folding& predictions) {
  const Axes expected = loss_axes(descriptor, predictions);
  if (!same_axes(expected, array.axes)) {
    throw ValueError(refusal(array.name,
                             expected.empty() ? std::string("be a scalar")
                                              : "be a scalar or have shape " + text(expected),
                             "shape " + text(array.axes)));
  }
  return descriptor.reduces() ? Covers::images : Covers::everything;
}

}  // namespace mpsnn_loss
