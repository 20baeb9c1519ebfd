// Softmax over rows of up to kMostInShortRows channels as they lie: those that do not gain from
// transposition, and those that are too few to go side by side. A tile has as many rows as fit, and
// goes from step to step, so that rows do not wait for one another. Sums come in the order of rows
// side by side, so that a row has the same bits alone and among others.
#pragma once

#include "cpu/softmax_rows.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
class ShortRows {
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);
  /// Rows of whole vectors that a tile's rows take at most.
  static constexpr std::int64_t kPadded = 2 * kTileElements;

  struct Room {
    TileRooms<T> tiles;
    TileRoom<T> staged;
    alignas(V) T exponentials[kPadded];
    alignas(V) T products[kPadded];  // t' g v
    // One of each row.
    alignas(V) T weights[kTileElements];
    T scales[kTileElements], maxima[kTileElements], sums[kTileElements], labels[kTileElements];
    T largest[kTileElements], others[kTileElements], logarithms[kTileElements];
    T losses[kTileElements];
    Lost lost[kTileElements];
  };

 public:
  ShortRows(const SoftmaxCall<T>& call, Rooms& rooms)
      : call_(call),
        stride_((call.channels + kWidth - 1) / kWidth * kWidth),
        room_(*rooms.take<Room>()),
        writers_(call.plan, rooms) {}

  static constexpr std::int64_t kScratchBytes =
      std::int64_t{sizeof(Room)} + 3 * std::int64_t{sizeof(WriterRoom<T>)} + 4 * Rooms::kSlack;

  /// Rows that run() takes at most.
  std::int64_t most_rows() const {
    const std::int64_t padded = kPadded / stride_, fit = kTileElements / call_.channels;
    return padded < fit ? padded : fit;
  }

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
    advance(rows * call_.channels);
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
      if (weighs_nothing(v_ + r * call_.channels)) room_.weights[r] = T(0);
    }
    losses_out_ = call_.writes_losses ? writers_.loss.room(first) : nullptr;
    gradients_out_ = plan.want_gradient ? writers_.gradient.room(first) : nullptr;
    hessians_out_ = plan.want_hessian ? writers_.hessian.room(first) : nullptr;
  }

  bool weighs_nothing(const T* v) const {
    for (std::int64_t c = 0; c < call_.channels; ++c) {
      if (v[c] != T(0)) return false;
    }
    return true;
  }

  void advance(std::int64_t count) {
    if (losses_out_ != nullptr) writers_.loss.advance(count);
    if (gradients_out_ != nullptr) writers_.gradient.advance(count);
    if (hessians_out_ != nullptr) writers_.hessian.advance(count);
  }

  /// Calls body(index, load, store, live lanes) along a row, the last time with the lanes that are
  /// left.
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_vector(Body body) const {
    std::int64_t i = 0;
    for (; i + kWidth <= call_.channels; i += kWidth) {
      body(
          i, [](const T* at) MPSNN_INLINE_LAMBDA { return load<V>(at); },
          [](T* to, V x) MPSNN_INLINE_LAMBDA { store<V>(to, x); }, ~Mask<V>{});
    }
    if (i == call_.channels) return;
    const auto rest = static_cast<std::size_t>(call_.channels - i);
    body(
        i, [rest](const T* at) MPSNN_INLINE_LAMBDA { return load_first<V>(at, rest); },
        [rest](T* to, V x) MPSNN_INLINE_LAMBDA { store_first<V>(to, x, rest); },
        first_lanes<V>(rest));
  }

  /// Calls body(row, its first element in the tile, and in rows of whole vectors).
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_row(Body body) const {
    for (std::int64_t r = 0; r < rows_; ++r) body(r, r * call_.channels, r * stride_);
  }

  /// Σ term(index, load, live lanes) over the channels, in the order of sum_of_channels.
  template <class Term>
  MPSNN_INLINE_MEMBER T sum_of_row(Term term) const {
    constexpr std::int64_t parts = kParts<V>;
    const bool by_parts = call_.channels <= kMostTransposed;
    V sum{};
    T part[parts] = {};
    for_each_vector([&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
      const V x = select<V>(live, term(i, load_at, live), V{});
      if (!by_parts) {
        sum += x;
        return;
      }
      T of_x[kWidth];
      store<V>(of_x, x);
      for (std::int64_t k = 0; k < kWidth; ++k) part[k % parts] += of_x[k];
    });
    if (!by_parts) return sum_of_lanes(sum);
    if constexpr (parts == 2) return part[0] + part[1];
    return (part[0] + part[parts / 2]) + (part[1] + part[parts - 1]);
  }

  void find_exponentials() {
    for_each_row([&](std::int64_t r, std::int64_t at, std::int64_t) MPSNN_INLINE_LAMBDA {
      const T* const y = y_ + at;
      V maximum = broadcast<V>(-static_cast<T>(__builtin_inff()));
      for_each_vector([&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
        maximum = larger(select<V>(live, load_at(y + i), maximum), maximum);
      });
      room_.maxima[r] = fold_lanes(maximum, Larger());
    });
    const bool large = call_.plan.gradient.streams;
    for_each_row([&](std::int64_t r, std::int64_t at, std::int64_t padded) MPSNN_INLINE_LAMBDA {
      const T *const y = y_ + at, *const t = t_ == nullptr ? y : t_ + at;
      T* const e = room_.exponentials + padded;
      const V maximum = broadcast<V>(room_.maxima[r]);
      const ExpShift<V> shift(maximum);
      room_.sums[r] =
          sum_of_row([&](std::int64_t i, auto load_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
            if (large) {  // the next tile's
              __builtin_prefetch(y + i + kTileElements);
              __builtin_prefetch(t + i + kTileElements);
            }
            // Nothing behind the end of a row may look dominant.
            const V x = select<V>(live, shift.exp(load_at(y + i)), V{});
            store<V>(e + i, x);
            return x;
          });
      if (call_.needs_log() || call_.plan.want_hessian) room_.largest[r] = shift.exp(maximum)[0];
    });
  }

  /// log S.
  void find_logarithms() {
    for_each_row([&](std::int64_t r, std::int64_t at, std::int64_t padded) MPSNN_INLINE_LAMBDA {
      const T *const y = y_ + at, *const e = room_.exponentials + padded;
      const V maximum = broadcast<V>(room_.maxima[r]);
      room_.others[r] = sum_of_row([&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        return select<V>(load_at(y + i) == maximum, V{}, load<V>(e + i));
      });
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
    for_each_row([&](std::int64_t r, std::int64_t at, std::int64_t) {
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
          [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
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
    for_each_row([&](std::int64_t r, std::int64_t at, std::int64_t padded) MPSNN_INLINE_LAMBDA {
      if (call_.has_factors) {
        const Factors<V> by = factors_of(at);
        T* const a = room_.products + padded;
        room_.labels[r] =
            sum_of_row([&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
              const V x = by.multiply(call_.smoothed(load_at(t_ + at + i)), i, load_at);
              store<V>(a + i, x);
              return x;
            });
        return;
      }
      T sum = 1;
      if (!call_.by_class) {
        sum = sum_of_row([&](std::int64_t i, auto load_at, Mask<V>)
                             MPSNN_INLINE_LAMBDA { return load_at(t_ + at + i); });
      }
      room_.labels[r] = call_.smoothed_sum(broadcast<V>(sum))[0];
    });
  }

  /// The reduced losses: Σ a log S + Σ a (max y - y).
  void find_losses() {
    for_each_row([&](std::int64_t r, std::int64_t at, std::int64_t padded) MPSNN_INLINE_LAMBDA {
      const T *const y = y_ + at, *const a = room_.products + padded;
      const V maximum = broadcast<V>(room_.maxima[r]);
      T cross = 0;
      if (call_.by_class) {
        cross = cross_of_class(r, y);
      } else {
        cross = sum_of_row([&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
          const V label = call_.has_factors ? load<V>(a + i) : call_.smoothed(load_at(t_ + at + i));
          return label_product(label, maximum - load_at(y + i));
        });
      }
      const T label = room_.labels[r];
      const T total = (label == T(0) ? T(0) : label * room_.logarithms[r]) + cross;
      const T weight = room_.weights[r];
      room_.losses[r] = weight == T(0) ? T(0) : total * weight;
      note_lost(r, room_.losses[r] - room_.losses[r] != 0, &Lost::loss);
    });
  }
  T cross_of_class(std::int64_t r, const T* y) const {
    const T maximum = room_.maxima[r];
    T cross = 0;
    if (call_.label_offset != T(0)) {
      cross = sum_of_row([&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        return (broadcast<V>(maximum) - load_at(y + i)) * call_.label_offset;
      });
    }
    const std::int64_t index = call_.class_of(pixel_ + r);
    const bool counts = index >= 0 && call_.label_scale != T(0);
    return counts ? cross + (maximum - y[index]) * call_.label_scale : cross;
  }

  void write_gradients() {
    for_each_row([&](std::int64_t r, std::int64_t at, std::int64_t padded) MPSNN_INLINE_LAMBDA {
      if (room_.weights[r] == T(0)) return clear(gradients_out_, at), clear(hessians_out_, at);
      const V ratio = broadcast<V>(room_.labels[r] / room_.sums[r]);
      const Pull<T> pull(call_, ratio, broadcast<V>(room_.scales[r]));
      const T *const t = t_ == nullptr ? nullptr : t_ + at, *const a = room_.products + padded;
      if (call_.plan.want_hessian) write_curvatures(r, at, padded, pull.by_e);
      if (call_.by_class) {
        const std::int64_t hot = call_.class_of(pixel_ + r);
        write_row(r, at, padded, pull.by_e, [&](std::int64_t i, auto) MPSNN_INLINE_LAMBDA {
          return select<V>(one_at<V>(hot - i) != V{}, pull.hot, pull.rest);
        });
      } else if (call_.has_factors) {
        write_row(r, at, padded, pull.by_e, [&](std::int64_t i, auto) MPSNN_INLINE_LAMBDA {
          return mul_add(load<V>(a + i), pull.by_t, pull.rest);
        });
      } else {
        write_row(r, at, padded, pull.by_e, [&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
          return mul_add(load_at(t + i), pull.by_t, pull.rest);
        });
      }
    });
  }

  /// The gradients of a row; minus_a(index, load): -a.
  template <class MinusA>
  MPSNN_INLINE_MEMBER void write_row(std::int64_t r, std::int64_t at, std::int64_t padded, V by_e,
                                     MinusA minus_a) {
    const T* const e = room_.exponentials + padded;
    T* const out = gradients_out_ + at;
    const V limit = broadcast<V>(room_.sums[r] * kDominant<T>);
    Mask<V> dominated{};
    T others = sum_of_row([&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
      const V x = load<V>(e + i), gradient = mul_add(x, by_e, minus_a(i, load_at));
      const std::int64_t rest = call_.channels - i;
      rest < kWidth ? store_first<V>(out + i, gradient, static_cast<std::size_t>(rest))
                    : store<V>(out + i, gradient);
      dominated |= x > limit;
      return gradient;
    });
    if (any<V>(dominated)) others = put_dominant(e, out, limit);
    note_lost(r, others - others != 0, &Lost::gradient);
  }
  /// Puts the dominant channel, the only one above the limit, among the gradients of a row; returns
  /// the sum of the others.
  [[gnu::noinline]] T put_dominant(const T* e, T* out, V limit) const {
    std::int64_t channel = 0;
    const T others = sum_of_row([&](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
      const Mask<V> dominant = load<V>(e + i) > limit;
      if (any<V>(dominant)) channel = i + first_true<V>(dominant);
      return other(load_at(out + i), dominant);
    });
    const T value = T(0) - others;
    if (value - value == 0 && channel < call_.channels) out[channel] = value;
    return others;
  }

  MPSNN_INLINE_MEMBER void write_curvatures(std::int64_t r, std::int64_t at, std::int64_t padded,
                                            V by_e) {
    const T* const e = room_.exponentials + padded;
    const V sum = broadcast<V>(room_.sums[r]), limit = sum * kDominant<T>;
    const T others = sum_of_row([&](std::int64_t i, auto, Mask<V>) MPSNN_INLINE_LAMBDA {
      const V x = load<V>(e + i);
      return select<V>(x > limit, V{}, x);
    });
    const Curvature<V> curvature(by_e, sum);
    for_each_vector([&](std::int64_t i, auto, auto store_at, Mask<V>) MPSNN_INLINE_LAMBDA {
      const V x = load<V>(e + i), of_dominant = curvature.of_dominant(x, broadcast<V>(others));
      store_at(hessians_out_ + at + i, select<V>(x > limit, of_dominant, curvature(x)));
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
  const std::int64_t stride_;  // of rows of whole vectors
  Room& room_;
  SoftmaxWriters<T> writers_;
  std::int64_t pixel_ = 0, rows_ = 0;
  const T *y_ = nullptr, *t_ = nullptr, *v_ = nullptr, *g_ = nullptr;
  T *losses_out_ = nullptr, *gradients_out_ = nullptr, *hessians_out_ = nullptr;
  bool any_lost_ = false;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
