// The sums over the channels of softmax cross entropy: max y, S = Σ exp(y - max y), and what labels
// add up to. They come the same way to losses and to gradients, and so do their bits.
#pragma once

#include <type_traits>

#include "cpu/math.hpp"
#include "cpu/softmax_operands.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T, bool Narrow, bool Factors>
class SoftmaxSums : public SoftmaxOperands<T, Narrow, Factors> {
  using Base = SoftmaxOperands<T, Narrow, Factors>;

 public:
  using typename Base::V;

  /// `row_scratch`: room for the exponentials of a wide row.
  SoftmaxSums(const Plan& plan, std::byte* row_scratch)
      : Base(plan, plan.class_indices != nullptr && !Factors && !writes_values(plan)),
        pulls_(plan.want_gradient && !plan.by_labels),
        reduces_(plan.want_loss && plan.loss.data == nullptr),
        writes_values_(writes_values(plan)),
        row_scratch_(row_scratch) {}

 protected:
  using Base::by_class_, Base::channels_, Base::first_, Base::plan_, Base::rows_;
  using Base::class_of, Base::for_each_tile, Base::walk;
  using Base::kWidth;
  using typename Base::Operands;
  static constexpr auto kBlockWidth = kWidth * std::int64_t{kBlock};

  using RowTotal = std::conditional_t<Narrow, V, double>;

  /// Of rows in lanes there is nothing to add across.
  struct LaneSum {
    V sum{};
    MPSNN_INLINE_MEMBER void add(V u) { sum += u; }
    MPSNN_INLINE_MEMBER void add_block(const Block<V>& u) { add(sum_of(u)); }
    MPSNN_INLINE_MEMBER V total() const { return sum; }
  };
  /// The logarithm of a sum of exponentials is made of what float32 has no places for next to the
  /// largest, so this sum grows in float64.
  using ExponentialSum = std::conditional_t<Narrow, LaneSum, Accumulator<T>>;

  /// A sum over a row. Within a tile, which adds few vectors to each part, it is formed in the
  /// precision of the terms; of rows in lanes there is nothing to add across.
  class RowSum {
   public:
    MPSNN_INLINE_MEMBER void add(std::size_t part, V u) { parts_[Narrow ? 0 : part] += u; }
    MPSNN_INLINE_MEMBER void end_tile() {
      if constexpr (!Narrow) {
        tiles_.add(sum_of(parts_));
        for (V& part : parts_) part = V{};
      }
    }
    MPSNN_INLINE_MEMBER RowTotal total() const {
      if constexpr (Narrow) {
        return parts_[0];
      } else {
        return tiles_.total();
      }
    }

   private:
    Block<V> parts_{};
    Accumulator<T> tiles_;
  };

  MPSNN_INLINE V spread_total(RowTotal total) {
    if constexpr (Narrow) {
      return total;
    } else {
      return broadcast<V>(static_cast<T>(total));
    }
  }

  /// t' = t (1 - s) + s / K. A local copy of it stays in registers.
  struct Smoothing {
    V scale, offset;
    MPSNN_INLINE_MEMBER V operator()(V t) const { return mul_add(t, scale, offset); }
  };
  MPSNN_INLINE_MEMBER Smoothing smoothing() const {
    return {broadcast<V>(static_cast<T>(plan_.label_scale)),
            broadcast<V>(static_cast<T>(plan_.label_offset))};
  }

  /// Σ t' of rows without factors from Σ t.
  RowTotal smoothed_total(RowTotal labels) const {
    const double offset = plan_.label_offset * static_cast<double>(channels_);
    if constexpr (Narrow) {
      return mul_add(labels, broadcast<V>(static_cast<T>(plan_.label_scale)),
                     broadcast<V>(static_cast<T>(offset)));
    } else {
      return labels * plan_.label_scale + offset;
    }
  }

  void find_maximum() {
    V m = broadcast<V>(-static_cast<T>(__builtin_inff()));
    for_each_tile(
        false, [&](std::int64_t, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
          Block<V> part = {m, m, m, m};
          std::int64_t i = 0;
          for (; i + kBlockWidth <= count; i += kBlockWidth) {
            for (std::size_t k = 0; k < kBlock; ++k)
              part[k] = larger(load<V>(in.y + i + static_cast<std::int64_t>(k) * kWidth), part[k]);
          }
          m = larger(larger(part[0], part[1]), larger(part[2], part[3]));
          walk(
              count,
              [&](std::int64_t at, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
                const V y = load_at(in.y + at);
                m = select<V>(live & (y > m), y, m);
              },
              i);
        });
    if constexpr (!Narrow) m = broadcast<V>(largest_lane(m));
    maximum_ = m;
  }

  void sum_up() {
    const bool loss = reduces_ || writes_values_;
    if (!by_class_) return loss ? sum_terms<true, true>() : sum_terms<true, false>();
    loss ? sum_terms<false, true>() : sum_terms<false, false>();
    labels_ = smoothed_total(RowTotal{} + 1);
    if (reduces_) add_class_terms();
  }

  /// (1 - s) (max y - y) of each row's class.
  void add_class_terms() {
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t index = class_of(r);
      if (index < 0) continue;
      const T y = read_element<T>(plan_.predictions.data, plan_.predictions.format,
                                  first_ + r * channels_ + index);
      const T term = static_cast<T>(plan_.label_scale) * (maximum_[r] - y);
      if (plan_.label_scale == 0) continue;
      if constexpr (Narrow) {
        cross_[r] += term;
      } else {
        cross_ += static_cast<double>(term);
      }
    }
  }

  /// log S; a row's loss may be far smaller than 1.
  void find_log_sum() {
    if constexpr (Narrow) {
      log_sum_ = log(relative_sum_);
    } else {
      log_sum_ =
          broadcast<V>(static_cast<T>(__builtin_log(sum_ / static_cast<double>(largest_[0]))));
    }
  }

  /// Where the exponentials of a tile are kept: a wide row's in its gradient where one follows and
  /// is in place, to be overwritten.
  T* exponentials_at(std::int64_t c) {
    if constexpr (Narrow) {
      return exponentials_;
    } else {
      auto* const scratch = reinterpret_cast<T*>(row_scratch_);
      return (pulls_ ? place_of(plan_.gradient, first_, scratch) : scratch) + c;
    }
  }

  const bool pulls_;          // the gradient is with respect to the predictions
  const bool reduces_;        // the losses of a row are added up
  const bool writes_values_;  // losses or label gradients of each element are wanted
  std::byte* const row_scratch_;

  V maximum_{}, largest_{}, log_sum_{};  // max y, its exponential, log S
  RowTotal sum_{}, labels_{}, cross_{};  // see sum_terms

 private:
  static bool writes_values(const Plan& plan) {
    return (plan.want_loss && plan.loss.data != nullptr) || (plan.want_gradient && plan.by_labels);
  }

  /// What one vector adds to the sums of its rows.
  struct Terms {
    V exponential, label, cross;
    V other;  // the exponential where y is below the maximum
    V tie;    // 1 where it is the maximum
  };

  template <bool Labels, bool Loss, class Load, class Store>
  MPSNN_INLINE_MEMBER Terms terms(const ExpShift<V>& shift, const Smoothing& smooth, V maximum,
                                  const Operands& in, T* e, std::int64_t i, Mask<V> live,
                                  Load load_at, Store store_at) const {
    const V y = load_at(in.y + i);
    Terms result{};
    const V exponential = shift.exp(y);
    store_at(e + i, exponential);
    result.exponential = select<V>(live, exponential, V{});
    if constexpr (Labels || Loss) {
      V given{}, label = smooth.offset;
      if constexpr (Labels) label = smooth(given = load_at(in.t + i));
      label = this->with_factors(label, in, i, load_at);
      if constexpr (Labels) result.label = select<V>(live, Factors ? label : given, V{});
      if constexpr (Loss)
        result.cross = select<V>(live & (label != V{}), label * (maximum - y), V{});
    }
    if constexpr (Loss && Narrow) {
      result.other = select<V>(y == maximum, V{}, exponential);
      result.tie = select<V>(y == maximum, broadcast<V>(1), V{});
    }
    return result;
  }

  /// S and Σ t' v g, and for losses Σ t' v (max y - y).
  template <bool Labels, bool Loss>
  void sum_terms() {
    const V maximum = maximum_;
    const ExpShift<V> shift(maximum);
    const Smoothing smooth = smoothing();
    ExponentialSum exponentials;
    RowSum labels, cross, others, ties;
    for_each_tile(
        Labels, [&](std::int64_t c, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
          T* const e = exponentials_at(c);
          const auto whole_load = [](const T* at) { return load<V>(at); };
          const auto whole_store = [](T* to, V x) { store<V>(to, x); };
          const auto add = [&](std::size_t part, const Terms& term) MPSNN_INLINE_LAMBDA {
            if constexpr (Labels) labels.add(part, term.label);
            if constexpr (Loss) cross.add(part, term.cross);
            if constexpr (Loss && Narrow) others.add(part, term.other), ties.add(part, term.tie);
            return term.exponential;
          };
          std::int64_t i = 0;
          for (; i + kBlockWidth <= count; i += kBlockWidth) {
            Block<V> x;
            for (std::size_t k = 0; k < kBlock; ++k) {
              x[k] = add(k, terms<Labels, Loss>(shift, smooth, maximum, in, e,
                                                i + static_cast<std::int64_t>(k) * kWidth,
                                                ~Mask<V>{}, whole_load, whole_store));
            }
            exponentials.add_block(x);
          }
          walk(
              count,
              [&](std::int64_t at, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
                exponentials.add(add(0, terms<Labels, Loss>(shift, smooth, maximum, in, e, at, live,
                                                            load_at, store_at)));
              },
              i);
          for (RowSum* sum : {&labels, &cross, &others, &ties}) sum->end_tile();
        });
    sum_ = exponentials.total();
    labels_ = labels.total();
    if constexpr (Labels && !Factors) labels_ = smoothed_total(labels_);
    cross_ = cross.total();
    largest_ = shift.exp(maximum);
    if constexpr (Narrow) relative_sum_ = two_sum(ties.total(), others.total() / largest_);
  }

  Sum<V> relative_sum_{};  // of narrow rows: S with what float32 loses of it next to 1
  T exponentials_[kTileElements];
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
