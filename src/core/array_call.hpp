// From arrays of any rank to a Request: one axis holds the channels, the first of the others (from
// rank 2 on) the batch, and those between are pixels. Every rule about array shapes of the one-call
// functions stands here.
#pragma once

#include <array>
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

/// What an array that belongs to predictions has axes for.
enum class Covers : std::uint8_t {
  everything,  // aligned at the end, 1 where it broadcasts, as NumPy has it
  pixels,      // all axes but that of the channels
  images,      // the batch alone
  channels,    // the channels alone
};

/// The axes of predictions, and how they become [N, H, W, C]: those of pixels merge to two, where
/// all arrays that are read or written in place allow it.
class Folding {
 public:
  static constexpr std::size_t kMostAxes = 64;  // NumPy's limit, and that of buffers
  using PerAxis = std::array<std::int64_t, kMostAxes>;

  /// `axis`: that of the channels; negative ones count from the end. Throws ValueError for one that
  /// does not exist, and for predictions without axes.
  Folding(const char* name, std::span<const std::int64_t> axes, std::int64_t axis);

  std::size_t rank() const { return axes_.size(); }
  std::span<const std::int64_t> axes() const { return axes_; }
  /// Those of pixels and of the batch.
  std::span<const std::int64_t> axes_without_channels() const {
    return {others_.data(), rank() - 1};
  }
  /// Whether there are no elements. Asked before axes are multiplied: those of nothing may be
  /// enormous.
  bool is_empty() const { return is_empty_; }
  std::int64_t channels() const { return axes_[channel_axis_]; }
  std::size_t channel_axis() const { return channel_axis_; }
  std::int64_t images() const { return rank() > 1 ? axes_[batch_axis_] : 1; }

  /// Whether an array in C order with the axes of predictions lies as [N, H, W, C], whatever
  /// merges.
  bool is_channels_last() const { return channel_axis_ + 1 == rank(); }

  /// Which of an array's own axes stands for an axis of predictions; none where it has none.
  std::optional<std::size_t> own_axis(Covers covers, std::size_t own_rank, std::size_t axis) const;

  /// Takes an array with a stride for each axis of predictions, 0 where it broadcasts. False where
  /// axes of pixels would not merge to two: then it has to lie as `packed_order` says.
  bool admit(std::span<const std::int64_t> strides);
  /// The axes of predictions, channels last.
  std::array<std::uint8_t, kMostAxes> packed_order() const;

  // Once all arrays are admitted.
  Shape shape() const;
  Strides fold(std::span<const std::int64_t> strides) const;

 private:
  bool is_pixel_axis(std::size_t axis) const {
    return axis != channel_axis_ && axis != batch_axis_ && axes_[axis] != 1;
  }
  /// Calls f(axis, whether it begins another group) for each axis of pixels that is not 1.
  template <class F>
  void for_each_pixel_axis(F f) const;

  std::span<const std::int64_t> axes_;
  PerAxis others_;
  std::size_t channel_axis_, batch_axis_;
  bool is_empty_ = false;
  std::uint64_t breaks_ = 0;  // axes of pixels that do not merge with the one before
};

/// Throws ValueError unless `array` broadcasts to predictions, with one channel where the loss has
/// one weight per pixel.
void require_broadcast(const ArrayView& weights, const Folding& predictions, const LossInfo& loss);
/// What sample_weight is: of images, or of pixels. Throws ValueError for another shape.
Covers judge_sample_weight(const ArrayView& array, const Folding& predictions);
void require_class_weight(const ArrayView& array, const Folding& predictions, const LossInfo& loss);

/// Throws ValueError unless `array` has exactly `axes`.
void require_axes(const ArrayView& array, std::span<const std::int64_t> axes);

enum class LabelKind { dense, class_indices };
/// What labels of that shape and type are to predictions. Throws ValueError or TypeError that names
/// the mistake.
LabelKind judge_labels(const ArrayView& labels, ElementType type, const Folding& predictions,
                       const LossInfo& loss);

[[noreturn]] void refuse_class_index(const ArrayView& labels, std::int64_t place,
                                     const std::string& index, std::int64_t classes);
/// Throws ValueError naming the position of an index outside [0, classes) that is not `ignored`.
void check_class_indices(const ArrayView& labels, const std::int64_t* indices, std::int64_t classes,
                         std::optional<std::int64_t> ignored);

/// The axes of the loss: those of predictions, or [N], or none at all.
std::span<const std::int64_t> loss_axes(const LossDescriptor& descriptor,
                                        const Folding& predictions);

/// What an array of source gradients has axes for. Throws ValueError where they are not those of
/// the loss.
Covers judge_source_gradient(const LossDescriptor& descriptor, const ArrayView& array,
                             const Folding& predictions);

}  // namespace mpsnn_loss
