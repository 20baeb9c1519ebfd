// Softmax over rows of up to kMostInShortRows channels as they lie: those that do not gain from
// transposition, and those that are too few to go side by side. A tile has as many rows as fit, and
// goes from step to step, so that rows do not wait for one another.
#pragma once

#include <type_traits>

#include "cpu/row_sums.hpp"
#include "cpu/softmax_rows.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
class ShortRows : RowSums<T> {
  using typename RowSums<T>::V;
  using RowSums<T>::kWidth, RowSums<T>::rows_;
  using RowSums<T>::for_each_row, RowSums<T>::for_each_vector;
  using RowSums<T>::fold_rows, RowSums<T>::sum_rows, RowSums<T>::sum_of_row;

  /// Maxima this near share a shift, which is 12 of the powers of two that are head room; if no
  /// element is so far below that its own row's shift would make it 0.
  static constexpr T kNear = 8, kFar = 90;

  struct Room {
    TileRooms<T> tiles;
    TileRoom<T> staged;
    TileRoom<T> exponentials, products;  // exp(y), and t' g v
    // One of each row.
    alignas(V) T weights[kTileElements];
    T scales[kTileElements], maxima[kTileElements], sums[kTileElements], labels[kTileElements];
    T largest[kTileElements], others[kTileElements], logarithms[kTileElements];
    T losses[kTileElements];
    Lost lost[kTileElements];
  };

 public:
  ShortRows(const SoftmaxCall<T>& call, Rooms& rooms)
      : RowSums<T>(call.channels),
        call_(call),
        room_(*rooms.take<Room>()),
        writers_(call.plan, rooms) {}

  static constexpr std::int64_t kScratchBytes =
      std::int64_t{sizeof(Room)} + 3 * std::int64_t{sizeof(WriterRoom<T>)} + 4 * Rooms::kSlack;

  /// Rows that run() takes at most.
  std::int64_t most_rows() const { return kTileElements / call_.channels; }

  RowsDone<T> run(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    rows_ = rows;
    any_lost_ = false;
    read_row_factors(call_, pixel, rows, room_.staged, room_.weights, room_.scales);
    stage_rows(pixel * call_.channels, rows * call_.channels);
    find_exponentials();
    if (call_.needs_log()) find_logarithms();
    if (call_.writes_values()) write_values();
    if (call_.reduces || call_.pulls) find_label_sums();
    if (call_.reduces) find_losses();
    if (call_.pulls) write_gradients();
    if (losses_out_ != nullptr) writers_.loss.advance(rows * call_.channels);
    if (gradients_out_ != nullptr) writers_.gradient.advance(rows * call_.channels);
    if (hessians_out_ != nullptr) writers_.hessian.advance(rows * call_.channels);
    return {room_.losses, any_lost_ ? room_.lost : nullptr};
  }

  void flush() { writers_.flush(); }

 private:
  void stage_rows(std::int64_t first, std::int64_t count) {
    const Plan& plan = call_.plan;
    y_ = stage(plan.predictions, plan.shape, first, count, room_.tiles.y);
    t_ = call_.by_class ? nullptr : stage_labels(plan, first, count, room_.tiles.t);
    v_ = call_.has_factors ? stage_weights(plan, first, count, room_.tiles.v) : nullptr;
    g_ = call_.has_factors && plan.source_gradients.data != nullptr
             ? stage(plan.source_gradients, plan.shape, first, count, room_.tiles.g)
             : nullptr;
    for (std::int64_t r = 0; v_ != nullptr && r < rows_; ++r) {
      const T* const v = v_ + r * call_.channels;
      bool weighs = false;
      for (std::int64_t c = 0; c < call_.channels; ++c) weighs = weighs || v[c] != T(0);
      if (!weighs) room_.weights[r] = T(0);
    }
    losses_out_ = call_.writes_losses ? writers_.loss.room(first) : nullptr;
    gradients_out_ = plan.want_gradient ? writers_.gradient.room(first) : nullptr;
    hessians_out_ = plan.want_hessian ? writers_.hessian.room(first) : nullptr;
  }

  void find_exponentials() {
    V lowest = broadcast<V>(static_cast<T>(__builtin_inff()));
    fold_rows(room_.maxima, Larger(), [&](std::int64_t, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T* const y = y_ + at;
      V maximum = broadcast<V>(-static_cast<T>(__builtin_inff()));
      for_each_vector(at, [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
        const V x = load_at(y + i);
        maximum = larger(select<V>(live, x, maximum), maximum);
        lowest = smaller(select<V>(live, x, lowest), lowest);
      });
      return maximum;
    });
    if (one_shift_does(lowest)) {
      find_exponentials_alike();
    } else {
      find_exponentials_row_by_row();
    }
  }

  /// A shift is a power of two, which no digit of an exponential depends on: that of the first row
  /// may do for all of them. Of large arguments the row's own maximum is a part of it.
  bool one_shift_does(V lowest) const {
    const V first = broadcast<V>(room_.maxima[0]);
    Mask<V> far = ~(lowest > first - kFar) |
                  ~(abs(first) < broadcast<V>(MathConstants<T>::reducible - kNear));
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const std::int64_t rest = rows_ - r;
      const Mask<V> live =
          rest < kWidth ? first_lanes<V>(static_cast<std::size_t>(rest)) : ~Mask<V>{};
      far |= live & ~(abs(load<V>(room_.maxima + r) - first) < broadcast<V>(kNear));
    }
    return !any<V>(far);
  }

  static void read_ahead(const T* y, const T* t) {
    __builtin_prefetch(y + kTileElements);
    __builtin_prefetch(t + kTileElements);
  }

  /// In one go, so that no lane idles at the end of a row.
  void find_exponentials_alike() {
    const std::int64_t count = rows_ * call_.channels;
    const bool large = call_.plan.gradient.streams;
    const T *const y = y_, *const t = t_ == nullptr ? y_ : t_;
    T* const e = room_.exponentials.elements;
    const ExpShift<V> shift(broadcast<V>(room_.maxima[0]));
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) {
      if (large) read_ahead(y + i, t + i);
      store<V>(e + i, shift.exp(load<V>(y + i)));
    }
    if (i < count)
      store<V>(e + i, shift.exp(load_first<V>(y + i, static_cast<std::size_t>(count - i))));
    for (std::int64_t r = 0; r < rows_; r += kWidth)
      store<V>(room_.largest + r, shift.exp(load<V>(room_.maxima + r)));
    sum_rows(room_.sums, [&](std::int64_t, std::int64_t at) MPSNN_INLINE_LAMBDA {
      return [of_row = e + at](std::int64_t k, auto load_at, Mask<V>)
                 MPSNN_INLINE_LAMBDA { return load_at(of_row + k); };
    });
  }
  void find_exponentials_row_by_row() {
    const bool large = call_.plan.gradient.streams;
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const V maxima = load<V>(room_.maxima + r);
      store<V>(room_.largest + r, ExpShift<V>(maxima).exp(maxima));
    }
    sum_rows(room_.sums, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T *const y = y_ + at, *const t = t_ == nullptr ? y : t_ + at;
      T* const e = room_.exponentials.elements + at;
      const ExpShift<V> shift(broadcast<V>(room_.maxima[r]));
      return [=](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        if (large) read_ahead(y + i, t + i);
        const V x = shift.exp(load_at(y + i));
        store<V>(e + i, x);  // the next row overwrites what is beyond this
        return x;
      };
    });
  }

  /// log S.
  void find_logarithms() {
    sum_rows(room_.others, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T *const y = y_ + at, *const e = room_.exponentials.elements + at;
      const V maximum = broadcast<V>(room_.maxima[r]);
      return [=](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        return select<V>(load_at(y + i) == maximum, V{}, load_at(e + i));
      };
    });
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const V sum = load<V>(room_.sums + r), largest = load<V>(room_.largest + r);
      store<V>(room_.logarithms + r, log_of_sum(sum, largest, load<V>(room_.others + r)));
    }
  }

  Factors<V> factors_of(std::int64_t at) const {
    return {g_ == nullptr ? nullptr : g_ + at, v_ == nullptr ? nullptr : v_ + at};
  }

  /// Losses that are not reduced, and label gradients: both are products with -lp.
  void write_values() {
    for_each_row([&](std::int64_t r, std::int64_t at) {
      if (room_.weights[r] == T(0)) {
        clear(losses_out_, at);
        return call_.writes_label_gradients ? clear(gradients_out_, at) : void();
      }
      const V maximum = broadcast<V>(room_.maxima[r]), log_sum = broadcast<V>(room_.logarithms[r]);
      const V loss_scale = broadcast<V>(room_.weights[r]) * static_cast<T>(call_.plan.loss_scale);
      const V label_scale = broadcast<V>(room_.scales[r]) * call_.label_scale;
      const Factors<V> by = factors_of(at);
      V loss_check{}, gradient_check{};
      for_each_vector(
          at, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
            const V minus_lp = log_sum + (maximum - load_at(y_ + at + i));
            if (call_.writes_losses) {
              const V u = label_product(call_.smoothed(load_at(t_ + at + i)), minus_lp);
              const V x = by.weigh(u, loss_scale, i, load_at);
              store_at(losses_out_ + at + i, x);
              loss_check = mul_add(select<V>(live, x, V{}), V{}, loss_check);
            }
            if (call_.writes_label_gradients) {
              const V x = by.multiply(minus_lp * label_scale, i, load_at);
              store_at(gradients_out_ + at + i, x);
              gradient_check = mul_add(select<V>(live, x, V{}), V{}, gradient_check);
            }
          });
      note_lost(r, has_nan(loss_check), &Lost::loss);
      note_lost(r, has_nan(gradient_check), &Lost::gradient);
    });
  }

  /// Σ t', or with factors Σ t' g v, whose terms are kept.
  void find_label_sums() {
    if (call_.has_factors) {
      sum_rows(room_.labels, [&](std::int64_t, std::int64_t at) MPSNN_INLINE_LAMBDA {
        const T* const t = t_ + at;
        T* const a = room_.products.elements + at;
        return [=, this, by = factors_of(at)](std::int64_t i, auto load_at, Mask<V>)
                   MPSNN_INLINE_LAMBDA {
                     const V x = by.multiply(call_.smoothed(load_at(t + i)), i, load_at);
                     store<V>(a + i, x);
                     return x;
                   };
      });
      return;
    }
    if (call_.by_class) {
      for (std::int64_t r = 0; r < rows_; ++r) room_.labels[r] = 1;
    } else {
      sum_rows(room_.labels, [&](std::int64_t, std::int64_t at) MPSNN_INLINE_LAMBDA {
        const T* const t = t_ + at;
        return [=](std::int64_t i, auto load_at, Mask<V>)
                   MPSNN_INLINE_LAMBDA { return load_at(t + i); };
      });
    }
    for (std::int64_t r = 0; r < rows_; r += kWidth)
      store<V>(room_.labels + r, call_.smoothed_sum(load<V>(room_.labels + r)));
  }

  /// The reduced losses: Σ a log S + Σ a (max y - y).
  void find_losses() {
    if (call_.by_class) {
      for_each_row(
          [&](std::int64_t r, std::int64_t at) { room_.losses[r] = cross_of_class(r, at); });
    } else {
      sum_rows(room_.losses, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
        const T *const y = y_ + at, *const t = t_ + at, *const a = room_.products.elements + at;
        const V maximum = broadcast<V>(room_.maxima[r]);
        return [=, this](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
          const V label = call_.has_factors ? load_at(a + i) : call_.smoothed(load_at(t + i));
          return label_product(label, maximum - load_at(y + i));
        };
      });
    }
    for (std::int64_t r = 0; r < rows_; ++r) {
      const T label = room_.labels[r], weight = room_.weights[r];
      const T total = (label == T(0) ? T(0) : label * room_.logarithms[r]) + room_.losses[r];
      room_.losses[r] = weight == T(0) ? T(0) : total * weight;
      note_lost(r, room_.losses[r] - room_.losses[r] != 0, &Lost::loss);
    }
  }
  T cross_of_class(std::int64_t r, std::int64_t at) const {
    const T* const y = y_ + at;
    const T maximum = room_.maxima[r];
    T cross = 0;
    if (call_.label_offset != T(0)) {
      cross = sum_of_row(at, [&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        return (broadcast<V>(maximum) - load_at(y + i)) * call_.label_offset;
      });
    }
    const std::int64_t index = call_.class_of(pixel_ + r);
    const bool counts = index >= 0 && call_.label_scale != T(0);
    return counts ? cross + (maximum - y[index]) * call_.label_scale : cross;
  }

  void write_gradients() {
    if (call_.plan.want_hessian) {
      for_each_row([&](std::int64_t r, std::int64_t at) {
        if (room_.weights[r] == T(0)) return clear(hessians_out_, at);
        write_curvatures(r, at, pull_of(r).by_e);
      });
    }
    if (call_.by_class) {
      write_rows([&](std::int64_t r, std::int64_t, const Pull<T>& pull) MPSNN_INLINE_LAMBDA {
        return [=, hot = call_.class_of(pixel_ + r), at_hot = pull.hot, rest = pull.rest](
                   std::int64_t i, auto) MPSNN_INLINE_LAMBDA {
          return select<V>(one_at<V>(hot - i) != V{}, at_hot, rest);
        };
      });
    } else if (call_.has_factors) {
      write_rows([&](std::int64_t, std::int64_t at, const Pull<T>& pull) MPSNN_INLINE_LAMBDA {
        return [a = room_.products.elements + at, by_t = pull.by_t, rest = pull.rest](
                   std::int64_t i, auto load_at)
                   MPSNN_INLINE_LAMBDA { return mul_add(load_at(a + i), by_t, rest); };
      });
    } else {
      write_rows([&](std::int64_t, std::int64_t at, const Pull<T>& pull) MPSNN_INLINE_LAMBDA {
        return [t = t_ + at, by_t = pull.by_t, rest = pull.rest](std::int64_t i, auto load_at)
                   MPSNN_INLINE_LAMBDA { return mul_add(load_at(t + i), by_t, rest); };
      });
    }
  }
  Pull<T> pull_of(std::int64_t r) const {
    const V ratio = broadcast<V>(room_.labels[r] / room_.sums[r]);
    return Pull<T>(call_, ratio, broadcast<V>(room_.scales[r]));
  }

  /// The gradients of all rows; minus_a(row, first element, its pull) returns -a(index, load).
  template <class MinusA>
  MPSNN_INLINE_MEMBER void write_rows(MinusA minus_a) {
    V check{};
    for_each_row([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T* const e = room_.exponentials.elements + at;
      T* const out = gradients_out_ + at;
      const Pull<T> pull = pull_of(r);
      const auto of_row = minus_a(r, at, pull);
      for_each_vector(
          at, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
            const V gradient = mul_add(load_at(e + i), pull.by_e, of_row(i, load_at));
            store_at(out + i, gradient);
            check = mul_add(select<V>(live, gradient, V{}), V{}, check);
          });
    });
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const V limit = load<V>(room_.sums + r) * kDominant<T>;
      const Mask<V> dominated = load<V>(room_.largest + r) > limit;
      if (any<V>(dominated | (load<V>(room_.weights + r) == V{}))) mend_gradients(r);
    }
    if (has_nan(check)) find_lost_gradients();
  }
  /// Of rows with a dominant channel, and of those that weigh nothing, from row `begin` on.
  [[gnu::noinline]] void mend_gradients(std::int64_t begin) {
    for (std::int64_t r = begin; r < rows_ && r < begin + kWidth; ++r) {
      const std::int64_t at = r * call_.channels;
      const T limit = room_.sums[r] * kDominant<T>;
      if (room_.weights[r] == T(0)) {
        clear(gradients_out_, at);
      } else if (room_.largest[r] > limit) {
        put_dominant(at, broadcast<V>(limit));
      }
    }
  }
  /// A gradient that is not finite, or what it was before that of a dominant channel took its place.
  [[gnu::noinline]] void find_lost_gradients() {
    for_each_row([&](std::int64_t r, std::int64_t at) {
      if (room_.weights[r] == T(0)) return;
      const T sum = sum_of_row(at, [&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        return load_at(gradients_out_ + at + i) * V{};
      });
      note_lost(r, sum != 0, &Lost::gradient);
    });
  }
  /// Puts the dominant channel, the only one above the limit, among the gradients of a row.
  void put_dominant(std::int64_t at, V limit) const {
    const T* const e = room_.exponentials.elements + at;
    T* const out = gradients_out_ + at;
    std::int64_t channel = 0;
    const T others =
        sum_of_row(at, [&](std::int64_t i, auto load_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
          const Mask<V> dominant = live & (load_at(e + i) > limit);
          if (any<V>(dominant)) channel = i + first_true<V>(dominant);
          return other(load_at(out + i), dominant);
        });
    const T value = T(0) - others;
    if (value - value == 0) out[channel] = value;
  }

  MPSNN_INLINE_MEMBER void write_curvatures(std::int64_t r, std::int64_t at, V by_e) {
    const T* const e = room_.exponentials.elements + at;
    const V sum = broadcast<V>(room_.sums[r]), limit = sum * kDominant<T>;
    const T others = sum_of_row(at, [&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
      const V x = load_at(e + i);
      return select<V>(x > limit, V{}, x);
    });
    const Curvature<V> curvature(by_e, sum);
    for_each_vector(at, [&](std::int64_t i, auto load_at, auto store_at,
                            Mask<V>) MPSNN_INLINE_LAMBDA {
      const V x = load_at(e + i);
      store_at(hessians_out_ + at + i, curvature(x, limit, broadcast<V>(others)));
    });
    note_lost(r, has_nan(curvature.check(broadcast<V>(room_.largest[r]))), &Lost::hessian);
  }

  void clear(T* results, std::int64_t at) const {
    for (std::int64_t c = 0; results != nullptr && c < call_.channels; ++c) results[at + c] = T(0);
  }

  MPSNN_INLINE_MEMBER void note_lost(std::int64_t r, bool lost, bool Lost::* what) {
    if (!lost) [[likely]]
      return;
    for (std::int64_t i = 0; !any_lost_ && i < rows_; ++i) room_.lost[i] = {};
    any_lost_ = true;
    room_.lost[r].*what = true;
  }

  const SoftmaxCall<T>& call_;
  Room& room_;
  SoftmaxWriters<T> writers_;
  std::int64_t pixel_ = 0;
  const T *y_ = nullptr, *t_ = nullptr, *v_ = nullptr, *g_ = nullptr;
  T *losses_out_ = nullptr, *gradients_out_ = nullptr, *hessians_out_ = nullptr;
  bool any_lost_ = false;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
