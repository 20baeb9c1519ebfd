// What the loop of softmax works on: the operands of a long row tile by tile, or of as many short
// rows as one tile has room for. What there is one of per row is then computed for a group of rows
// at once, as many as a vector has lanes. A pass goes along strands: a strand is a row, or in
// planes a group of rows side by side.
#pragma once

#include "cpu/plan.hpp"
#include "cpu/staging.hpp"
#include "cpu/sums.hpp"
#include "cpu/transpose.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// What the loop works in, which would be too much for a small stack.
template <class T, RowLayout layout>
struct SoftmaxRoom {
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<Vector<T>>);
  static constexpr bool kLong = layout == RowLayout::long_row,
                        kPlanes = layout == RowLayout::planes;
  struct alignas(Vector<T>) Planes {
    T elements[kPlanes ? kTileElements + kWidth * kWidth : 1];
  };

  TileRooms<T> tiles;
  Planes y, t, v, g, gradients;
  alignas(Vector<T>) T exponentials[kLong ? 1 : kTileElements + kWidth];
  WriterRoom<T> losses_out, gradients_out;
};

/// Factors: weights or source gradients differ from channel to channel.
template <class T, RowLayout layout, bool Factors>
class SoftmaxOperands {
 public:
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);
  static constexpr bool kLong = layout == RowLayout::long_row,
                        kPlanes = layout == RowLayout::planes;

  using Room = SoftmaxRoom<T, layout>;

  SoftmaxOperands(const Plan& plan, bool by_class, Room& room)
      : plan_(plan),
        room_(room),
        channels_(plan.shape.channels),
        by_class_(by_class),
        weighted_(is_weighted(plan)) {}

  /// Rows to take at a time: whole groups of lanes where there is room for one.
  std::int64_t most_rows() const {
    if constexpr (kLong) return 1;
    const std::int64_t fit = kTileElements / channels_;
    return fit < kWidth ? fit : fit < kMostRows ? fit / kWidth * kWidth : kMostRows;
  }

 protected:
  static constexpr std::int64_t kMostRows = kLong ? 1 : (kPlanes ? 16 : 4) * kWidth;

  struct Operands {
    const T *y = nullptr, *t = nullptr, *v = nullptr, *g = nullptr;  // v, g: null for 1
  };

  /// One value for each row, by group of lanes or by row. That of a long row is in every lane.
  class PerRow {
   public:
    MPSNN_INLINE_MEMBER V group(std::int64_t g) const { return load<V>(values_ + g * kWidth); }
    MPSNN_INLINE_MEMBER void set_group(std::int64_t g, V v) { store(values_ + g * kWidth, v); }
    MPSNN_INLINE_MEMBER T operator[](std::int64_t row) const { return values_[row]; }
    /// For the lanes of a strand.
    MPSNN_INLINE_MEMBER V in_lanes(std::int64_t strand) const {
      return kPlanes ? group(strand) : broadcast<V>(values_[strand]);
    }
    MPSNN_INLINE_MEMBER void set(std::int64_t row, T x) { values_[row] = x; }
    T* data() { return values_; }

   private:
    alignas(V) T values_[kLong ? kWidth : kMostRows];
  };

  /// Calls body(group) for each group of rows.
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_group(Body body) const {
    for (std::int64_t g = 0; g * kWidth < rows_; ++g) body(g);
  }
  /// The lanes of a group that have a row.
  MPSNN_INLINE_MEMBER Mask<V> with_row(std::int64_t g) const {
    if constexpr (kLong) return ~Mask<V>{};
    return first_lanes<V>(static_cast<std::size_t>(rows_ - g * kWidth));
  }

  /// What holds for whole rows, their weight and the scale of their gradient; of short rows all.
  void read(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    rows_ = rows;
    first_ = pixel * channels_;
    const T scale = plan_.want_gradient ? static_cast<T>(plan_.gradient_scales[0]) : T(0);
    for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
      const V weight = select<V>(with_row(g), broadcast<V>(1), V{});
      row_weight_.set_group(g, weight);
      scale_.set_group(g, weight * scale);
    });
    if (weighted_ || plan_.scale_per_image) read_row_values();
    if constexpr (!kLong) in_ = read_tile(first_, rows_ * channels_, true);
    if constexpr (kPlanes) in_ = side_by_side(in_);
    if (Factors && weighted_) find_weightless();
  }

  std::int64_t strands() const { return kPlanes ? (rows_ + kWidth - 1) / kWidth : rows_; }
  /// Of short rows.
  std::int64_t strand_elements() const { return kPlanes ? kWidth * channels_ : channels_; }

  /// The tiles of strands. A local copy of it stays in registers.
  class Tiles {
   public:
    Tiles(SoftmaxOperands& rows, bool labels_too)
        : rows_(rows), labels_too_(labels_too), elements_(rows.strand_elements()), in_(rows.in_) {}

    /// Calls body(first element, count, operands) for each tile of a strand.
    template <class Body>
    MPSNN_INLINE_MEMBER void for_each(std::int64_t strand, Body body) const {
      if constexpr (!kLong) {
        const std::int64_t at = strand * elements_;
        const auto of_row = [at](const T* of_rows) {
          return of_rows == nullptr ? nullptr : of_rows + at;
        };
        body(std::int64_t{0}, elements_,
             Operands{of_row(in_.y), of_row(in_.t), of_row(in_.v), of_row(in_.g)});
      } else {
        for (std::int64_t c = 0; c < elements_; c += kTileElements) {
          const std::int64_t rest = elements_ - c,
                             count = rest < kTileElements ? rest : kTileElements;
          body(c, count, rows_.read_tile(rows_.first_ + c, count, labels_too_));
        }
      }
    }

   private:
    SoftmaxOperands& rows_;
    bool labels_too_;
    std::int64_t elements_;
    Operands in_;
  };

  /// Calls body(index, load, store, live lanes) along a tile, the last time with the lanes that are
  /// left; `spill`: more of them may be stored.
  template <class Body>
  MPSNN_INLINE void walk(std::int64_t count, Body body, std::int64_t from = 0, bool spill = false) {
    const auto whole_load = [](const T* at) { return load<V>(at); };
    const auto whole_store = [](T* to, V x) { store<V>(to, x); };
    const std::int64_t whole = count & -kWidth;
    for (std::int64_t i = from; i < whole; i += kWidth)
      body(i, whole_load, whole_store, ~Mask<V>{});
    if (kPlanes || whole == count) return;
    const auto rest = static_cast<std::size_t>(count - whole);
    body(
        whole, [rest](const T* at) MPSNN_INLINE_LAMBDA { return load_first<V>(at, rest); },
        [rest, spill](T* to, V x)
            MPSNN_INLINE_LAMBDA { spill ? store<V>(to, x) : store_first<V>(to, x, rest); },
        first_lanes<V>(rest));
  }

  /// The vector that partial(strand) makes of each strand, combined to one value for each row.
  template <class Combine, class Partial>
  MPSNN_INLINE_MEMBER void fold_rows(PerRow& result, Combine combine, Partial partial) const {
    for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
      if constexpr (layout == RowLayout::short_rows) {
        Square<V> square;
        for_each_row_of(g, square, [&](std::int64_t row, V& of_row) MPSNN_INLINE_LAMBDA {
          of_row = partial(row);
        });
        result.set_group(g, fold_square<V>(square, combine));
      } else {
        const V folded = partial(g);
        result.set_group(g, kPlanes ? folded : broadcast<V>(fold_lanes(folded, combine)));
      }
    });
  }

  /// Calls body(row, vector) for each row of a group and clears the vectors without a row.
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_row_of(std::int64_t g, Square<V>& vectors, Body body) const {
    const std::int64_t first = g * kWidth, count = rows_ - first < kWidth ? rows_ - first : kWidth;
    for (std::int64_t r = 0; r < count; ++r) body(first + r, vectors[r]);
    for (std::int64_t r = count; r < kWidth; ++r) vectors[r] = V{};
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

  const Plan& plan_;
  Room& room_;
  const std::int64_t channels_;
  const bool by_class_;                            // class indices are used as they are
  std::int64_t pixel_ = 0, rows_ = 0, first_ = 0;  // first_: element of the first row's channel 0
  const bool weighted_;                            // rows may weigh nothing
  PerRow row_weight_, scale_;                      // v and g ω v / D
  Operands in_;                                    // of short rows

 private:
  /// v of rows where it is one value, 1 where it differs from channel to channel; and what it makes
  /// of their scales.
  void read_row_values() {
    if (!Factors && plan_.weights.data != nullptr)
      stage_pixels(plan_.weights, plan_.shape, pixel_, rows_, row_weight_.data());
    if (plan_.has_ignored_class) {
      for (std::int64_t r = 0; r < rows_; ++r) {
        if (plan_.class_indices[pixel_ + r] == plan_.ignored_class) row_weight_.set(r, T(0));
      }
    }
    for (std::int64_t r = 0; plan_.want_gradient && r < rows_; ++r) {
      const std::int64_t image = plan_.scale_per_image ? (pixel_ + r) / plan_.image_units : 0;
      const double scale = static_cast<double>(row_weight_[r]) * plan_.gradient_scales[image];
      scale_.set(r, row_weight_[r] == T(0) ? T(0) : static_cast<T>(scale));
    }
    if constexpr (kLong) {
      row_weight_.set_group(0, row_weight_.in_lanes(0));
      scale_.set_group(0, scale_.in_lanes(0));
    }
  }

  /// Rows whose v is 0 in every channel weigh nothing.
  void find_weightless() {
    PerRow any;
    const Tiles tiles(*this, true);
    fold_rows(any, Larger(), [&](std::int64_t strand) MPSNN_INLINE_LAMBDA {
      V found{};
      tiles.for_each(
          strand, [&](std::int64_t, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
            V here{};  // stays in a register
            walk(count, [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
              here = select<V>(live & (load_at(in.v + i) != V{}), broadcast<V>(1), here);
            });
            found = larger(found, here);
          });
      return found;
    });
    for_each_group([&](std::int64_t g) {
      const Mask<V> none = any.group(g) == V{};
      row_weight_.set_group(g, select<V>(none, V{}, row_weight_.group(g)));
      scale_.set_group(g, select<V>(none, V{}, scale_.group(g)));
    });
  }

  Operands read_tile(std::int64_t first, std::int64_t count, bool labels_too) {
    Operands in;
    in.y = stage(plan_.predictions, plan_.shape, first, count, room_.tiles.y);
    const bool makes_planes = kPlanes && plan_.class_indices != nullptr;
    if (labels_too && !by_class_ && !makes_planes)
      in.t = stage_labels(plan_, first, count, room_.tiles.t);
    if constexpr (Factors) {
      in.v = stage_weights(plan_, first, count, room_.tiles.v);
      if (plan_.source_gradients.data != nullptr)
        in.g = stage(plan_.source_gradients, plan_.shape, first, count, room_.tiles.g);
    }
    return in;
  }

  /// The same in planes.
  Operands side_by_side(const Operands& rows) {
    Operands in;
    in.y = planes_of(rows.y, room_.y.elements);
    in.t = plan_.class_indices == nullptr ? planes_of(rows.t, room_.t.elements) : class_planes();
    in.v = planes_of(rows.v, room_.v.elements);
    in.g = planes_of(rows.g, room_.g.elements);
    return in;
  }

  const T* planes_of(const T* rows, T* planes) const {
    if (rows == nullptr) return nullptr;
    to_planes(rows, rows_ * channels_, channels_, planes);
    return planes;
  }

  /// Zeros with a one for the class of each row.
  const T* class_planes() {
    for_each_group([&](std::int64_t g) {
      T* const planes = room_.t.elements + g * kWidth * channels_;
      for (std::int64_t c = 0; c < channels_; ++c) store<V>(planes + c * kWidth, V{});
      for (std::int64_t r = 0; r < kWidth && g * kWidth + r < rows_; ++r) {
        const std::int64_t index = read_class(plan_, pixel_ + g * kWidth + r);
        if (index >= 0 && index < channels_) planes[index * kWidth + r] = T(1);
      }
    });
    return room_.t.elements;
  }
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
