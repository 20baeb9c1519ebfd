// Softmax over long rows, one at a time: maximum, exponentials and sums, then the results, tile by
// tile. Sums are in float64 beyond a tile. Rows of any length that left the range of float32 come
// here too, to be computed once more in float64.
#pragma once

#include <type_traits>

#include "cpu/softmax_rows.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
class LongRows {
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);
  static constexpr auto kBlockWidth = kWidth * std::int64_t{kBlock};
  using Yes = std::true_type;
  using No = std::false_type;

 public:
  LongRows(const SoftmaxCall<T>& call, Rooms& rooms)
      : call_(call),
        tiles_(*rooms.take<TileRooms<T>>()),
        labels_(*rooms.take<TileRoom<T>>()),
        exponentials_(rooms.take<T>(call.channels + kWidth)),
        writers_(call.plan, rooms) {}

  static std::int64_t scratch_bytes(std::int64_t channels) {
    return static_cast<std::int64_t>(sizeof(TileRooms<T>) + sizeof(TileRoom<T>)) +
           3 * std::int64_t{sizeof(WriterRoom<T>)} + (channels + kWidth) * std::int64_t{sizeof(T)} +
           6 * Rooms::kSlack;
  }

  /// Computes one row.
  RowsDone<T> run(std::int64_t pixel, std::int64_t) {
    loss_ = T(0);
    lost_ = {};
    pixel_ = pixel;
    first_ = pixel * call_.channels;
    read_row_factors(call_, pixel, 1, tiles_.v, &weight_, &scale_);
    if (weight_ == T(0) || weighs_nothing()) {
      write_zeros();
      return {&loss_, nullptr};
    }
    find_maximum();
    const bool loss = call_.needs_log();
    if (call_.by_class) {
      loss ? sum_up(No(), Yes()) : sum_up(No(), No());
    } else {
      loss ? sum_up(Yes(), Yes()) : sum_up(Yes(), No());
    }
    if (call_.reduces) {
      const T total = (label_sum_ == T(0) ? T(0) : label_sum_ * log_sum_) + cross_;
      loss_ = total * weight_;
      lost_.loss = loss_ - loss_ != 0;
    }
    if (call_.writes_values()) write_values();
    if (call_.pulls) write_gradient();
    return {&loss_, lost_ ? &lost_ : nullptr};
  }

  /// Writes what still waits for the rest of its line.
  void flush() { writers_.flush(); }

 private:
  /// Calls body(first channel, count) for each tile of the row.
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_tile(Body body) const {
    for (std::int64_t c = 0; c < call_.channels; c += kTileElements) {
      const std::int64_t rest = call_.channels - c;
      body(c, rest < kTileElements ? rest : kTileElements);
    }
  }

  /// Calls body(part, index, load, store, live lanes) for each vector of a tile, the last of which
  /// may be a part of one. Calls after(vectors) after each block, whose parts count from 0, and
  /// after each vector that is left over, which is of part 0.
  template <class Body, class After>
  MPSNN_INLINE void for_each_vector(std::int64_t count, Body body, After after) {
    const auto whole_load = [](const T* at) { return load<V>(at); };
    const auto whole_store = [](T* to, V x) { store<V>(to, x); };
    std::int64_t i = 0;
    for (; i + kBlockWidth <= count; i += kBlockWidth) {
      for (std::size_t k = 0; k < kBlock; ++k)
        body(k, i + static_cast<std::int64_t>(k) * kWidth, whole_load, whole_store, ~Mask<V>{});
      after(kBlock);
    }
    for (; i + kWidth <= count; i += kWidth) {
      body(std::size_t{0}, i, whole_load, whole_store, ~Mask<V>{});
      after(1);
    }
    if (i == count) return;
    const auto rest = static_cast<std::size_t>(count - i);
    body(
        std::size_t{0}, i,
        [rest](const T* at) MPSNN_INLINE_LAMBDA { return load_first<V>(at, rest); },
        [rest](T* to, V x) MPSNN_INLINE_LAMBDA { store_first<V>(to, x, rest); },
        first_lanes<V>(rest));
    after(1);
  }
  template <class Body>
  MPSNN_INLINE void for_each_vector(std::int64_t count, Body body) {
    for_each_vector(count, body, [](std::size_t) {});
  }

  const T* predictions(std::int64_t c, std::int64_t count) {
    return stage(call_.plan.predictions, call_.plan.shape, first_ + c, count, tiles_.y);
  }
  Factors<V> factors(std::int64_t c, std::int64_t count) {
    Factors<V> result;
    if (!call_.has_factors) return result;
    const Plan& plan = call_.plan;
    result.v = stage_weights(plan, first_ + c, count, tiles_.v);
    if (plan.source_gradients.data != nullptr)
      result.g = stage(plan.source_gradients, plan.shape, first_ + c, count, tiles_.g);
    return result;
  }
  /// t, or with factors t' g v.
  const T* labels(std::int64_t c, std::int64_t count) {
    if (call_.by_class) return nullptr;
    const T* const t = stage_labels(call_.plan, first_ + c, count, tiles_.t);
    if (!call_.has_factors) return t;
    const Factors<V> by = factors(c, count);
    T* const to = labels_.elements;
    for_each_vector(count, [&](std::size_t, std::int64_t i, auto load_at, auto store_at,
                               Mask<V>) MPSNN_INLINE_LAMBDA {
      store_at(to + i, by.multiply(call_.smoothed(load_at(t + i)), i, load_at));
    });
    return to;
  }

  /// True where v is 0 in every channel.
  bool weighs_nothing() {
    if (!call_.has_factors || !call_.weighted) return false;
    bool weighs = false;
    for_each_tile([&](std::int64_t c, std::int64_t count) {
      const T* const v = stage_weights(call_.plan, first_ + c, count, tiles_.v);
      for (std::int64_t i = 0; i < count; ++i) weighs = weighs || v[i] != T(0);
    });
    return !weighs;
  }

  void find_maximum() {
    Block<V> part;
    for (V& m : part) m = broadcast<V>(-static_cast<T>(__builtin_inff()));
    for_each_tile([&](std::int64_t c, std::int64_t count) {
      const T* const y = predictions(c, count);
      Block<V> here = {part[0], part[1], part[2], part[3]};  // stays in registers
      for_each_vector(count, [&](std::size_t k, std::int64_t i, auto load_at, auto,
                                 Mask<V> live) MPSNN_INLINE_LAMBDA {
        here[k] = larger(select<V>(live, load_at(y + i), here[k]), here[k]);
      });
      for (std::size_t k = 0; k < kBlock; ++k) part[k] = here[k];
    });
    maximum_ = fold_lanes(larger(larger(part[0], part[1]), larger(part[2], part[3])), Larger());
  }

  /// Where the exponentials are kept: in the row's gradient where one follows and is in place, to
  /// be overwritten.
  T* place_of_exponentials() {
    const Sink& gradient = call_.plan.gradient;
    return call_.pulls && is_in_place<T>(gradient) ? place_of<T>(gradient, first_) : exponentials_;
  }

  /// The exponentials, and Σ e, Σ a and for losses Σ a (max y - y).
  template <bool kLabels, bool kLoss>
  void sum_up(std::bool_constant<kLabels>, std::bool_constant<kLoss>) {
    const V maximum = broadcast<V>(maximum_);
    const ExpShift<V> shift(maximum);
    T* const all = place_of_exponentials();
    const SoftmaxCall<T> call = call_;  // stores could change what is read through a reference
    // In float32 small exponentials would be rounded away beside the largest.
    Accumulator<T> exponentials;
    TileSum<T> label_sums, cross;
    const bool reads_ahead = call.plan.gradient.streams;
    for_each_tile([&](std::int64_t c, std::int64_t count) MPSNN_INLINE_LAMBDA {
      const T* const y = predictions(c, count);
      const T* const t = kLabels ? labels(c, count) : nullptr;
      T* const e = all + c;
      Block<V> block;
      const auto step = [&](std::size_t k, std::int64_t i, auto load_at, auto store_at,
                            Mask<V> live) MPSNN_INLINE_LAMBDA {
        if (reads_ahead) {  // the next tile or row: while exponentials are computed, memory has
                            // time
          __builtin_prefetch(y + i + kTileElements);
          if constexpr (kLabels) __builtin_prefetch(t + i + kTileElements);
        }
        const V in = load_at(y + i), x = shift.exp(in);
        store_at(e + i, x);
        block[k] = select<V>(live, x, V{});
        V a = broadcast<V>(call.label_offset);
        if constexpr (kLabels) {
          label_sums.add(k, a = load_at(t + i));
          if (!call.has_factors) a = call.smoothed(a);
        }
        if constexpr (kLoss) cross.add(k, select<V>(live & (a != V{}), a * (maximum - in), V{}));
      };
      for_each_vector(count, step, [&](std::size_t vectors) MPSNN_INLINE_LAMBDA {
        vectors == kBlock ? exponentials.add_block(block) : exponentials.add(block[0]);
      });
      label_sums.end_tile();
      cross.end_tile();
    });
    const double sum = exponentials.total(), largest = static_cast<double>(shift.exp(maximum)[0]);
    double label = kLabels ? label_sums.total() : 1;
    if (!call.has_factors)
      label = label * call.plan.label_scale +
              call.plan.label_offset * static_cast<double>(call.channels);
    sum_ = static_cast<T>(sum);
    label_sum_ = static_cast<T>(label);
    ratio_ = static_cast<T>(label / sum);
    largest_ = static_cast<T>(largest);
    dominated_ = largest_ > sum_ * kDominant<T>;
    if constexpr (kLoss) {
      cross_ = static_cast<T>(cross.total()) + class_term();
      log_sum_ = static_cast<T>(__builtin_log(sum / largest));
    }
  }

  /// (1 - s) (max y - y) of the class.
  T class_term() const {
    const Plan& plan = call_.plan;
    const std::int64_t index = call_.by_class ? call_.class_of(pixel_) : -1;
    if (index < 0 || plan.label_scale == 0) return 0;
    const Source& source = plan.predictions;
    const std::int64_t row = place_of_pixel(source.strides, plan.shape, pixel_);
    const T y = read_element<T>(source.data, source.format, row + index * source.strides[3]);
    return call_.label_scale * (maximum_ - y);
  }

  /// Writes value(index, load) for each vector of the row; true where one is no finite number.
  /// prepare(first channel, count) stages what a tile of them needs.
  template <class Prepare, class Value>
  bool write_values(TileWriter<T>& writer, Prepare prepare, Value value) {
    V check{};
    for_each_tile([&](std::int64_t c, std::int64_t count) {
      prepare(c, count);
      T* const out = writer.room(first_ + c);
      for_each_vector(count, [&](std::size_t, std::int64_t i, auto load_at, auto store_at,
                                 Mask<V> live) MPSNN_INLINE_LAMBDA {
        const V x = value(i, load_at);
        store_at(out + i, x);
        check = mul_add(select<V>(live, x, V{}), V{}, check);
      });
      writer.advance(count);
    });
    return has_nan(check);
  }

  /// Losses that are not reduced, and label gradients: both are products with -lp.
  void write_values() {
    const V maximum = broadcast<V>(maximum_), log_sum = broadcast<V>(log_sum_);
    const SoftmaxCall<T> call = call_;
    const T *y = nullptr, *t = nullptr;
    Factors<V> by;
    const auto prepare = [&](std::int64_t c, std::int64_t count) {
      y = predictions(c, count);
      t = call.writes_losses ? stage_labels(call.plan, first_ + c, count, tiles_.t) : nullptr;
      by = factors(c, count);
    };
    const auto minus_lp = [&](std::int64_t i, auto load_at)
                              MPSNN_INLINE_LAMBDA { return log_sum + (maximum - load_at(y + i)); };
    if (call.writes_losses) {
      const V scale = broadcast<V>(weight_ * static_cast<T>(call.plan.loss_scale));
      lost_.loss = write_values(
          writers_.loss, prepare, [&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
            const V u = label_product(call.smoothed(load_at(t + i)), minus_lp(i, load_at));
            return by.weigh(u, scale, i, load_at);
          });
    }
    if (call.writes_label_gradients) {
      const V scale = broadcast<V>(scale_ * call.label_scale);
      lost_.gradient = write_values(writers_.gradient, prepare,
                                    [&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
                                      return by.multiply(minus_lp(i, load_at) * scale, i, load_at);
                                    });
    }
  }

  void write_gradient() {
    if (call_.by_class) {
      dominated_ ? write_gradient(No(), Yes()) : write_gradient(No(), No());
    } else {
      dominated_ ? write_gradient(Yes(), Yes()) : write_gradient(Yes(), No());
    }
  }

  template <bool kLabels, bool kDominated>
  void write_gradient(std::bool_constant<kLabels>, std::bool_constant<kDominated>) {
    const Pull<T> pull(call_, broadcast<V>(ratio_), broadcast<V>(scale_));
    const V limit = broadcast<V>(sum_ * kDominant<T>);
    const std::int64_t hot = kLabels ? -1 : call_.class_of(pixel_);
    T* const all = place_of_exponentials();
    const Curvature<V> curvature(pull.by_e, broadcast<V>(sum_));
    const V others_of_e = others_of(all, limit);
    Accumulator<T> others;
    const std::int64_t dominant = kDominated ? first_above(all, call_.channels, limit) : -1;
    V check{};
    for_each_tile([&](std::int64_t c, std::int64_t count) MPSNN_INLINE_LAMBDA {
      const T* const t = kLabels ? labels(c, count) : nullptr;
      const T* const e = all + c;
      if (call_.plan.want_hessian) write_curvatures(c, count, e, curvature, others_of_e);
      T* const out = writers_.gradient.room(first_ + c);
      const bool holds_hot = hot >= c && hot < c + count;
      const V of_class = mul_add(broadcast<V>(holds_hot ? e[hot - c] : T(0)), pull.by_e, pull.hot);
      Block<V> block;
      const auto step = [&](std::size_t k, std::int64_t i, auto load_at, auto store_at,
                            Mask<V> live) MPSNN_INLINE_LAMBDA {
        const V x = load_at(e + i);
        V minus_a = pull.rest;
        if constexpr (kLabels) {
          minus_a = mul_add(load_at(t + i), pull.by_t, pull.rest);
        } else if constexpr (kDominated) {
          minus_a = mul_add(one_at<V>(hot - c - i), pull.by_t, pull.rest);
        }
        const V gradient = mul_add(x, pull.by_e, minus_a);
        store_at(out + i, gradient);
        check = mul_add(gradient, V{}, check);
        if constexpr (kDominated) {
          block[k] = select<V>(live & ~(x > limit), gradient, V{});
        }
      };
      for_each_vector(count, step, [&](std::size_t vectors) MPSNN_INLINE_LAMBDA {
        if constexpr (kDominated)
          vectors == kBlock ? others.add_block(block) : others.add(block[0]);
      });
      if (!kLabels && holds_hot) out[hot - c] = of_class[0];
      writers_.gradient.advance(count);
    });
    lost_.gradient = has_nan(check);
    lost_.hessian = call_.plan.want_hessian && has_nan(curvature.check(broadcast<V>(largest_)));
    if (dominant >= 0 && !lost_.gradient) put_dominant(dominant, static_cast<T>(others.total()));
  }

  /// Σ e without the dominant channel, of which the Hessian makes 1 - p.
  V others_of(const T* all, V limit) const {
    if (!dominated_ || !call_.plan.want_hessian) return V{};
    Accumulator<T> others;
    for_each_tile([&](std::int64_t c, std::int64_t count) {
      for_each_vector(
          count, [&](std::size_t, std::int64_t i, auto load_at, auto, Mask<V>) MPSNN_INLINE_LAMBDA {
            const V x = load_at(all + c + i);
            others.add(select<V>(x > limit, V{}, x));
          });
    });
    return broadcast<V>(static_cast<T>(others.total()));
  }

  void write_curvatures(std::int64_t c, std::int64_t count, const T* e,
                        const Curvature<V>& curvature, V others) {
    const V limit = broadcast<V>(dominated_ ? sum_ * kDominant<T> : T(__builtin_inff()));
    T* const out = writers_.hessian.room(first_ + c);
    for_each_vector(count, [&](std::size_t, std::int64_t i, auto load_at, auto store_at, Mask<V>)
                               MPSNN_INLINE_LAMBDA {
                                 const V x = load_at(e + i);
                                 store_at(out + i, curvature(x, limit, others));
                               });
    writers_.hessian.advance(count);
  }

  /// Puts the gradient of the dominant channel among those that have left already.
  void put_dominant(std::int64_t channel, T others) {
    const T value = T(0) - others;
    if (value - value != 0) return;
    writers_.gradient.flush();
    scatter(&value, 1, call_.plan.gradient, call_.plan.shape, first_ + channel);
  }

  void write_zeros() {
    const auto write = [&](TileWriter<T>& writer) {
      for_each_tile([&](std::int64_t c, std::int64_t count) {
        T* const out = writer.room(first_ + c);
        for (std::int64_t i = 0; i < count; ++i) out[i] = T(0);
        writer.advance(count);
      });
    };
    if (call_.writes_losses) write(writers_.loss);
    if (call_.plan.want_gradient) write(writers_.gradient);
    if (call_.plan.want_hessian) write(writers_.hessian);
  }

  const SoftmaxCall<T>& call_;
  TileRooms<T>& tiles_;
  TileRoom<T>& labels_;
  T* const exponentials_;
  SoftmaxWriters<T> writers_;

  std::int64_t pixel_ = 0, first_ = 0;  // first_: element of channel 0
  T weight_ = 0, scale_ = 0;            // v and g ω v / D
  T maximum_ = 0, sum_ = 0;             // max y and S
  T largest_ = 0;                       // the exponential of max y
  T label_sum_ = 0, ratio_ = 0;         // Σ a, without the scale, and that by S
  T cross_ = 0, log_sum_ = 0;           // for losses: Σ a (max y - y) and log S
  bool dominated_ = false;
  T loss_ = 0;  // where losses are reduced
  Lost lost_;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
