// What the loop of softmax works on: the operands of a row, or of as many rows as a vector has
// lanes, tile by tile, in one of two layouts.
//
// Wide: the lanes of a vector hold neighbouring channels of one row. Narrow, for few channels: they
// hold one channel of neighbouring rows, which are transposed, so that no lane is idle and nothing
// is added across lanes.
#pragma once

#include "cpu/plan.hpp"
#include "cpu/staging.hpp"
#include "cpu/sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Rows of up to so many channels are transposed.
inline constexpr std::int64_t kNarrowChannels = 32;

/// Transposes `rows` rows of `channels` elements: vector c of `to` holds channel c of each row.
/// Reads up to lanes - 1 elements past the last row.
template <class T>
MPSNN_INLINE void rows_to_lanes(const T* from, std::int64_t channels, T* to) {
  using V = Vector<T>;
  constexpr auto width = static_cast<std::int64_t>(lanes<V>);
  for (std::int64_t c = 0; c < channels; c += width) {
    V square[lanes<V>];
    for (std::int64_t r = 0; r < width; ++r) square[r] = load<V>(from + r * channels + c);
    transpose(square);
    for (std::int64_t k = 0; k < width; ++k) store(to + (c + k) * width, square[k]);
  }
}

/// The reverse. Writes up to lanes - 1 elements past the last row.
template <class T>
MPSNN_INLINE void lanes_to_rows(const T* from, std::int64_t channels, T* to) {
  using V = Vector<T>;
  constexpr auto width = static_cast<std::int64_t>(lanes<V>);
  // From the last channels to the first: what is written past a row's end is then overwritten.
  for (std::int64_t c = (channels - 1) / width * width; c >= 0; c -= width) {
    V square[lanes<V>];
    for (std::int64_t k = 0; k < width; ++k) square[k] = load<V>(from + (c + k) * width);
    transpose(square);
    for (std::int64_t r = 0; r < width; ++r) store(to + r * channels + c, square[r]);
  }
}

/// Factors: weights or source gradients differ from channel to channel.
template <class T, bool Narrow, bool Factors>
class SoftmaxOperands {
 public:
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);
  static constexpr std::int64_t kMostRows = Narrow ? kWidth : 1;

  SoftmaxOperands(const Plan& plan, bool by_class)
      : plan_(plan),
        channels_(plan.shape.channels),
        by_class_(by_class),
        has_row_values_(is_weighted(plan) || plan.scale_per_image) {}

 protected:
  struct Operands {
    const T *y = nullptr, *t = nullptr, *v = nullptr, *g = nullptr;  // v, g: null for 1
  };

  /// What holds for whole rows, their weight and the scale of their gradient; of narrow rows all.
  void read(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    rows_ = rows;
    first_ = pixel * channels_;
    live_ = Narrow ? first_lanes<V>(static_cast<std::size_t>(rows)) : ~Mask<V>{};
    row_weight_ = select<V>(live_, broadcast<V>(1), V{});
    scale_ = row_weight_ * (plan_.want_gradient ? static_cast<T>(plan_.gradient_scales[0]) : T(0));
    if (has_row_values_) read_row_values();
    if constexpr (Narrow) read_narrow();
    if constexpr (Factors) find_weightless();
    alive_ = row_weight_ != V{};
  }

  /// Calls body(first element of the rows, count, operands) for each tile of them.
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_tile(bool labels_too, Body body) {
    if constexpr (Narrow) {
      body(std::int64_t{0}, channels_ * kWidth, narrow_);
    } else {
      for (std::int64_t c = 0; c < channels_; c += kTileElements) {
        const std::int64_t rest = channels_ - c,
                           count = rest < kTileElements ? rest : kTileElements;
        const std::int64_t first = first_ + c;
        Operands in;
        in.y = stage(plan_.predictions, plan_.shape, first, count, y_);
        if (labels_too && !by_class_) in.t = stage_labels(plan_, first, count, t_);
        if constexpr (Factors) {
          in.v = stage_weights(plan_, first, count, v_);
          if (plan_.source_gradients.data != nullptr)
            in.g = stage(plan_.source_gradients, plan_.shape, first, count, g_);
        }
        body(c, count, in);
      }
    }
  }

  /// Calls body(index, load, store, live lanes) along a tile, the last time with the lanes that are
  /// left.
  template <class Body>
  MPSNN_INLINE void walk(std::int64_t count, Body body, std::int64_t from = 0) {
    const auto whole_load = [](const T* at) { return load<V>(at); };
    const auto whole_store = [](T* to, V x) { store<V>(to, x); };
    std::int64_t i = from;
    for (; i + kWidth <= count; i += kWidth) body(i, whole_load, whole_store, ~Mask<V>{});
    if constexpr (!Narrow) {
      if (i >= count) return;
      const auto rest = static_cast<std::size_t>(count - i);
      body(
          i, [rest](const T* at) MPSNN_INLINE_LAMBDA { return load_first<V>(at, rest); },
          [rest](T* to, V x) MPSNN_INLINE_LAMBDA { store_first<V>(to, x, rest); },
          first_lanes<V>(rest));
    }
  }

  /// g v of one vector of channels times `factor`; 0 where v is 0.
  template <class Load>
  MPSNN_INLINE_MEMBER V with_factors(V factor, const Operands& in, std::int64_t i,
                                     Load load_at) const {
    if constexpr (Factors) {
      if (in.g != nullptr) factor = factor * load_at(in.g + i);
      if (in.v != nullptr) {
        const V v = load_at(in.v + i);
        factor = select<V>(v == V{}, V{}, factor * v);
      }
    }
    return factor;
  }

  /// The class of a row; -1 where the row is ignored, or is none.
  std::int64_t class_of(std::int64_t row) const {
    const std::int64_t index = read_class(plan_, pixel_ + row);
    const bool ignored = plan_.has_ignored_class && index == plan_.ignored_class;
    return ignored || index < 0 || index >= channels_ ? -1 : index;
  }

  /// A sum over the lanes of a wide row, in every lane.
  MPSNN_INLINE V across(V v) {
    if constexpr (Narrow) {
      return v;
    } else {
      return broadcast<V>(sum_of_lanes(v));
    }
  }

  const Plan& plan_;
  const std::int64_t channels_;
  const bool by_class_;                            // class indices are used as they are
  std::int64_t pixel_ = 0, rows_ = 0, first_ = 0;  // first_: element of the first row's channel 0
  Mask<V> live_{}, alive_{};  // lanes with a row; with one that weighs something
  V row_weight_{}, scale_{};  // v and g ω v / D of each row

 private:
  void read_row_values() {
    T weights[lanes<V>] = {}, scales[lanes<V>] = {};
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t image = plan_.scale_per_image ? (pixel_ + r) / plan_.image_units : 0;
      weights[r] = row_weight(pixel_ + r);
      if (weights[r] == T(0) || !plan_.want_gradient) continue;
      scales[r] = static_cast<T>(static_cast<double>(weights[r]) * plan_.gradient_scales[image]);
    }
    if constexpr (Narrow) {
      row_weight_ = load<V>(weights);
      scale_ = load<V>(scales);
    } else {
      row_weight_ = broadcast<V>(weights[0]);
      scale_ = broadcast<V>(scales[0]);
    }
  }

  /// v of a row where it is one value; 1 where it differs from channel to channel.
  T row_weight(std::int64_t pixel) const {
    if (plan_.has_ignored_class && plan_.class_indices[pixel] == plan_.ignored_class) return T(0);
    if (Factors || plan_.weights.data == nullptr) return T(1);
    return read_element<T>(plan_.weights.data, plan_.weights.format,
                           PixelWalk(plan_.weights, plan_.shape, pixel).offset());
  }

  /// Rows whose v is 0 in every channel weigh nothing.
  void find_weightless() {
    V any{};
    for_each_tile(
        true, [&](std::int64_t, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
          if (in.v == nullptr) {
            any = broadcast<V>(1);
            return;
          }
          walk(count, [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
            const V v = load_at(in.v + i);
            any = select<V>(live & (v != V{}), broadcast<V>(1), any);
          });
        });
    if constexpr (!Narrow) {
      T found = 0;
      for (std::int64_t i = 0; i < kWidth; ++i) found = any[i] != T(0) ? T(1) : found;
      any = broadcast<V>(found);
    }
    row_weight_ = select<V>(any == V{}, V{}, row_weight_);
    scale_ = select<V>(any == V{}, V{}, scale_);
  }

  /// All operands of narrow rows, with rows in lanes.
  void read_narrow() {
    const std::int64_t count = rows_ * channels_;
    const auto turn = [&](const T* from, T* to) {
      if (from == nullptr) return static_cast<const T*>(nullptr);
      // Whole squares are read, up to lanes - 1 elements past the rows.
      const bool inside = first_ + count + kWidth <= plan_.shape.elements();
      T padded[kTileElements];
      if (rows_ < kWidth || !inside) {
        const std::int64_t all = (channels_ + 1) * kWidth;
        for (std::int64_t i = 0; i < count; ++i) padded[i] = from[i];
        for (std::int64_t i = count; i < all; ++i) padded[i] = T(0);
        from = padded;
      } else {
        prefetch(from + 2 * count, count);
      }
      rows_to_lanes(from, channels_, to);
      return static_cast<const T*>(to);
    };
    T staged[kTileElements];
    narrow_.y = turn(stage(plan_.predictions, plan_.shape, first_, count, staged), y_);
    if (!by_class_) narrow_.t = turn(stage_labels(plan_, first_, count, staged), t_);
    if constexpr (Factors) {
      narrow_.v = turn(stage_weights(plan_, first_, count, staged), v_);
      if (plan_.source_gradients.data != nullptr)
        narrow_.g = turn(stage(plan_.source_gradients, plan_.shape, first_, count, staged), g_);
    }
  }

  const bool has_row_values_;  // weights or scales differ from row to row
  Operands narrow_;
  T y_[kTileElements], t_[kTileElements], v_[kTileElements], g_[kTileElements];
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
