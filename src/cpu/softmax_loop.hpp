// The loop of softmax cross entropy, whose channels are coupled: one row of C channels per pixel.
//
//   e_c = exp(y_c - max y),  S = Σ e_c,  -lp_c = log S - (y_c - max y)    (both parts >= 0: no
//   cancellation) a_c = g_c ω v_c t'_c / D,  dL/dy_j = e_j (Σ a_c / S) - a_j dL/dt_c = g_c ω v_c (1
//   - s) (-lp_c) / D
//
// Rows are walked in tiles, so that a row of any length needs no more scratch than one tile.
#pragma once

#include "cpu/element_loop.hpp"
#include "cpu/plan.hpp"
#include "cpu/staging.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// y - m with what its rounding lost; an infinite difference lost nothing.
template <class V>
MPSNN_INLINE Sum<V> difference(V y, V m) {
  Sum<V> d = two_sum(y, -m);
  d.error = select<V>(d.error == d.error, d.error, V{});
  return d;
}

template <class T>
class SoftmaxRow {
 public:
  using V = Vector<T>;

  SoftmaxRow(const Plan& plan, std::int64_t pixel)
      : plan_(plan),
        first_(pixel * plan.shape.channels),
        gradient_scale_(static_cast<T>(
            plan.gradient_scales[plan.scale_per_image ? pixel / plan.shape.pixels() : 0])),
        exponentials_(plan.want_gradient && !plan.by_labels && plan.gradient_format == kFormatOf<T>
                          ? reinterpret_cast<T*>(plan.gradient) + first_
                          : nullptr) {}

  /// Writes the row's outputs and returns its weighted loss, without ω.
  double run() {
    if (is_weighted(plan_) && !has_weight()) {
      write_zeros();
      return 0;
    }
    find_maximum();
    sum_exponentials();
    double loss = 0;
    if (plan_.want_loss || plan_.by_labels) loss = write_values();
    if (plan_.want_gradient && !plan_.by_labels) write_gradient();
    return loss;
  }

 private:
  /// The staged operands of one tile of the row; those that a pass did not ask for are null.
  struct Operands {
    const T *y = nullptr, *t = nullptr, *v = nullptr, *g = nullptr;
  };
  struct Scratch {
    T y[kTileElements], t[kTileElements], v[kTileElements], g[kTileElements], out[kTileElements];
  };

  /// Calls body(first element, count, operands) for each tile of the row.
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_tile(bool labels_too, Body body) {
    for (std::int64_t c = 0; c < plan_.shape.channels; c += kTileElements) {
      const std::int64_t rest = plan_.shape.channels - c,
                         count = rest < kTileElements ? rest : kTileElements;
      const std::int64_t first = first_ + c;
      Operands in;
      in.y = stage(plan_.predictions, plan_.shape, first, count, scratch_.y);
      if (labels_too) {
        in.t = stage_labels(plan_, first, count, scratch_.t);
        in.v = stage_weights(plan_, first, count, scratch_.v);
        if (plan_.source_gradients.data != nullptr) {
          in.g = stage(plan_.source_gradients, plan_.shape, first, count, scratch_.g);
        }
      }
      body(first, count, in);
    }
  }

  /// Calls body(index, load, store, live lanes) along a tile, the last time with the lanes that are
  /// left.
  template <class Body>
  MPSNN_INLINE void for_each_vector(std::int64_t count, Body body) {
    constexpr std::int64_t width = static_cast<std::int64_t>(lanes<V>);
    const auto whole_load = [](const T* from) { return load<V>(from); };
    const auto whole_store = [](T* to, V x) { store<V>(to, x); };
    std::int64_t i = 0;
    for (; i + width <= count; i += width)
      body(i, whole_load, whole_store, first_lanes<V>(lanes<V>));
    if (i < count) {
      const auto rest = static_cast<std::size_t>(count - i);
      body(
          i, [rest](const T* from) { return load_first<V>(from, rest); },
          [rest](T* to, V x) { store_first<V>(to, x, rest); }, first_lanes<V>(rest));
    }
  }

  bool has_weight() {
    bool found = false;
    for (std::int64_t c = 0; c < plan_.shape.channels && !found; c += kTileElements) {
      const std::int64_t rest = plan_.shape.channels - c,
                         count = rest < kTileElements ? rest : kTileElements;
      const T* v = stage_weights(plan_, first_ + c, count, scratch_.v);
      for (std::int64_t i = 0; i < count && !found; ++i) found = v[i] != T(0);
    }
    return found;
  }

  void write_zeros() {
    for (T& zero : scratch_.out) zero = T(0);
    for (std::int64_t c = 0; c < plan_.shape.channels; c += kTileElements) {
      const std::int64_t rest = plan_.shape.channels - c,
                         count = rest < kTileElements ? rest : kTileElements;
      if (plan_.want_gradient)
        convert_out(scratch_.out, count, plan_.gradient, plan_.gradient_format, first_ + c);
      if (plan_.loss != nullptr)
        convert_out(scratch_.out, count, plan_.loss, plan_.loss_format, first_ + c);
    }
  }

  void find_maximum() {
    V m = broadcast<V>(-static_cast<T>(__builtin_inff()));
    for_each_tile(false, [&](std::int64_t, std::int64_t count, const Operands& in) {
      for_each_vector(count, [&](std::int64_t i, auto load_at, auto, Mask<V> live) {
        const V y = load_at(in.y + i);
        m = select<V>(live & (y > m), y, m);
      });
    });
    T result = m[0];
    for (std::size_t i = 1; i < lanes<V>; ++i) result = m[i] > result ? m[i] : result;
    maximum_ = broadcast<V>(result);
  }

  MPSNN_INLINE_MEMBER V exponential(V y) const {
    const Sum<V> x = difference(y, maximum_);
    return exp(x.value, x.error);
  }

  template <class Load>
  MPSNN_INLINE_MEMBER V smooth_label(const Operands& in, std::int64_t i, Load load_at) const {
    return mul_add(load_at(in.t + i), broadcast<V>(static_cast<T>(plan_.label_scale)),
                   broadcast<V>(static_cast<T>(plan_.label_offset)));
  }

  /// factor · g ω v / D, 0 where v is 0.
  template <class Load>
  MPSNN_INLINE_MEMBER V scaled(const Operands& in, std::int64_t i, V factor, Load load_at) const {
    V result = factor * gradient_scale_;
    if (in.g != nullptr) result = result * load_at(in.g + i);
    if (in.v != nullptr) {
      const V v = load_at(in.v + i);
      result = select<V>(v == V{}, V{}, result * v);
    }
    return result;
  }

  void sum_exponentials() {
    const bool pulls = plan_.want_gradient && !plan_.by_labels;
    Accumulator<T> exponentials, pull;
    for_each_tile(pulls, [&](std::int64_t first, std::int64_t count, const Operands& in) {
      for_each_vector(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) {
        const V e = exponential(load_at(in.y + i));
        if (exponentials_ != nullptr) store_at(exponentials_ + (first - first_) + i, e);
        exponentials.add(select<V>(live, e, V{}));
        if (pulls)
          pull.add(select<V>(live, scaled(in, i, smooth_label(in, i, load_at), load_at), V{}));
      });
    });
    sum_ = exponentials.total();
    pull_ = pull.total();
  }

  /// Losses and label gradients: both are products with -lp.
  double write_values() {
    const V log_sum = broadcast<V>(static_cast<T>(__builtin_log(sum_)));
    Accumulator<T> total;
    for_each_tile(true, [&](std::int64_t first, std::int64_t count, const Operands& in) {
      T* const loss = row_output(plan_.loss, plan_.loss_format, first);
      T* const gradient =
          plan_.by_labels ? row_output(plan_.gradient, plan_.gradient_format, first) : nullptr;
      // Loss first: the two may share the scratch of an output that is converted.
      for_each_vector(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) {
        const V surprise = log_sum - (load_at(in.y + i) - maximum_);
        V u = label_product(smooth_label(in, i, load_at), surprise);
        if (in.v != nullptr) {
          const V v = load_at(in.v + i);
          u = select<V>(v == V{}, V{}, u * v);
        }
        total.add(select<V>(live, u, V{}));
        if (loss != nullptr) store_at(loss + i, u * static_cast<T>(plan_.loss_scale));
      });
      finish_output(loss, count, plan_.loss, plan_.loss_format, first);
      if (gradient == nullptr) return;
      for_each_vector(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V>) {
        const V surprise = log_sum - (load_at(in.y + i) - maximum_);
        store_at(gradient + i,
                 scaled(in, i, surprise * static_cast<T>(plan_.label_scale), load_at));
      });
      finish_output(gradient, count, plan_.gradient, plan_.gradient_format, first);
    });
    return total.total();
  }

  void write_gradient() {
    const V ratio = broadcast<V>(static_cast<T>(pull_ / sum_));
    for_each_tile(true, [&](std::int64_t first, std::int64_t count, const Operands& in) {
      T* const gradient = row_output(plan_.gradient, plan_.gradient_format, first);
      for_each_vector(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V>) {
        const V e =
            exponentials_ != nullptr ? load_at(gradient + i) : exponential(load_at(in.y + i));
        store_at(gradient + i, e * ratio - scaled(in, i, smooth_label(in, i, load_at), load_at));
      });
      finish_output(gradient, count, plan_.gradient, plan_.gradient_format, first);
    });
  }

  /// Where a tile of an output is written: in place, or in scratch where it must be converted.
  T* row_output(std::byte* data, Format format, std::int64_t first) {
    if (data == nullptr) return nullptr;
    return format == kFormatOf<T> ? reinterpret_cast<T*>(data) + first : scratch_.out;
  }
  void finish_output(const T* tile, std::int64_t count, std::byte* data, Format format,
                     std::int64_t first) {
    if (tile == scratch_.out) convert_out(tile, count, data, format, first);
  }

  const Plan& plan_;
  const std::int64_t first_;  // element index of the row's channel 0
  const T gradient_scale_;
  T* const exponentials_;  // the gradient's own memory, where it has the compute type; else null
  V maximum_{};
  double sum_ = 0, pull_ = 0;
  Scratch scratch_;
};

template <class T>
void run_softmax_chunk(const Plan& plan, std::int64_t chunk) {
  const Range range = chunk_range(plan, chunk);
  double sum = 0;
  for (std::int64_t pixel = range.first; pixel < range.last; ++pixel) {
    const double loss = SoftmaxRow<T>(plan, pixel).run();
    if (plan.sums_per_image) {
      plan.sums[pixel / plan.image_units] += loss;
    } else {
      sum += loss;
    }
  }
  if (plan.want_loss && plan.loss == nullptr && !plan.sums_per_image) plan.sums[chunk] = sum;
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
