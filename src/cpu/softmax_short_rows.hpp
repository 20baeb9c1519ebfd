// Softmax over rows of up to kMostInShortRows channels as they lie: those that do not gain from
// transposition, and those that are too few to go side by side. A tile has as many rows as fit, and
// goes from step to step, so that rows do not wait for one another.
#pragma once

#include <type_traits>

#include "cpu/row_exponentials.hpp"
#include "cpu/softmax_rows.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T, int kBefore = -1>
class ShortRows : RowExponentials<T, kBefore> {
  using Base = RowExponentials<T, kBefore>;
  using Base::any_row, Base::for_each_row, Base::for_each_vector, Base::sum_rows, Base::sum_of_row;
  using Base::e_, Base::exponentials_, Base::kMostRows, Base::kWidth, Base::rows_;
  using typename Base::V;

  struct Room {
    TileRooms<T> tiles;
    TileRoom<T> staged;
    TileRoom<T> products;  // t' g v
    typename Base::Exponentials exponentials;
    // One of each row.
    alignas(V) T weights[kMostRows];
    T scales[kMostRows], labels[kMostRows], others[kMostRows], logarithms[kMostRows];
    T losses[kMostRows], gradients[kMostRows];  // sums of them
    Pull<T> pulls[kMostRows / kWidth];          // a lane to a row
    Lost lost[kMostRows];
  };

 public:
  ShortRows(const SoftmaxCall<T>& call, Rooms& rooms)
      : ShortRows(call, *rooms.take<Room>(), rooms) {}

  static constexpr std::int64_t kScratchBytes =
      std::int64_t{sizeof(Room)} + 3 * std::int64_t{sizeof(WriterRoom<T>)} + 4 * Rooms::kSlack;

  /// Rows that run() takes at most.
  std::int64_t most_rows() const {
    const std::int64_t fit = kTileElements / call_.channels;
    return fit < kMostRows ? fit : kMostRows;
  }

  RowsDone<T> run(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    this->begin_rows(rows);
    any_lost_ = false;
    read_row_factors(call_, pixel, rows, room_.staged, room_.weights, room_.scales);
    stage_rows(pixel * call_.channels, rows * call_.channels);
    this->find_exponentials(y_, t_);
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
  ShortRows(const SoftmaxCall<T>& call, Room& room, Rooms& rooms)
      : Base(call.channels, room.exponentials, call.plan.gradient.streams),
        call_(call),
        room_(room),
        writers_(call.plan, rooms) {}

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

  /// log S.
  void find_logarithms() {
    sum_rows(room_.others, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T *const y = y_ + at, *const e = e_ + at;
      const V maximum = broadcast<V>(exponentials_.maxima[r]);
      return [=](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        return select<V>(load_at(y + i) == maximum, V{}, load_at(e + i));
      };
    });
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const V sum = load<V>(exponentials_.sums + r), largest = load<V>(exponentials_.largest + r);
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
      const V maximum = broadcast<V>(exponentials_.maxima[r]),
              log_sum = broadcast<V>(room_.logarithms[r]);
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
        const V maximum = broadcast<V>(exponentials_.maxima[r]);
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
    const T maximum = exponentials_.maxima[r];
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
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const V labels = load<V>(room_.labels + r), scales = load<V>(room_.scales + r);
      room_.pulls[r / kWidth] = Pull<T>(call_, labels / load<V>(exponentials_.sums + r), scales);
      const V check = check_of_pull(labels, scales);
      for (std::int64_t k = 0; has_nan(check) && k < kWidth && r + k < rows_; ++k) {
        const bool lost = check[k] != check[k];
        note_lost(r + k, lost, &Lost::gradient);
        note_lost(r + k, lost && call_.plan.want_hessian, &Lost::hessian);
      }
    }
    if (call_.plan.want_hessian) write_curvatures();
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
    return room_.pulls[r / kWidth].of_lane(static_cast<std::size_t>(r % kWidth));
  }

  /// The gradients of all rows; minus_a(row, first element, its pull) returns -a(index, load).
  template <class MinusA>
  MPSNN_INLINE_MEMBER void write_rows(MinusA minus_a) {
    if (has_dominant_rows() || !write_plain(minus_a)) write_row_by_row(minus_a);
    for (std::int64_t r = 0; call_.weighted && r < rows_; ++r) {
      if (room_.weights[r] == T(0)) clear(gradients_out_, r * call_.channels);
    }
  }
  bool has_dominant_rows() const {
    return any_row([&](std::int64_t r) {
      return load<V>(exponentials_.largest + r) > load<V>(exponentials_.sums + r) * kDominant<T>;
    });
  }
  V limit_of(std::int64_t r) const { return broadcast<V>(exponentials_.sums[r] * kDominant<T>); }

  /// (exponential, index, load) -> gradient, of a row.
  template <class MinusA>
  MPSNN_INLINE_MEMBER auto gradients_of(std::int64_t r, std::int64_t at, MinusA minus_a) const {
    const Pull<T> pull = pull_of(r);
    return [by_e = pull.by_e, of_row = minus_a(r, at, pull)](V e, std::int64_t i, auto load_at)
               MPSNN_INLINE_LAMBDA { return mul_add(e, by_e, of_row(i, load_at)); };
  }

  /// Of rows without a dominant channel; false where a gradient is not finite.
  template <class MinusA>
  MPSNN_INLINE_MEMBER bool write_plain(MinusA minus_a) {
    V check{};
    for_each_row([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T* const e = e_ + at;
      T* const out = gradients_out_ + at;
      const auto gradient_of = gradients_of(r, at, minus_a);
      for_each_vector(
          at, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
            const V gradient = gradient_of(load_at(e + i), i, load_at);
            store_at(out + i, gradient);
            check = mul_add(select<V>(live, gradient, V{}), V{}, check);
          });
    });
    return !has_nan(check);
  }
  /// With the sum of each row's gradients but that of a dominant channel, the only one above the
  /// limit, whose place it takes.
  template <class MinusA>
  MPSNN_INLINE_MEMBER void write_row_by_row(MinusA minus_a) {
    if constexpr (kBefore >= 0) return write_from_registers(minus_a);
    sum_rows(room_.gradients, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      return [limit = limit_of(r), e = e_ + at, gradient_of = gradients_of(r, at, minus_a)](
                 std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        const V x = load_at(e + i);
        return other(gradient_of(x, i, load_at), x > limit);
      };
    });
    for_each_row([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T *const e = e_ + at, others = room_.gradients[r];
      const bool finite = others - others == 0;
      const V limit = finite ? limit_of(r) : broadcast<V>(static_cast<T>(__builtin_inff()));
      const auto gradient_of = gradients_of(r, at, minus_a);
      for_each_vector(
          at, [&](std::int64_t i, auto load_at, auto store_at, Mask<V>) MPSNN_INLINE_LAMBDA {
            const V x = load_at(e + i);
            store_at(gradients_out_ + at + i,
                     select<V>(x > limit, broadcast<V>(T(0) - others), gradient_of(x, i, load_at)));
          });
      if (!finite) [[unlikely]]
        note_gradients(r, at);
    });
  }

  /// The same of rows that fit into registers, where no gradient is computed twice.
  template <class MinusA>
  MPSNN_INLINE_MEMBER void write_from_registers(MinusA minus_a) {
    for_each_row([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T* const e = e_ + at;
      const auto gradient_of = gradients_of(r, at, minus_a);
      V limit = limit_of(r), sum{}, gradients[kBefore + 1];
      int k = 0;
      for_each_vector(at,
                      [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
                        const V x = load_at(e + i);
                        gradients[k] = gradient_of(x, i, load_at);
                        sum += select<V>(live, other(gradients[k++], x > limit), V{});
                      });
      const T others = sum_of_lanes(sum);
      const bool finite = others - others == 0;
      if (!finite) limit = broadcast<V>(static_cast<T>(__builtin_inff()));
      k = 0;
      for_each_vector(at, [&](std::int64_t i, auto load_at, auto store_at,
                              Mask<V>) MPSNN_INLINE_LAMBDA {
        store_at(gradients_out_ + at + i,
                 select<V>(load_at(e + i) > limit, broadcast<V>(T(0) - others), gradients[k++]));
      });
      if (!finite) [[unlikely]]
        note_gradients(r, at);
    });
  }
  /// Of a row whose sum is not finite: of finite gradients only a dominant channel gets the sum.
  void note_gradients(std::int64_t r, std::int64_t at) {
    bool lost = exponentials_.largest[r] > exponentials_.sums[r] * kDominant<T>;
    for (std::int64_t c = 0; c < call_.channels; ++c) {
      const T gradient = gradients_out_[at + c];
      lost = lost || gradient - gradient != 0;
    }
    note_lost(r, lost, &Lost::gradient);
  }

  void write_curvatures() {
    const bool dominant = has_dominant_rows();
    if (dominant) {
      sum_rows(room_.others, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
        return [limit = limit_of(r), e = e_ + at](std::int64_t i, auto load_at, Mask<V>)
                   MPSNN_INLINE_LAMBDA {
                     const V x = load_at(e + i);
                     return select<V>(x > limit, V{}, x);
                   };
      });
    }
    for_each_row([&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      if (room_.weights[r] == T(0)) return clear(hessians_out_, at);
      const T* const e = e_ + at;
      T* const out = hessians_out_ + at;
      const V limit = limit_of(r), others = broadcast<V>(dominant ? room_.others[r] : T(0));
      const Curvature<V> curvature(pull_of(r).by_e, broadcast<V>(exponentials_.sums[r]));
      for_each_vector(
          at, [&](std::int64_t i, auto load_at, auto store_at, Mask<V>) MPSNN_INLINE_LAMBDA {
            const V x = load_at(e + i);
            store_at(out + i, dominant ? curvature(x, limit, others) : curvature(x));
          });
      const V check = curvature.check(broadcast<V>(exponentials_.largest[r]));
      note_lost(r, has_nan(check), &Lost::hessian);
    });
  }

  void clear(T* results, std::int64_t at) const {
    for (std::int64_t c = 0; results != nullptr && c < call_.channels; ++c) results[at + c] = T(0);
  }

  MPSNN_INLINE_MEMBER void note_lost(std::int64_t r, bool lost, bool Lost::* what) {
    if (!lost || room_.weights[r] == T(0)) [[likely]]
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
