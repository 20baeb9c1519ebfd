// The loop of the losses whose elements are independent: stage a tile, apply the formula, store.
#pragma once

#include "cpu/formulas.hpp"
#include "cpu/plan.hpp"
#include "cpu/staging.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

inline constexpr std::int64_t kTileElements = 1024;

/// Contiguous operands of the compute type. v and g are both null, or neither.
template <class T>
struct Tile {
  const T *y, *t, *v, *g;
  T *loss, *gradient;  // either may be null
  std::int64_t count;
  T loss_scale, gradient_scale;
  Parameters<Vector<T>> parameters;
};

/// A sum in float64 that stays well inside the contract's 1e-6: eight vectors are added as a tree,
/// each tree into one float64 accumulator per lane. It carries on from tile to tile.
template <class T>
class Accumulator {
 public:
  using V = Vector<T>;
  static constexpr std::size_t kBlock = 8;

  void add_block(const V (&u)[kBlock]) {
    add(((u[0] + u[1]) + (u[2] + u[3])) + ((u[4] + u[5]) + (u[6] + u[7])));
  }
  void add(V u) {
    for (std::size_t i = 0; i < lanes<V>; ++i) sums_[i] += static_cast<double>(u[i]);
  }
  double total() const {
    double total = 0;
    for (const double sum : sums_) total += sum;
    return total;
  }

 private:
  double sums_[lanes<V>] = {};
};

template <class F, class T, bool WantLoss, bool WantGradient, bool ByLabels, bool Weighted>
struct ElementKernel {
  using V = Vector<T>;

  /// One vector of elements; returns its weighted losses.
  template <class Load, class Store>
  MPSNN_INLINE V step(const Tile<T>& tile, std::int64_t i, Load load_at, Store store_at) {
    const V y = load_at(tile.y + i), t = load_at(tile.t + i);
    V v{}, u{};
    if constexpr (Weighted) v = load_at(tile.v + i);
    if constexpr (WantGradient) {
      V slope;
      if constexpr (ByLabels) {
        slope = F::by_label(y, t, tile.parameters);
      } else {
        slope = F::by_prediction(y, t, tile.parameters);
      }
      if constexpr (Weighted) {
        const V scale = load_at(tile.g + i) * v * tile.gradient_scale;
        slope = select<V>(v == V{}, V{}, scale * slope);
      } else {
        slope = slope * tile.gradient_scale;
      }
      store_at(tile.gradient + i, slope);
    }
    if constexpr (WantLoss) {
      u = F::loss(y, t, tile.parameters);
      if constexpr (Weighted) u = select<V>(v == V{}, V{}, v * u);
      if (tile.loss != nullptr) store_at(tile.loss + i, u * tile.loss_scale);
    }
    return u;
  }

  static void run(const Tile<T>& tile, Accumulator<T>& sum) {
    constexpr std::int64_t width = static_cast<std::int64_t>(lanes<V>);
    constexpr std::int64_t block = width * static_cast<std::int64_t>(Accumulator<T>::kBlock);
    const auto whole_load = [](const T* from) { return load<V>(from); };
    const auto whole_store = [](T* to, V x) { store<V>(to, x); };
    std::int64_t i = 0;
    for (; i + block <= tile.count; i += block) {
      V u[Accumulator<T>::kBlock];
      for (std::size_t k = 0; k < Accumulator<T>::kBlock; ++k) {
        u[k] = step(tile, i + static_cast<std::int64_t>(k) * width, whole_load, whole_store);
      }
      if constexpr (WantLoss) sum.add_block(u);
    }
    for (; i + width <= tile.count; i += width) {
      const V u = step(tile, i, whole_load, whole_store);
      if constexpr (WantLoss) sum.add(u);
    }
    if (i < tile.count) {
      const auto rest = static_cast<std::size_t>(tile.count - i);
      const V u = step(
          tile, i, [rest](const T* from) { return load_first<V>(from, rest); },
          [rest](T* to, V x) { store_first<V>(to, x, rest); });
      if constexpr (WantLoss) sum.add(select<V>(first_lanes<V>(rest), u, V{}));
    }
  }
};

template <class T>
using ElementFunction = void (*)(const Tile<T>&, Accumulator<T>&);

template <class F, class T, bool Weighted>
ElementFunction<T> element_function(const Plan& plan) {
  if (!plan.want_gradient) return ElementKernel<F, T, true, false, false, Weighted>::run;
  if (!plan.want_loss) {
    return plan.by_labels ? ElementKernel<F, T, false, true, true, Weighted>::run
                          : ElementKernel<F, T, false, true, false, Weighted>::run;
  }
  return plan.by_labels ? ElementKernel<F, T, true, true, true, Weighted>::run
                        : ElementKernel<F, T, true, true, false, Weighted>::run;
}

/// Adds each image's part of a tile of losses to its sum.
template <class T>
void add_to_image_sums(const Plan& plan, const T* losses, std::int64_t first, std::int64_t count) {
  const std::int64_t image_elements = plan.shape.image_elements();
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t image = (first + i) / image_elements,
                       end = (image + 1) * image_elements - first;
    double sum = 0;
    for (; i < count && i < end; ++i) sum += static_cast<double>(losses[i]);
    plan.sums[image] += sum;
  }
}

template <class F, class T>
void run_element_chunk(const Plan& plan, std::int64_t chunk) {
  using V = Vector<T>;
  const Range range = chunk_range(plan, chunk);
  const bool weighted =
      is_weighted(plan) || plan.source_gradients.data != nullptr || plan.scale_per_image;
  const ElementFunction<T> function =
      weighted ? element_function<F, T, true>(plan) : element_function<F, T, false>(plan);
  const bool uniform = plan.source_gradients.data == nullptr && plan.scale_per_image;

  T scratch_y[kTileElements], scratch_t[kTileElements], scratch_v[kTileElements],
      scratch_g[kTileElements];
  T scratch_loss[kTileElements], scratch_gradient[kTileElements];
  T ones[kTileElements];
  if (weighted) {
    for (T& one : ones) one = T(1);
  }
  Tile<T> tile{};
  tile.loss_scale = plan.sums_per_image ? T(1) : static_cast<T>(plan.loss_scale);
  tile.gradient_scale = uniform ? T(1) : static_cast<T>(plan.gradient_scales[0]);
  tile.parameters = {broadcast<V>(static_cast<T>(plan.label_scale)),
                     broadcast<V>(static_cast<T>(plan.label_offset)),
                     broadcast<V>(static_cast<T>(plan.epsilon)),
                     broadcast<V>(static_cast<T>(plan.delta))};
  const bool direct_gradient = plan.gradient_format == kFormatOf<T>;
  const bool direct_loss = plan.loss_format == kFormatOf<T>;
  Accumulator<T> sum;
  for (std::int64_t first = range.first; first < range.last; first += kTileElements) {
    const std::int64_t rest = range.last - first,
                       count = rest < kTileElements ? rest : kTileElements;
    tile.count = count;
    tile.y = stage(plan.predictions, plan.shape, first, count, scratch_y);
    tile.t = stage_labels(plan, first, count, scratch_t);
    if (weighted) {
      tile.v = stage_weights(plan, first, count, scratch_v);
      tile.g = stage_gradients(plan, first, count, scratch_g);
      if (tile.v == nullptr) tile.v = ones;
      if (tile.g == nullptr) tile.g = ones;
    }
    if (plan.want_gradient) {
      tile.gradient =
          direct_gradient ? reinterpret_cast<T*>(plan.gradient) + first : scratch_gradient;
    }
    if (plan.loss != nullptr && direct_loss) {
      tile.loss = reinterpret_cast<T*>(plan.loss) + first;
    } else if (plan.loss != nullptr || plan.sums_per_image) {
      tile.loss = scratch_loss;
    }
    function(tile, sum);
    if (plan.want_gradient && !direct_gradient) {
      convert_out(scratch_gradient, count, plan.gradient, plan.gradient_format, first);
    }
    if (plan.loss != nullptr && !direct_loss)
      convert_out(scratch_loss, count, plan.loss, plan.loss_format, first);
    if (plan.want_loss && plan.sums_per_image) add_to_image_sums(plan, scratch_loss, first, count);
  }
  if (plan.want_loss && plan.loss == nullptr && !plan.sums_per_image)
    plan.sums[chunk] = sum.total();
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
