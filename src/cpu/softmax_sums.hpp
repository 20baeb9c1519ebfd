// The sums over the channels of softmax cross entropy: max y, S = Σ exp(y - max y), and what labels
// add up to. They come the same way to losses and to gradients, and so do their bits.
#pragma once

#include <type_traits>

#include "cpu/math.hpp"
#include "cpu/softmax_operands.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T, RowLayout layout, bool Factors>
class SoftmaxSums : public SoftmaxOperands<T, layout, Factors> {
  using Base = SoftmaxOperands<T, layout, Factors>;

 public:
  using typename Base::V;

  /// `row_scratch`: room for the exponentials of a long row.
  SoftmaxSums(const Plan& plan, typename Base::Room& room, std::byte* row_scratch)
      : Base(plan,
             plan.class_indices != nullptr && !Factors && !writes_values(plan) &&
                 plan.shape.channels > kMostInPlanes,
             room),
        pulls_(plan.want_gradient && !plan.by_labels),
        reduces_(plan.want_loss && plan.loss.data == nullptr),
        writes_values_(writes_values(plan)),
        row_scratch_(row_scratch) {}

 protected:
  using Base::by_class_, Base::channels_, Base::first_, Base::plan_, Base::room_, Base::rows_,
      Base::in_;
  using Base::class_of, Base::fold_rows, Base::for_each_group, Base::for_each_row_of,
      Base::strand_elements, Base::walk, Base::with_row;
  using Base::kLong, Base::kPlanes, Base::kWidth;
  using typename Base::Operands, typename Base::PerRow, typename Base::Tiles;
  /// So many planes stay in registers while their gradients are written.
  static constexpr std::int64_t kFewPlanes = 4;
  static constexpr auto kBlockWidth = kWidth * std::int64_t{kBlock};

  /// t' = t (1 - s) + s / K. A local copy of it stays in registers.
  struct Smoothing {
    V scale, offset;
    MPSNN_INLINE_MEMBER V operator()(V t) const { return mul_add(t, scale, offset); }
  };
  MPSNN_INLINE_MEMBER Smoothing smoothing() const {
    return {broadcast<V>(static_cast<T>(plan_.label_scale)),
            broadcast<V>(static_cast<T>(plan_.label_offset))};
  }

  void find_maximum() {
    const Tiles tiles(*this, false);
    fold_rows(maximum_, Larger(), [&](std::int64_t strand) MPSNN_INLINE_LAMBDA {
      V m = broadcast<V>(-static_cast<T>(__builtin_inff()));
      tiles.for_each(
          strand, [&](std::int64_t, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
            std::int64_t i = 0;
            if constexpr (kLong) {
              Block<V> part = {m, m, m, m};
              for (; i + kBlockWidth <= count; i += kBlockWidth) {
                for (std::size_t k = 0; k < kBlock; ++k) {
                  const V y = load<V>(in.y + i + static_cast<std::int64_t>(k) * kWidth);
                  part[k] = larger(y, part[k]);
                }
              }
              m = larger(larger(part[0], part[1]), larger(part[2], part[3]));
            }
            walk(
                count,
                [&](std::int64_t at, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
                  const V y = load_at(in.y + at);
                  m = select<V>(live & (y > m), y, m);
                },
                i);
          });
      return m;
    });
  }

  void sum_up() {
    const bool loss = reduces_ || writes_values_;
    if constexpr (layout == RowLayout::short_rows) find_exponentials();
    const auto sum = [&](auto labels, auto losses) {
      if constexpr (kLong) {
        sum_long_row<labels, losses>();
      } else {
        sum_short_rows<labels, losses>();
      }
    };
    const std::true_type yes;
    const std::false_type no;
    if (by_class_) {
      loss ? sum(no, yes) : sum(no, no);
      if (reduces_) add_class_terms();
    } else {
      loss ? sum(yes, yes) : sum(yes, no);
    }
  }

  /// Where the exponentials are kept: a long row's in its gradient where one follows and is in
  /// place, to be overwritten.
  T* place_of_exponentials() {
    if constexpr (!kLong) return room_.exponentials;
    auto* const scratch = reinterpret_cast<T*>(row_scratch_);
    return pulls_ ? place_of(plan_.gradient, first_, scratch) : scratch;
  }

  const bool pulls_;          // the gradient is with respect to the predictions
  const bool reduces_;        // the losses of a row are added up
  const bool writes_values_;  // losses or label gradients of each element are wanted
  std::byte* const row_scratch_;

  PerRow maximum_;    // max y
  PerRow largest_;    // exp max y; of few planes only for losses
  PerRow sum_;        // S
  PerRow label_sum_;  // Σ t' v g
  PerRow ratio_;      // that by S
  PerRow cross_;      // for losses: Σ t' v (max y - y)
  PerRow log_sum_;    // for losses: log S

 private:
  static bool writes_values(const Plan& plan) {
    return (plan.want_loss && plan.loss.data != nullptr) || (plan.want_gradient && plan.by_labels);
  }

  void find_exponentials() {
    const ExpShift<V> shift(maximum_.in_lanes(0));
    one_shift_ = maxima_are_near() && !has_edges(write_exponentials(0, rows_ * channels_, shift));
    const std::int64_t elements = strand_elements();
    for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
      const ExpShift<V> shifts = one_shift_ ? shift : ExpShift<V>(maximum_.group(g));
      largest_.set_group(g, shifts.exp(maximum_.group(g)));
      if (one_shift_) return;
      for (std::int64_t r = g * kWidth; r < rows_ && r < (g + 1) * kWidth; ++r)
        write_exponentials(r * elements, elements, shifts.of_lane(r - g * kWidth));
    });
  }

  /// A shift is a power of two, which no digit of an exponential depends on. So that of the first
  /// row does for all rows whose maxima are near, whose elements then leave no lane idle: the head
  /// room keeps what is normal in a row alone.
  bool maxima_are_near() const {
    const V first = maximum_.in_lanes(0);
    Mask<V> far{};
    for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
      far |= with_row(g) & ~(abs(maximum_.group(g) - first) < broadcast<V>(kNear));
    });
    return !any<V>(far);
  }

  /// Whether an element may count as 0 beside the first row's maximum and not beside its own, or
  /// the other way round. `least`: no element is less.
  bool has_edges(V least) const {
    const V edge = maximum_.in_lanes(0) + MathConstants<T>::exp_range;
    Mask<V> found{};
    const auto look = [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
      found |= live & (abs(load_at(in_.y + i) - edge) <= kNear);
    };
    if (any<V>(least < edge + kNear)) walk(rows_ * channels_, look);
    return any<V>(found);
  }

  /// Of `count` elements from `first` on, and more where later rows follow; returns the least.
  MPSNN_INLINE_MEMBER V write_exponentials(std::int64_t first, std::int64_t count,
                                           const ExpShift<V>& shift) {
    V least = maximum_.in_lanes(0);
    const bool large = !kPlanes && plan_.gradient.streams;
    const T* const y = in_.y + first;
    const T* const t = by_class_ ? y : in_.t + first;
    T* const e = room_.exponentials + first;
    walk(
        count,
        [&](std::int64_t i, auto load_at, auto store_at, Mask<V>) MPSNN_INLINE_LAMBDA {
          if (large) {  // the next tile's
            __builtin_prefetch(y + i + kTileElements);
            __builtin_prefetch(t + i + kTileElements);
          }
          const V x = load_at(y + i);
          least = x < least ? x : least;
          store_at(e + i, shift.exp(x));
        },
        0, true);
    return least;
  }

  /// What one vector adds to the sums of its row.
  struct Terms {
    V label, cross;
  };

  template <bool Labels, bool Loss, class Load>
  MPSNN_INLINE_MEMBER Terms terms(const Smoothing& smooth, V maximum, const Operands& in, V y,
                                  std::int64_t i, Mask<V> live, Load load_at) const {
    Terms result{};
    if constexpr (Labels || Loss) {
      V given{}, label = smooth.offset;
      if constexpr (Labels) label = smooth(given = load_at(in.t + i));
      label = this->with_factors(label, in, i, load_at);
      if constexpr (Labels) result.label = Factors ? select<V>(live, label, V{}) : given;
      if constexpr (Loss)
        result.cross = select<V>(live & (label != V{}), label * (maximum - y), V{});
    }
    return result;
  }

  /// The sums of short rows, in vectors to be added up or for a group of rows.
  struct Sums {
    V exponentials, labels, cross, others;  // others: of the exponentials but the largest

    MPSNN_INLINE_MEMBER void add(const Sums& more) {
      exponentials += more.exponentials;
      labels += more.labels;
      cross += more.cross;
      others += more.others;
    }
  };

  template <bool Labels, bool Loss>
  MPSNN_INLINE_MEMBER Sums sums_of(const Smoothing& smooth, const Tiles& tiles,
                                   std::int64_t strand) {
    const V maximum = maximum_.in_lanes(strand);
    T* const e = room_.exponentials + strand * strand_elements();
    const ExpShift<V> shift(maximum);  // of planes
    Sums sums{};
    tiles.for_each(
        strand, [&](std::int64_t, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
          const auto sums_at = [&](std::int64_t i, auto load_at, auto,
                                   Mask<V> live) MPSNN_INLINE_LAMBDA {
            V x, y{}, other{};
            if constexpr (Loss) y = load_at(in.y + i);
            if constexpr (kPlanes && Loss) {  // which is faster than a pass of their own
              store<V>(e + i, x = shift.exp(y));
            } else {
              x = load_at(e + i);
            }
            if constexpr (Loss) other = select<V>(y == maximum, V{}, x);
            const Terms term = terms<Labels, Loss>(smooth, maximum, in, y, i, live, load_at);
            return Sums{x, term.label, term.cross, other};
          };
          if constexpr (kPlanes) {
            // In the order of add_up, so that a row's bits do not depend on how many there are.
            const auto load_at = [](const T* at) { return load<V>(at); };
            for (std::int64_t lane = 0; lane < kWidth && lane * kWidth < count; ++lane) {
              Sums of_lane{};
              for (std::int64_t i = lane * kWidth; i < count; i += kWidth * kWidth)
                of_lane.add(sums_at(i, load_at, 0, ~Mask<V>{}));
              sums.add(of_lane);
            }
          } else {
            walk(count, [&](auto... at) MPSNN_INLINE_LAMBDA { sums.add(sums_at(at...)); });
          }
        });
    return sums;
  }

  template <bool Labels, bool Loss>
  MPSNN_INLINE_MEMBER Sums sums_of_group(const Smoothing& smooth, const Tiles& tiles,
                                         std::int64_t g) {
    if constexpr (kPlanes) {
      const V maximum = maximum_.group(g);
      if constexpr (!Loss) {
        const std::int64_t elements = strand_elements();
        write_exponentials(g * elements, elements, ExpShift<V>(maximum));
      }
      if (Loss || channels_ > kFewPlanes) largest_.set_group(g, ExpShift<V>(maximum).exp(maximum));
      return sums_of<Labels, Loss>(smooth, tiles, g);
    }
    Square<V> exponentials, labels, cross, others;
    for_each_row_of(g, exponentials, [&](std::int64_t row, V& of_row) MPSNN_INLINE_LAMBDA {
      const Sums sums = sums_of<Labels, Loss>(smooth, tiles, row);
      const std::int64_t r = row - g * kWidth;
      of_row = sums.exponentials;
      labels[r] = sums.labels;
      cross[r] = sums.cross;
      others[r] = sums.others;
    });
    Sums sums{};
    sums.exponentials = add_up(exponentials);
    if constexpr (Labels) sums.labels = add_up(labels);
    if constexpr (Loss) {
      sums.cross = add_up(cross);
      sums.others = add_up(others);
    }
    return sums;
  }

  /// The lanes of each row: from first to last where planes are an alternative.
  MPSNN_INLINE_MEMBER V add_up(Square<V>& rows) const {
    return channels_ <= kMostInPlanes ? sum_in_order<V>(rows) : fold_square<V>(rows, Add());
  }

  template <bool Labels, bool Loss>
  void sum_short_rows() {
    const Smoothing smooth = smoothing();
    const V all_offsets =
        broadcast<V>(static_cast<T>(plan_.label_offset * static_cast<double>(channels_)));
    const Tiles tiles(*this, Labels);
    PerRow others;  // of the exponentials
    for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
      const Sums sums = sums_of_group<Labels, Loss>(smooth, tiles, g);
      V label = Labels ? sums.labels : broadcast<V>(1);
      if constexpr (!Factors) label = mul_add(label, smooth.scale, all_offsets);
      label_sum_.set_group(g, label);
      sum_.set_group(g, sums.exponentials);
      ratio_.set_group(g, label / sums.exponentials);
      if constexpr (Loss) {
        cross_.set_group(g, sums.cross);
        others.set_group(g, sums.others);
      }
    });
    if constexpr (Loss) {
      // Apart from the sums, so that the steps of several logarithms overlap.
      for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
        log_sum_.set_group(g, log_of_sum(g, others.group(g)));
      });
    }
  }

  /// log S of a group of rows, which may be far smaller than 1: S is as many times the exponential
  /// of the maximum as that stands in a row, and what the others add.
  MPSNN_INLINE_MEMBER V log_of_sum(std::int64_t g, V others) const {
    const V largest = largest_.group(g);
    const V magic = broadcast<V>(MathConstants<T>::round_magic);
    const V ties = ((sum_.group(g) - others) / largest + magic) - magic;
    return log(two_sum(ties, others / largest));
  }

  template <bool Labels, bool Loss>
  void sum_long_row() {
    const V maximum = maximum_.group(0);
    const ExpShift<V> shift(maximum);
    const Smoothing smooth = smoothing();
    // Next to the largest, float32 has no places for what log S is made of.
    Accumulator<T> exponentials;
    TileSum<T> labels, cross;
    Tiles(*this, Labels)
        .for_each(0, [&](std::int64_t c, std::int64_t count,
                         const Operands& in) MPSNN_INLINE_LAMBDA {
          T* const e = place_of_exponentials() + c;
          const auto add = [&](std::size_t part, std::int64_t i, auto load_at, auto store_at,
                               Mask<V> live) MPSNN_INLINE_LAMBDA {
            const V y = load_at(in.y + i), x = shift.exp(y);
            store_at(e + i, x);
            const Terms term = terms<Labels, Loss>(smooth, maximum, in, y, i, live, load_at);
            if constexpr (Labels) labels.add(part, term.label);
            if constexpr (Loss) cross.add(part, term.cross);
            return select<V>(live, x, V{});
          };
          const auto whole_load = [](const T* at) { return load<V>(at); };
          const auto whole_store = [](T* to, V x) { store<V>(to, x); };
          std::int64_t i = 0;
          for (; i + kBlockWidth <= count; i += kBlockWidth) {
            Block<V> x;
            for (std::size_t k = 0; k < kBlock; ++k) {
              x[k] = add(k, i + static_cast<std::int64_t>(k) * kWidth, whole_load, whole_store,
                         ~Mask<V>{});
            }
            exponentials.add_block(x);
          }
          walk(
              count,
              [&](std::int64_t at, auto load_at, auto store_at, Mask<V> live)
                  MPSNN_INLINE_LAMBDA { exponentials.add(add(0, at, load_at, store_at, live)); },
              i);
          labels.end_tile();
          cross.end_tile();
        });
    const auto set = [](PerRow& to, double x) { to.set_group(0, broadcast<V>(static_cast<T>(x))); };
    const double sum = exponentials.total();
    double label = Labels ? labels.total() : 1;
    if (!Factors)
      label = label * plan_.label_scale + plan_.label_offset * static_cast<double>(channels_);
    largest_.set_group(0, shift.exp(maximum));
    set(sum_, sum);
    set(label_sum_, label);
    set(ratio_, label / sum);
    if constexpr (Loss) {
      set(cross_, cross.total());
      set(log_sum_, __builtin_log(sum / static_cast<double>(largest_[0])));
    }
  }

  /// (1 - s) (max y - y) of each row's class.
  void add_class_terms() {
    if (plan_.label_scale == 0) return;
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t index = class_of(r);
      if (index < 0) continue;
      const T y = read_element<T>(plan_.predictions.data, plan_.predictions.format,
                                  first_ + r * channels_ + index);
      cross_.set(r, cross_[r] + static_cast<T>(plan_.label_scale) * (maximum_[r] - y));
    }
  }

  static constexpr T kNear = 8;  // 12 of the powers of two that are head room
  bool one_shift_ = false;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
