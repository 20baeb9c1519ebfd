// Softmax over rows of up to kMostInShortRows channels side by side, one to a lane: no lane idles,
// nothing is folded, and each row has its own shift of the exponentials at no cost. A block of
// rows is brought into planes (transpose.hpp), computed group by group, and its results leave from
// there. What lies channels-first is copied plane by plane: planes are often a power of two apart,
// so that the channels of a pixel share a set of the cache, and each line is touched once.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/planes.hpp"
#include "cpu/softmax_rows.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
class SideBySide {
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);

 public:
  /// `most_rows`: whole groups.
  SideBySide(const SoftmaxCall<T>& call, std::int64_t most_rows, Rooms& rooms)
      : call_(call),
        pitch_(group_pitch(call.channels)),
        mover_(call.plan, most_rows, rooms),
        staged_(*rooms.take<TileRoom<T>>()) {
    const std::int64_t elements = most_rows * pitch_ + kPiece<T> * kWidth;
    for (T** planes : {&y_, &t_, &values_}) *planes = rooms.take<T>(elements);
    // Only losses and label gradients look at predictions again.
    e_ = call.needs_log() ? rooms.take<T>(elements) : y_;
    if (call.has_factors) v_ = rooms.take<T>(elements), g_ = rooms.take<T>(elements);
    for (T** of_rows : {&weight_, &scale_, &class_, &maximum_, &largest_, &sum_, &label_sum_,
                        &others_, &log_sum_, &losses_})
      *of_rows = rooms.take<T>(most_rows);
    lost_ = rooms.take<Lost>(most_rows);
  }

  static std::int64_t scratch_bytes(std::int64_t channels, std::int64_t most_rows) {
    const std::int64_t planes = most_rows * group_pitch(channels) + kPiece<T> * kWidth;
    const std::int64_t numbers = 6 * planes + 11 * most_rows;
    return numbers * std::int64_t{sizeof(T)} + most_rows * std::int64_t{sizeof(Lost)} +
           std::int64_t{sizeof(TileRoom<T>)} + PlaneMover<T>::kScratchBytes + 20 * Rooms::kSlack;
  }

  RowsDone<T> run(std::int64_t pixel, std::int64_t rows) {
    begin(pixel, rows);
    find_exponentials();
    if (call_.needs_log()) find_logarithms();
    if (call_.writes_values()) write_values();
    if (call_.reduces || call_.pulls) find_label_sums();
    if (call_.reduces) find_losses();
    if (call_.pulls) write_gradient();
    return {losses_, any_lost_ ? lost_ : nullptr};
  }

  void flush() { mover_.flush(); }

 private:
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_group(Body body) const {
    for (std::int64_t r = 0; r < rows_; r += kWidth) body(r, r * pitch_);
  }
  /// Calls body(channels) with their number, as a constant where that is common and small: such a
  /// group stays in registers.
  template <class Body>
  MPSNN_INLINE_MEMBER void with_channels(Body body) const {
    const auto as_constant = [&]<std::int64_t... few>(
                                 std::integer_sequence<std::int64_t, few...>) MPSNN_INLINE_LAMBDA {
      return (
          (call_.channels == few && (body(std::integral_constant<std::int64_t, few>()), true)) ||
          ...);
    };
    if (!as_constant(std::integer_sequence<std::int64_t, 1, 2, 3, 4, 5, 6, 7, 8, 10>()))
      body(call_.channels);
  }

  void begin(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    rows_ = rows;
    any_lost_ = false;
    read_row_factors(call_, pixel, rows, staged_, weight_, scale_);
    const std::int64_t end = (rows + kWidth - 1) / kWidth * kWidth;
    for (std::int64_t r = rows; r < end; ++r) weight_[r] = scale_[r] = T(0);
    const Plan& plan = call_.plan;
    mover_.begin(pixel, rows);
    mover_.bring(plan.predictions, y_);
    if (call_.by_class) {
      for (std::int64_t r = 0; r < end; ++r)
        class_[r] = static_cast<T>(r < rows ? call_.class_of(pixel + r) : -1);
    } else {
      bring_labels();
    }
    if (call_.has_factors) bring_factors();
  }

  void bring_labels() {
    const Plan& plan = call_.plan;
    if (plan.class_indices == nullptr) return mover_.bring(plan.labels, t_);
    for (std::int64_t i = 0; i < (rows_ + kWidth - 1) / kWidth * kWidth * pitch_; ++i) t_[i] = 0;
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t index = read_class(plan, pixel_ + r);
      if (index >= 0 && index < call_.channels)
        t_[(r / kWidth * pitch_ + index) * kWidth + r % kWidth] = T(1);
    }
  }

  /// v and g in planes; rows whose v is 0 in every channel weigh nothing.
  void bring_factors() {
    const Plan& plan = call_.plan;
    if (plan.source_gradients.data != nullptr) mover_.bring(plan.source_gradients, g_);
    if (!call_.weighted) return;
    mover_.bring_tiles(v_, [&](std::int64_t first, std::int64_t count) {
      return stage_weights(plan, first, count, staged_);
    });
    for_each_group([&](std::int64_t r, std::int64_t at) {
      V found{};
      for (std::int64_t c = 0; c < call_.channels; ++c)
        found = select<V>(load<V>(v_ + at + c * kWidth) != V{}, broadcast<V>(1), found);
      store<V>(weight_ + r, load<V>(weight_ + r) * found);
      store<V>(scale_ + r, select<V>(found == V{}, V{}, load<V>(scale_ + r)));
    });
  }
  /// g v of a group.
  Factors<V> factors_of(std::int64_t at) const {
    if (!call_.has_factors) return {};
    return {call_.plan.source_gradients.data != nullptr ? g_ + at : nullptr,
            call_.weighted ? v_ + at : nullptr};
  }
  static constexpr auto kLoad = [](const T* at) MPSNN_INLINE_LAMBDA { return load<V>(at); };

  void find_exponentials() {
    const bool large = mover_.reads_ahead();
    with_channels([&](auto channels) MPSNN_INLINE_LAMBDA {
      for_each_group([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
        const T* const y = y_ + at;
        T* const e = e_ + at;
        const V maximum = fold_in_parts<kParts<V>>(
            channels, broadcast<V>(-static_cast<T>(__builtin_inff())),
            [&](std::int64_t c) MPSNN_INLINE_LAMBDA { return load<V>(y + c * kWidth); },
            [](V so_far, V x) MPSNN_INLINE_LAMBDA { return larger(x, so_far); });
        const ExpShift<V> shift(maximum);
        for (std::int64_t c = 0; c < channels; ++c) {
          if (large) mover_.prefetch(r, c);
          store<V>(e + c * kWidth, shift.exp(load<V>(y + c * kWidth)));
        }
        store<V>(maximum_ + r, maximum);
        store<V>(sum_ + r, sum_of_channels<V>(channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
                   return load<V>(e + c * kWidth);
                 }));
        store<V>(largest_ + r, shift.exp(maximum));
      });
    });
  }

  /// log S.
  void find_logarithms() {
    with_channels([&](auto channels) MPSNN_INLINE_LAMBDA {
      for_each_group([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
        const T *const y = y_ + at, *const e = e_ + at;
        const V maximum = load<V>(maximum_ + r);
        store<V>(others_ + r, sum_of_channels<V>(channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
                   return select<V>(load<V>(y + c * kWidth) == maximum, V{},
                                    load<V>(e + c * kWidth));
                 }));
      });
    });
    // Apart from the sums, so that the steps of several logarithms overlap.
    for_each_group([&](std::int64_t r, std::int64_t) MPSNN_INLINE_LAMBDA {
      store<V>(log_sum_ + r,
               log_of_sum(load<V>(sum_ + r), load<V>(largest_ + r), load<V>(others_ + r)));
    });
  }

  /// Losses that are not reduced, and label gradients: both are products with -lp.
  void write_values() {
    if (call_.writes_losses) {
      const T scale = static_cast<T>(call_.plan.loss_scale);
      write_values(&Lost::loss, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
        const V row_scale = load<V>(weight_ + r) * scale;
        return [this, row_scale, by = factors_of(at), at](std::int64_t i, V minus_lp)
                   MPSNN_INLINE_LAMBDA {
                     const V u = label_product(call_.smoothed(load<V>(t_ + at + i)), minus_lp);
                     return by.weigh(u, row_scale, i, kLoad);
                   };
      });
      mover_.put_losses(values_);
    }
    if (call_.writes_label_gradients) {
      write_values(&Lost::gradient, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
        const V row_scale = load<V>(scale_ + r) * call_.label_scale;
        return [row_scale, by = factors_of(at)](std::int64_t i, V minus_lp)
                   MPSNN_INLINE_LAMBDA { return by.multiply(minus_lp * row_scale, i, kLoad); };
      });
      mover_.put_gradient(values_);
    }
  }
  /// value_of(row, element)(index, -lp) for each vector of each group.
  template <class ValueOf>
  void write_values(bool Lost::* what, ValueOf value_of) {
    for_each_group([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const V maximum = load<V>(maximum_ + r), log_sum = load<V>(log_sum_ + r);
      const Mask<V> weightless = load<V>(weight_ + r) == V{};
      const auto value = value_of(r, at);
      V check{};
      for (std::int64_t i = 0; i < call_.channels * kWidth; i += kWidth) {
        const V x = value(i, log_sum + (maximum - load<V>(y_ + at + i)));
        const V kept = select<V>(weightless, V{}, x);
        store<V>(values_ + at + i, kept);
        check = mul_add(kept, V{}, check);
      }
      note_lost(r, check, what);
    });
  }

  /// Σ t', or with factors Σ t' g v, whose terms take the place of t.
  void find_label_sums() {
    with_channels([&](auto channels) MPSNN_INLINE_LAMBDA {
      for_each_group([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
        T* const t = t_ + at;
        const Factors<V> by = factors_of(at);
        for (std::int64_t i = 0; call_.has_factors && i < channels * kWidth; i += kWidth)
          store<V>(t + i, by.multiply(call_.smoothed(load<V>(t + i)), i, kLoad));
        V sum = broadcast<V>(1);
        if (!call_.by_class) {
          sum = sum_of_channels<V>(channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
            return load<V>(t + c * kWidth);
          });
        }
        store<V>(label_sum_ + r, call_.has_factors ? sum : call_.smoothed_sum(sum));
      });
    });
  }

  /// The reduced losses: Σ a log S + Σ a (max y - y).
  void find_losses() {
    for_each_group([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const V maximum = load<V>(maximum_ + r), weight = load<V>(weight_ + r);
      const T *const y = y_ + at, *const t = t_ + at;
      const V cross =
          call_.by_class
              ? cross_of_classes(r, y)
              : sum_of_channels<V>(call_.channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
                  const V given = load<V>(t + c * kWidth);
                  const V a = call_.has_factors ? given : call_.smoothed(given);
                  return label_product(a, maximum - load<V>(y + c * kWidth));
                });
      const V total = label_product(load<V>(label_sum_ + r), load<V>(log_sum_ + r)) + cross;
      const V losses = select<V>(weight == V{}, V{}, total * weight);
      store<V>(losses_ + r, losses);
      note_lost(r, losses - losses, &Lost::loss);
    });
  }
  V cross_of_classes(std::int64_t r, const T* y) const {
    const V maximum = load<V>(maximum_ + r);
    V cross{};
    if (call_.label_offset != T(0)) {
      cross = sum_of_channels<V>(call_.channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
        return (maximum - load<V>(y + c * kWidth)) * call_.label_offset;
      });
    }
    if (call_.label_scale == T(0)) return cross;
    T of_class[kWidth];
    for (std::int64_t k = 0; k < kWidth; ++k) {
      const auto index = static_cast<std::int64_t>(class_[r + k]);
      of_class[k] = index < 0 ? maximum_[r + k] : y[index * kWidth + k];
    }
    return cross + (maximum - load<V>(of_class)) * call_.label_scale;
  }

  void write_gradient() {
    with_channels([&](auto channels) MPSNN_INLINE_LAMBDA {
      if (call_.plan.want_hessian) {
        write_groups(channels, std::true_type());
      } else {
        write_groups(channels, std::false_type());
      }
    });
    mover_.put_gradient(t_);
    if (call_.plan.want_hessian) mover_.put_hessian(values_);
  }
  template <class Count, class Hessian>
  MPSNN_INLINE_MEMBER void write_groups(Count channels, Hessian hessian) {
    for_each_group([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T* const t = t_ + at;
      const V labels = load<V>(label_sum_ + r), scales = load<V>(scale_ + r);
      const Pull<T> pull(call_, labels / load<V>(sum_ + r), scales);
      note_lost(r, check_of_pull(labels, scales), &Lost::gradient);
      if constexpr (Hessian::value) note_lost(r, check_of_pull(labels, scales), &Lost::hessian);
      if (call_.by_class) {
        const V classes = load<V>(class_ + r);
        write_group(channels, hessian, r, at, pull.by_e, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
          return select<V>(classes == broadcast<V>(static_cast<T>(c)), pull.hot, pull.rest);
        });
      } else {
        write_group(channels, hessian, r, at, pull.by_e, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
          return mul_add(load<V>(t + c * kWidth), pull.by_t, pull.rest);
        });
      }
    });
  }

  /// The gradients of a group, which take the place of t, and the Hessian's diagonal; minus_a
  /// (channel): -a.
  template <class Count, bool kHessian, class MinusA>
  MPSNN_INLINE_MEMBER void write_group(Count channels, std::bool_constant<kHessian>, std::int64_t r,
                                       std::int64_t at, V by_e, MinusA minus_a) {
    const T* const e = e_ + at;
    const Curvature<V> curvature(by_e, load<V>(sum_ + r));
    const auto write = [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
      const V x = load<V>(e + c * kWidth), gradient = mul_add(x, by_e, minus_a(c));
      store<V>(t_ + at + c * kWidth, gradient);
      if constexpr (kHessian) store<V>(values_ + at + c * kWidth, curvature(x));
      return gradient;
    };
    const V limit = load<V>(sum_ + r) * kDominant<T>;
    const Mask<V> weightless = load<V>(weight_ + r) == V{};
    V others;
    if (any<V>((load<V>(largest_ + r) > limit) | weightless)) {
      others = sum_of_channels<V>(channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
        return other(write(c), load<V>(e + c * kWidth) > limit);
      });
      replace(channels, r, at, t_, [value = V{} - others](V) { return value; });
      if constexpr (kHessian) replace_curvatures(channels, r, at, curvature);
    } else {
      others = sum_of_channels<V>(channels, write);
    }
    V lost = select<V>(weightless, V{}, others - others);
    if (has_nan(lost))
        [[unlikely]]  // of finite gradients only the sum that a dominant channel gets
      lost = select<V>(load<V>(largest_ + r) > limit, lost, check_of_gradients(channels, at));
    note_lost(r, lost, &Lost::gradient);
    if constexpr (kHessian) {
      const V check = curvature.check(load<V>(largest_ + r));
      note_lost(r, select<V>(weightless, V{}, check), &Lost::hessian);
    }
  }
  /// NaN in the lanes of rows that have a gradient which is not finite.
  template <class Count>
  V check_of_gradients(Count channels, std::int64_t at) const {
    V check{};
    for (std::int64_t c = 0; c < channels; ++c) {
      const V gradient = load<V>(t_ + at + c * kWidth);
      check += gradient - gradient;
    }
    return check;
  }
  template <class Count>
  MPSNN_INLINE_MEMBER void replace_curvatures(Count channels, std::int64_t r, std::int64_t at,
                                              const Curvature<V>& curvature) {
    const V limit = load<V>(sum_ + r) * kDominant<T>;
    const V others = sum_of_channels<V>(channels, [&](std::int64_t c) MPSNN_INLINE_LAMBDA {
      const V x = load<V>(e_ + at + c * kWidth);
      return select<V>(x > limit, V{}, x);
    });
    replace(channels, r, at, values_,
            [&](V e) MPSNN_INLINE_LAMBDA { return curvature.of_dominant(e, others); });
  }
  /// Replaces the results of dominant channels where value(e) is finite, and those of rows that
  /// weigh nothing.
  template <class Count, class Value>
  MPSNN_INLINE_MEMBER void replace(Count channels, std::int64_t r, std::int64_t at, T* results,
                                   Value value_of) {
    const V limit = load<V>(sum_ + r) * kDominant<T>;
    const Mask<V> weightless = load<V>(weight_ + r) == V{};
    for (std::int64_t c = 0; c < channels; ++c) {
      const V e = load<V>(e_ + at + c * kWidth), value = value_of(e);
      const Mask<V> dominant = (e > limit) & (value - value == V{});
      T* const place = results + at + c * kWidth;
      store<V>(place, select<V>(weightless, V{}, select<V>(dominant, value, load<V>(place))));
    }
  }

  /// `check` is NaN where a row of the group has lost that result.
  MPSNN_INLINE_MEMBER void note_lost(std::int64_t r, V check, bool Lost::* what) {
    if (!has_nan(check)) [[likely]]
      return;
    if (!any_lost_) {
      for (std::int64_t i = 0; i < rows_; ++i) lost_[i] = {};
    }
    any_lost_ = true;
    for (std::int64_t k = 0; k < kWidth && r + k < rows_; ++k)
      lost_[r + k].*what = lost_[r + k].*what || check[k] != check[k];
  }

  const SoftmaxCall<T>& call_;
  const std::int64_t pitch_;
  PlaneMover<T> mover_;
  TileRoom<T>& staged_;
  T *y_, *e_, *t_, *v_ = nullptr, *g_ = nullptr, *values_;  // planes
  // One of each row.
  T *weight_, *scale_, *class_, *maximum_, *largest_, *sum_, *label_sum_, *others_, *log_sum_;
  T* losses_;
  Lost* lost_;
  std::int64_t pixel_ = 0, rows_ = 0;
  bool any_lost_ = false;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
