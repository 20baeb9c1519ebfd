// One stretch of elements of a loss whose elements are independent: loads, the formula, and stores
// to where results belong, vector by vector.
#pragma once

#include "cpu/formulas.hpp"
#include "cpu/plan.hpp"
#include "cpu/staging.hpp"
#include "cpu/sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Which of its results a loop makes.
enum class Results {
  loss,
  gradient,
  label_gradient,
  loss_and_gradient,
  loss_and_label_gradient,
  gradient_and_hessian,
};

MPSNN_INLINE Results results_of(const Plan& plan) {
  if (plan.want_hessian) return Results::gradient_and_hessian;
  if (!plan.want_gradient) return Results::loss;
  if (!plan.want_loss) return plan.by_labels ? Results::label_gradient : Results::gradient;
  return plan.by_labels ? Results::loss_and_label_gradient : Results::loss_and_gradient;
}

/// Contiguous operands: weights and losses of the compute type T, all others stored as S.
template <class T, class S = T>
struct Tile {
  const S *y, *t;
  const T *v, *g;  // null: 1
  T* loss;         // null: not stored, and so are the others
  S *gradient, *hessian;
  bool streams;  // past the caches
  std::int64_t count;
  T loss_scale, gradient_scale;
  Parameters<T> parameters;
};

/// What tiles came to: the sum of their losses, and whether all they computed is finite.
struct TileResult {
  double sum;
  bool losses_finite, gradients_finite;
};

template <class F, class T, Results results, bool Weighted, class S = T>
class ElementKernel {
  static constexpr bool kLabelGradient =
      results == Results::label_gradient || results == Results::loss_and_label_gradient;
  static constexpr bool kLoss = results == Results::loss || results == Results::loss_and_gradient ||
                                results == Results::loss_and_label_gradient;
  static constexpr bool kGradient = results != Results::loss;
  static constexpr bool kHessian = results == Results::gradient_and_hessian;

 public:
  /// One tile, or several that follow one another, whose sums are the same as one by one.
  static TileResult run(const Tile<T, S>& tiles) {
    if constexpr (kStreams<T>) {
      if (tiles.streams) return run_streaming(tiles);
    }
    Stores<Store> stores;
    return run_tiles(tiles, stores);
  }

 private:
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);

  struct Load {
    template <class From>
    MPSNN_INLINE_MEMBER V operator()(const From* from) const {
      if constexpr (kIsNarrow<From>) {
        return load_narrow(from);
      } else {
        return load<V>(from);
      }
    }
  };
  struct Store {
    template <class To>
    MPSNN_INLINE_MEMBER void operator()(To* to, V x) const {
      if constexpr (kIsNarrow<To>) {
        store_numbers(to, x);
      } else {
        store<V>(to, x);
      }
    }
  };
  struct LoadFirst {
    std::size_t count;
    template <class From>
    MPSNN_INLINE_MEMBER V operator()(const From* from) const {
      if constexpr (kIsNarrow<From>) {
        V v{};
        for (std::size_t i = 0; i < count; ++i) v[i] = to_float(from[i]);
        return v;
      } else {
        return load_first<V>(from, count);
      }
    }
  };
  struct StoreFirst {
    std::size_t count;
    template <class To>
    MPSNN_INLINE_MEMBER void operator()(To* to, V x) const {
      if constexpr (kIsNarrow<To>) {
        for (std::size_t i = 0; i < count; ++i) to[i] = rounded<To>(x[i]);
      } else {
        store_first<V>(to, x, count);
      }
    }
  };
  template <class ForLoss, class ForGradient = ForLoss>
  struct Stores {
    ForLoss loss;
    ForGradient gradient, hessian;
  };

  [[gnu::noinline]] static TileResult run_streaming(const Tile<T, S>& tiles) {
    using Writers = Stores<StreamWriter<T>, StreamWriter<S>>;
    Writers stores{StreamWriter<T>(tiles.loss), StreamWriter<S>(tiles.gradient),
                   StreamWriter<S>(tiles.hessian)};
    const TileResult result = run_tiles(tiles, stores);
    stores.loss.finish();
    stores.gradient.finish();
    stores.hessian.finish();
    return result;
  }

  /// A copy of the tiles, as the stores of results could change what is read through a reference.
  template <class To>
  MPSNN_INLINE TileResult run_tiles(const Tile<T, S> tiles, To& stores) {
    V check{};
    if constexpr (!kLoss) {
      run_tile(tiles, 0, tiles.count, stores, check);
      return {0, true, !has_nan(check)};
    }
    CompensatedSum sum;
    for (std::int64_t first = 0; first < tiles.count; first += kTileElements) {
      const std::int64_t rest = tiles.count - first;
      sum.add(run_tile(tiles, first, first + (rest < kTileElements ? rest : kTileElements), stores,
                       check));
    }
    const double total = sum.total();
    return {total, total - total == 0, !has_nan(check)};
  }

  /// Elements [i, last); returns the sum of their losses. `check` becomes NaN where a gradient is
  /// not finite.
  template <class To>
  MPSNN_INLINE double run_tile(const Tile<T, S>& tile, std::int64_t i, std::int64_t last,
                               To& stores, V& check) {
    Accumulator<T> sum;
    Block<V> checks{};
    for (; i + kWidth * std::int64_t{kBlock} <= last; i += kWidth * std::int64_t{kBlock}) {
      Block<V> u;
      for (std::size_t k = 0; k < kBlock; ++k) {
        u[k] = step(tile, i + static_cast<std::int64_t>(k) * kWidth, ~Mask<V>{}, Load(), stores,
                    checks[k]);
      }
      if constexpr (kLoss) sum.add_block(u);
    }
    for (; i + kWidth <= last; i += kWidth) {
      const V u = step(tile, i, ~Mask<V>{}, Load(), stores, checks[0]);
      if constexpr (kLoss) sum.add(u);
    }
    if (i < last) {
      const auto rest = static_cast<std::size_t>(last - i);
      const StoreFirst part{rest};
      Stores<StoreFirst> parts{part, part, part};
      const V u = step(tile, i, first_lanes<V>(rest), LoadFirst{rest}, parts, checks[0]);
      if constexpr (kLoss) sum.add(u);
    }
    check += sum_of(checks);
    return sum.total();
  }

  /// One vector of elements; returns its weighted losses. `check` becomes NaN where a gradient is
  /// not finite.
  template <class LoadAt, class To>
  MPSNN_INLINE V step(const Tile<T, S>& tile, std::int64_t i, Mask<V> live, LoadAt load_at,
                      To& stores, V& check) {
    const V y = load_at(tile.y + i), t = load_at(tile.t + i);
    const auto p = in_all_lanes(tile.parameters);
    V v = broadcast<V>(1), u{};
    if constexpr (Weighted) {
      if (tile.v != nullptr) v = load_at(tile.v + i);
    }
    if constexpr (kGradient) {
      V scale = broadcast<V>(tile.gradient_scale);
      if constexpr (Weighted) {
        if (tile.g != nullptr) scale = scale * load_at(tile.g + i);
        scale = scale * v;
      }
      const auto finish = [&](V slope) MPSNN_INLINE_LAMBDA {
        slope = slope * scale;
        if constexpr (Weighted) slope = select<V>(v == V{}, V{}, slope);
        check = mul_add(select<V>(live, slope, V{}), V{}, check);
        return slope;
      };
      stores.gradient(tile.gradient + i,
                      finish(kLabelGradient ? F::by_label(y, t, p) : F::by_prediction(y, t, p)));
      if constexpr (kHessian)
        stores.hessian(tile.hessian + i, finish(F::second_by_prediction(y, t, p)));
    }
    if constexpr (kLoss) {
      u = F::loss(y, t, p);
      if constexpr (Weighted) u = select<V>(v == V{}, V{}, v * u);
      if (tile.loss != nullptr) {
        u = u * tile.loss_scale;
        stores.loss(tile.loss + i, u);
      }
      u = select<V>(live, u, V{});
    }
    return u;
  }
};

template <class T>
using ElementFunction = TileResult (*)(const Tile<T>&);

template <class F, class T, bool Weighted>
ElementFunction<T> element_function(const Plan& plan) {
  switch (results_of(plan)) {
    case Results::loss: return ElementKernel<F, T, Results::loss, Weighted>::run;
    case Results::gradient: return ElementKernel<F, T, Results::gradient, Weighted>::run;
    case Results::label_gradient:
      return ElementKernel<F, T, Results::label_gradient, Weighted>::run;
    case Results::loss_and_gradient:
      return ElementKernel<F, T, Results::loss_and_gradient, Weighted>::run;
    case Results::loss_and_label_gradient:
      return ElementKernel<F, T, Results::loss_and_label_gradient, Weighted>::run;
    case Results::gradient_and_hessian:
      return ElementKernel<F, T, Results::gradient_and_hessian, Weighted>::run;
  }
  return nullptr;
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
