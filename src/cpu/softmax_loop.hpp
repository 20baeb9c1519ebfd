// The loop of softmax cross entropy, whose channels are coupled: a row of C channels per pixel.
//
//   e_c = exp(y_c - max y), S = Σ e_c        -lp_c = log S + (max y - y_c), both parts >= 0
//   a_c = g_c ω v_c t'_c / D                 dL/dy_j = e_j (Σ a_c / S) - a_j
//                                            dL/dt_c = g_c ω v_c (1 - s) (-lp_c) / D
//
// One algorithm in two layouts. Wide: the lanes of a vector hold neighbouring channels of one row.
// Narrow, for few channels: they hold one channel of neighbouring rows, which were transposed, so
// that no lane is idle and nothing is summed across lanes. `across` is what differs.
#pragma once

#include <type_traits>

#include "cpu/formulas.hpp"
#include "cpu/math.hpp"
#include "cpu/plan.hpp"
#include "cpu/staging.hpp"

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

/// One row, or as many as a vector has lanes. Factors: weights or source gradients differ from
/// channel to channel.
template <class T, bool Narrow, bool Factors>
class SoftmaxRows {
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);
  static constexpr auto kBlockWidth = kWidth * std::int64_t{kBlock};

 public:
  static constexpr std::int64_t kMostRows = Narrow ? kWidth : 1;

  /// `row_scratch`: room for the exponentials of a wide row.
  SoftmaxRows(const Plan& plan, std::byte* row_scratch, TileWriter<T>& loss_writer,
              TileWriter<T>& gradient_writer)
      : plan_(plan),
        channels_(plan.shape.channels),
        pulls_(plan.want_gradient && !plan.by_labels),
        reduces_(plan.want_loss && plan.loss.data == nullptr),
        writes_values_((plan.want_loss && !reduces_) || (plan.want_gradient && plan.by_labels)),
        by_class_(plan.class_indices != nullptr && !Factors && !writes_values_),
        has_row_values_(is_weighted(plan) || plan.scale_per_image),
        row_scratch_(row_scratch),
        loss_writer_(loss_writer),
        gradient_writer_(gradient_writer) {}

  /// Writes the outputs of `rows` rows; returns the sum of their losses where those are reduced to
  /// one.
  double run(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    rows_ = rows;
    first_ = pixel * channels_;
    loss_check_ = gradient_check_ = V{};
    live_ = Narrow ? first_lanes<V>(static_cast<std::size_t>(rows)) : ~Mask<V>{};
    read_rows();
    if (!Narrow && row_weight_[0] == T(0)) return write_zeros(), 0;
    find_maximum();
    sum_up();
    if (writes_values_) write_values();
    if (pulls_) write_gradient();
    return finish();
  }

 private:
  struct Operands {
    const T *y = nullptr, *t = nullptr, *v = nullptr, *g = nullptr;  // v, g: null for 1
  };
  /// What one vector adds to the sums of its rows.
  struct Terms {
    V exponential, label, cross;
    V other;  // the exponential where y is below the maximum
    V tie;    // 1 where it is the maximum
  };
  struct Buffers {
    T y[kTileElements], t[kTileElements], v[kTileElements], g[kTileElements];
    T exponentials[kTileElements], out[kTileElements];
  };

  // ---- operands ---------------------------------------------------------------------------------

  /// What holds for whole rows: weight, scale of the gradient, class.
  void read_rows() {
    const V one = broadcast<V>(1);
    row_weight_ = select<V>(live_, one, V{});
    scale_ = row_weight_ * (plan_.want_gradient ? static_cast<T>(plan_.gradient_scales[0]) : T(0));
    if (has_row_values_) read_row_values();
    if constexpr (Narrow) read_narrow();
    if constexpr (Factors) find_weightless();
    alive_ = row_weight_ != V{};
  }

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
      }
      rows_to_lanes(from, channels_, to);
      return static_cast<const T*>(to);
    };
    T staged[kTileElements];
    narrow_.y = turn(stage(plan_.predictions, plan_.shape, first_, count, staged), buffers_.y);
    if (!by_class_) narrow_.t = turn(stage_labels(plan_, first_, count, staged), buffers_.t);
    if constexpr (Factors) {
      narrow_.v = turn(stage_weights(plan_, first_, count, staged), buffers_.v);
      if (plan_.source_gradients.data != nullptr)
        narrow_.g =
            turn(stage(plan_.source_gradients, plan_.shape, first_, count, staged), buffers_.g);
    }
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
        in.y = stage(plan_.predictions, plan_.shape, first, count, buffers_.y);
        if (labels_too && !by_class_) in.t = stage_labels(plan_, first, count, buffers_.t);
        if constexpr (Factors) {
          in.v = stage_weights(plan_, first, count, buffers_.v);
          if (plan_.source_gradients.data != nullptr)
            in.g = stage(plan_.source_gradients, plan_.shape, first, count, buffers_.g);
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

  /// A sum over the lanes of a wide row, in every lane.
  MPSNN_INLINE V across(V v) {
    if constexpr (Narrow) {
      return v;
    } else {
      T sum = 0;
      for (std::int64_t i = 0; i < kWidth; ++i) sum += v[i];
      return broadcast<V>(sum);
    }
  }

  // ---- sums -------------------------------------------------------------------------------------

  /// Of rows in lanes there is nothing to add across.
  struct LaneSum {
    V sum{};
    MPSNN_INLINE_MEMBER void add(V u) { sum += u; }
    MPSNN_INLINE_MEMBER void add_block(const Block<V>& u) { add(sum_of(u)); }
    MPSNN_INLINE_MEMBER V total() const { return sum; }
  };
  using RowSum = std::conditional_t<Narrow, LaneSum, Accumulator<T>>;
  using RowTotal = std::conditional_t<Narrow, V, double>;

  MPSNN_INLINE V spread_total(RowTotal total) {
    if constexpr (Narrow) {
      return total;
    } else {
      return broadcast<V>(static_cast<T>(total));
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
    if constexpr (!Narrow) {
      T most = m[0];
      for (std::int64_t i = 1; i < kWidth; ++i) most = m[i] > most ? m[i] : most;
      m = broadcast<V>(most);
    }
    maximum_ = m;
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

  template <bool Labels, bool Loss, class Load, class Store>
  MPSNN_INLINE_MEMBER Terms terms(const ExpShift<V>& shift, const Smoothing& smooth, V maximum,
                                  const Operands& in, T* e, std::int64_t i, Mask<V> live,
                                  Load load_at, Store store_at) const {
    const V y = load_at(in.y + i);
    Terms result{};
    const V exponential = shift.exp(y);
    if (e != nullptr) store_at(e + i, exponential);
    result.exponential = select<V>(live, exponential, V{});
    if constexpr (Labels || Loss) {
      V label = smooth.offset;
      if constexpr (Labels) label = smooth(load_at(in.t + i));
      label = with_factors(label, in, i, load_at);
      if constexpr (Labels) result.label = select<V>(live, label, V{});
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
    RowSum exponentials, labels, cross, others, ties;
    for_each_tile(
        Labels, [&](std::int64_t c, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
          T* const e = exponentials_at(c);
          const auto whole_load = [](const T* at) { return load<V>(at); };
          const auto whole_store = [](T* to, V x) { store<V>(to, x); };
          std::int64_t i = 0;
          for (; i + kBlockWidth <= count; i += kBlockWidth) {
            Block<V> x, l, q, o, n;
            for (std::size_t k = 0; k < kBlock; ++k) {
              const Terms term = terms<Labels, Loss>(shift, smooth, maximum, in, e,
                                                     i + static_cast<std::int64_t>(k) * kWidth,
                                                     ~Mask<V>{}, whole_load, whole_store);
              x[k] = term.exponential;
              l[k] = term.label;
              q[k] = term.cross;
              o[k] = term.other;
              n[k] = term.tie;
            }
            exponentials.add_block(x);
            if constexpr (Labels) labels.add_block(l);
            if constexpr (Loss) cross.add_block(q);
            if constexpr (Loss && Narrow) others.add_block(o), ties.add_block(n);
          }
          walk(
              count,
              [&](std::int64_t at, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
                const Terms term =
                    terms<Labels, Loss>(shift, smooth, maximum, in, e, at, live, load_at, store_at);
                exponentials.add(term.exponential);
                if constexpr (Labels) labels.add(term.label);
                if constexpr (Loss) cross.add(term.cross);
                if constexpr (Loss && Narrow) others.add(term.other), ties.add(term.tie);
              },
              i);
        });
    sum_ = exponentials.total();
    labels_ = labels.total();
    cross_ = cross.total();
    largest_ = shift.exp(maximum);
    if constexpr (Narrow) relative_sum_ = two_sum(ties.total(), others.total() / largest_);
  }

  void sum_up() {
    const bool loss = reduces_ || writes_values_;
    if (!by_class_) return loss ? sum_terms<true, true>() : sum_terms<true, false>();
    loss ? sum_terms<false, true>() : sum_terms<false, false>();
    const double labels = plan_.label_offset * static_cast<double>(channels_) + plan_.label_scale;
    if constexpr (Narrow) {
      labels_ = broadcast<V>(static_cast<T>(labels));
    } else {
      labels_ = labels;
    }
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

  /// The class of a row; -1 where the row is ignored.
  std::int64_t class_of(std::int64_t row) const {
    const std::int64_t index = plan_.class_indices[pixel_ + row];
    return plan_.has_ignored_class && index == plan_.ignored_class ? -1 : index;
  }

  // ---- outputs ----------------------------------------------------------------------------------

  /// Where the exponentials of a tile are kept: a wide row's in its gradient where that is in
  /// place, to be overwritten; null where no gradient follows.
  T* exponentials_at(std::int64_t c) {
    if (!pulls_) return nullptr;
    if constexpr (Narrow) {
      return buffers_.exponentials;
    } else {
      return place_of(plan_.gradient, first_, reinterpret_cast<T*>(row_scratch_)) + c;
    }
  }

  /// Hands a tile of results over. Narrow rows are turned back and gathered in `writer`.
  void put_tile(const T* tile, std::int64_t c, std::int64_t count, const Sink& sink,
                TileWriter<T>& writer) {
    if constexpr (Narrow) {
      lanes_to_rows(tile, channels_, writer.room(first_, kWidth * channels_));
      writer.advance(rows_ * channels_);
    } else {
      put(tile, count, sink, first_ + c);
    }
  }

  void find_log_sum() {
    if constexpr (Narrow) {
      log_sum_ = log(relative_sum_);
    } else {
      log_sum_ =
          broadcast<V>(static_cast<T>(__builtin_log(sum_ / static_cast<double>(largest_[0]))));
    }
  }

  /// Losses that are not reduced, and label gradients: both are products with -lp.
  void write_values() {
    find_log_sum();
    const bool loss = plan_.want_loss && plan_.loss.data != nullptr;
    const bool gradient = plan_.want_gradient && plan_.by_labels;
    const Smoothing smooth = smoothing();
    const V maximum = maximum_, log_sum = log_sum_;
    const V loss_scale = row_weight_ * static_cast<T>(plan_.loss_scale);
    const V slope_scale = scale_ * smooth.scale;
    const Mask<V> live_rows = live_, alive = alive_;
    V loss_check{}, gradient_check{};
    for_each_tile(true, [&](std::int64_t c, std::int64_t count, const Operands& in) {
      const auto surprise = [&](V y) { return log_sum + (maximum - y); };  // -lp
      if (loss) {
        T* const out = Narrow ? buffers_.out : place_of(plan_.loss, first_ + c, buffers_.out);
        Operands weights = in;
        weights.g = nullptr;
        walk(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) {
          V u = label_product(smooth(load_at(in.t + i)), surprise(load_at(in.y + i)));
          u = select<V>(alive, with_factors(u, weights, i, load_at) * loss_scale, V{});
          store_at(out + i, u);
          loss_check = mul_add(select<V>(live & live_rows, u, V{}), V{}, loss_check);
        });
        put_tile(out, c, count, plan_.loss, loss_writer_);
      }
      if (!gradient) return;
      T* const out = Narrow ? buffers_.out : place_of(plan_.gradient, first_ + c, buffers_.out);
      walk(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) {
        V d = with_factors(surprise(load_at(in.y + i)) * slope_scale, in, i, load_at);
        d = select<V>(alive, d, V{});
        store_at(out + i, d);
        gradient_check = mul_add(select<V>(live & live_rows, d, V{}), V{}, gradient_check);
      });
      put_tile(out, c, count, plan_.gradient, gradient_writer_);
    });
    loss_check_ = across(loss_check);
    gradient_check_ = across(gradient_check);
  }

  void write_gradient() {
    const V ratio = spread_total(labels_ / sum_) * scale_;
    const V label_factor = scale_ * -static_cast<T>(plan_.label_scale);
    const V offset = scale_ * -static_cast<T>(plan_.label_offset);
    T hot[lanes<V>];  // the gradient of each row's class, before the exponentials are overwritten
    if (by_class_) {
      for (std::int64_t r = 0; r < rows_; ++r) {
        const std::int64_t index = class_of(r) < 0 ? 0 : class_of(r);
        const T e = exponentials_at(0)[Narrow ? index * kWidth + r : index];
        hot[r] = mul_add(broadcast<V>(e), ratio, label_factor + offset)[r];
      }
    }
    const Smoothing smooth = smoothing();
    const V scale = scale_;
    const Mask<V> live_rows = live_, alive = alive_;
    V check{};
    for_each_tile(true, [&](std::int64_t c, std::int64_t count, const Operands& in) {
      const T* const e = exponentials_at(c);
      T* const out = Narrow ? buffers_.out : place_of(plan_.gradient, first_ + c, buffers_.out);
      const auto gradient_with = [&](auto minus_a) MPSNN_INLINE_LAMBDA {
        walk(count,
             [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
               V d = mul_add(load_at(e + i), ratio, minus_a(i, load_at));
               if constexpr (Narrow) d = select<V>(alive, d, V{});
               store_at(out + i, d);
               check = mul_add(select<V>(live & live_rows, d, V{}), V{}, check);
             });
      };
      if constexpr (Factors) {
        gradient_with([&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
          return -with_factors(smooth(load_at(in.t + i)) * scale, in, i, load_at);
        });
      } else if (in.t == nullptr) {
        gradient_with([&](std::int64_t, auto) MPSNN_INLINE_LAMBDA { return offset; });
      } else {
        gradient_with([&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
          return mul_add(load_at(in.t + i), label_factor, offset);
        });
      }
      if (by_class_) set_hot(out, c, count, hot);
      put_tile(out, c, count, plan_.gradient, gradient_writer_);
    });
    gradient_check_ = across(check);
  }

  void set_hot(T* out, std::int64_t c, std::int64_t count, const T* hot) {
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t index = class_of(r);
      if (index < 0) continue;
      if constexpr (Narrow) {
        out[index * kWidth + r] = hot[r];
      } else if (index >= c && index < c + count) {
        out[index - c] = hot[r];
      }
    }
  }

  void write_zeros() {
    for (T& zero : buffers_.out) zero = T(0);
    for (std::int64_t c = 0; c < channels_; c += kTileElements) {
      const std::int64_t rest = channels_ - c, count = rest < kTileElements ? rest : kTileElements;
      if (plan_.want_gradient) put(buffers_.out, count, plan_.gradient, first_ + c);
      if (plan_.want_loss && plan_.loss.data != nullptr)
        put(buffers_.out, count, plan_.loss, first_ + c);
    }
  }

  /// The reduced losses of the rows.
  void find_losses(T* losses) {
    find_log_sum();
    const V total = (label_product(spread_total(labels_), log_sum_) + spread_total(cross_));
    store(losses, select<V>(alive_, total * row_weight_, V{}));
  }

  /// Ends the rows; what left the range of float32 on its way may still be a number, and float64
  /// decides.
  double finish() {
    T losses[lanes<V>] = {};
    if (reduces_) find_losses(losses);
    double sum = 0;
    for (std::int64_t r = 0; r < rows_; ++r) {
      const auto not_finite = [r](T x, V check) { return x - x != 0 || check[r] != check[r]; };
      const bool again = !kLastResort && not_finite(losses[r], loss_check_);
      const double loss = again ? run_again(r, true) : static_cast<double>(losses[r]);
      if (!kLastResort && not_finite(T(0), gradient_check_)) run_again(r, false);
      sum += loss;
      if (plan_.sums_per_image && reduces_ && !again)
        plan_.sums[(pixel_ + r) / plan_.image_units] += loss;
    }
    return sum;
  }

  /// Computes the loss, or else the gradient, of a row in float64.
  double run_again(std::int64_t row, bool loss) {
    Plan part = plan_;
    part.want_loss = loss;
    part.want_gradient = !loss;
    (loss ? loss_writer_ : gradient_writer_).flush();
    TileWriter<double> none(plan_.loss);
    return SoftmaxRows<double, false, Factors>(part, row_scratch_, none, none).run(pixel_ + row, 1);
  }

  static constexpr bool kLastResort = sizeof(T) == sizeof(double);

  const Plan& plan_;
  const std::int64_t channels_;
  const bool pulls_;           // the gradient is with respect to the predictions
  const bool reduces_;         // the losses of a row are added up
  const bool writes_values_;   // losses or label gradients of each element
  const bool by_class_;        // class indices are used as they are
  const bool has_row_values_;  // weights or scales differ from row to row
  std::byte* const row_scratch_;
  TileWriter<T>&loss_writer_, &gradient_writer_;

  std::int64_t pixel_ = 0, rows_ = 0, first_ = 0;  // first_: element of the first row's channel 0
  Mask<V> live_{}, alive_{};             // lanes with a row; with one that weighs something
  V row_weight_{}, scale_{};             // v and g ω v / D of each row
  V maximum_{}, largest_{}, log_sum_{};  // max y, its exponential, log S
  RowTotal sum_{}, labels_{}, cross_{};  // see sum_terms
  Sum<V> relative_sum_{};              // of narrow rows: S with what float32 loses of it next to 1
  V loss_check_{}, gradient_check_{};  // sums of 0 · x: NaN where any x is not finite
  Operands narrow_;
  Buffers buffers_;
};

template <class T, bool Narrow, bool Factors>
void run_softmax_rows(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
  using Rows = SoftmaxRows<T, Narrow, Factors>;
  const Range range = chunk_range(plan, chunk);
  TileWriter<T> loss_writer(plan.loss), gradient_writer(plan.gradient);
  Rows rows(plan, scratch, loss_writer, gradient_writer);
  CompensatedSum sum;
  for (std::int64_t pixel = range.first; pixel < range.last; pixel += Rows::kMostRows) {
    const std::int64_t rest = range.last - pixel;
    sum.add(rows.run(pixel, rest < Rows::kMostRows ? rest : Rows::kMostRows));
  }
  loss_writer.flush();
  gradient_writer.flush();
  if (is_summed(plan)) plan.sums[chunk] = sum.total();
  if (plan.gradient.streams) finish_streams();
}

template <class T>
void run_softmax_chunk(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
  const bool factors = plan.source_gradients.data != nullptr || plan.weights.strides[3] != 0;
  const bool narrow = plan.shape.channels <= kNarrowChannels;
  const auto run =
      narrow ? (factors ? run_softmax_rows<T, true, true> : run_softmax_rows<T, true, false>)
             : (factors ? run_softmax_rows<T, false, true> : run_softmax_rows<T, false, false>);
  run(plan, chunk, scratch);
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
