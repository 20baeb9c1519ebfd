// The loop of the losses whose elements are independent: stage a tile, apply the formula, store.
#pragma once

#include <new>

#include "cpu/formulas.hpp"
#include "cpu/plan.hpp"
#include "cpu/staging.hpp"
#include "cpu/sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Contiguous operands of the compute type.
template <class T>
struct Tile {
  const T *y, *t;
  const T *v, *g;      // null: 1
  T *loss, *gradient;  // null: not stored
  std::int64_t count;
  T loss_scale, gradient_scale;
  Parameters<Vector<T>> parameters;
};

/// What tiles came to: the sum of their losses, and whether all they computed is finite.
struct TileResult {
  double sum;
  bool losses_finite, gradients_finite;
};

template <class F, class T, bool WantLoss, bool WantGradient, bool ByLabels, bool Weighted>
class ElementKernel {
 public:
  /// One tile, or several that follow one another, whose sums are the same as one by one.
  static TileResult run(const Tile<T>& of_caller) {
    // The stores of results could change what is read through a reference.
    const Tile<T> tiles = of_caller;
    if constexpr (!WantLoss) {
      V check{};
      run_tile(tiles, 0, tiles.count, check);
      return {0, true, !has_nan(check)};
    } else {
      CompensatedSum sum;
      V check{};
      for (std::int64_t first = 0; first < tiles.count; first += kTileElements) {
        const std::int64_t rest = tiles.count - first;
        sum.add(
            run_tile(tiles, first, first + (rest < kTileElements ? rest : kTileElements), check));
      }
      const double total = sum.total();
      return {total, total - total == 0, !has_nan(check)};
    }
  }

 private:
  using V = Vector<T>;

  /// Elements [i, last); returns the sum of their losses. `check` becomes NaN where a gradient is
  /// not finite.
  MPSNN_INLINE double run_tile(const Tile<T>& tile, std::int64_t i, std::int64_t last, V& check) {
    constexpr std::int64_t width = static_cast<std::int64_t>(lanes<V>);
    const auto whole_load = [](const T* from) { return load<V>(from); };
    const auto whole_store = [](T* to, V x) { store<V>(to, x); };
    Accumulator<T> sum;
    Block<V> gradient_checks{};
    for (; i + width * std::int64_t{kBlock} <= last; i += width * std::int64_t{kBlock}) {
      Block<V> u;
      for (std::size_t k = 0; k < kBlock; ++k) {
        u[k] = step(tile, i + static_cast<std::int64_t>(k) * width, ~Mask<V>{}, whole_load,
                    whole_store, gradient_checks[k]);
      }
      if constexpr (WantLoss) sum.add_block(u);
    }
    for (; i + width <= last; i += width) {
      const V u = step(tile, i, ~Mask<V>{}, whole_load, whole_store, gradient_checks[0]);
      if constexpr (WantLoss) sum.add(u);
    }
    if (i < last) {
      const auto rest = static_cast<std::size_t>(last - i);
      const V u = step(
          tile, i, first_lanes<V>(rest),
          [rest](const T* from) { return load_first<V>(from, rest); },
          [rest](T* to, V x) { store_first<V>(to, x, rest); }, gradient_checks[0]);
      if constexpr (WantLoss) sum.add(u);
    }
    check += sum_of(gradient_checks);
    return sum.total();
  }

  /// One vector of elements; returns its weighted losses. `gradient_check` becomes NaN where a
  /// gradient is not finite.
  template <class Load, class Store>
  MPSNN_INLINE V step(const Tile<T>& tile, std::int64_t i, Mask<V> live, Load load_at,
                      Store store_at, V& gradient_check) {
    const V y = load_at(tile.y + i), t = load_at(tile.t + i);
    V v = broadcast<V>(1), u{};
    if constexpr (Weighted) {
      if (tile.v != nullptr) v = load_at(tile.v + i);
    }
    if constexpr (WantGradient) {
      V slope =
          ByLabels ? F::by_label(y, t, tile.parameters) : F::by_prediction(y, t, tile.parameters);
      V scale = broadcast<V>(tile.gradient_scale);
      if constexpr (Weighted) {
        if (tile.g != nullptr) scale = scale * load_at(tile.g + i);
        slope = select<V>(v == V{}, V{}, scale * v * slope);
      } else {
        slope = slope * scale;
      }
      store_at(tile.gradient + i, slope);
      gradient_check = mul_add(select<V>(live, slope, V{}), V{}, gradient_check);
    }
    if constexpr (WantLoss) {
      u = F::loss(y, t, tile.parameters);
      if constexpr (Weighted) u = select<V>(v == V{}, V{}, v * u);
      if (tile.loss != nullptr) {
        u = u * tile.loss_scale;
        store_at(tile.loss + i, u);
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
  if (!plan.want_gradient) return ElementKernel<F, T, true, false, false, Weighted>::run;
  if (!plan.want_loss) {
    return plan.by_labels ? ElementKernel<F, T, false, true, true, Weighted>::run
                          : ElementKernel<F, T, false, true, false, Weighted>::run;
  }
  return plan.by_labels ? ElementKernel<F, T, true, true, true, Weighted>::run
                        : ElementKernel<F, T, true, true, false, Weighted>::run;
}

/// What a chunk works in, which would be too much for a small stack.
template <class T>
struct ElementScratch {
  TileRooms<T> rooms;
  WriterRoom<T> losses, gradients;
  T image_losses[kTileElements];
  // For float64 to look again at what float32 computed.
  static constexpr std::int64_t kWide = sizeof(T) == sizeof(float) ? kTileElements : 1;
  TileRooms<double> wide_rooms;
  double wide_losses[kWide], wide_gradients[kWide];
};

/// Stages a tile and applies the formula; `losses` and `gradients` may be null.
template <class F, class T>
TileResult compute_tile(const Plan& plan, std::int64_t first, std::int64_t count, T* losses,
                        T* gradients, TileRooms<T>& rooms) {
  using V = Vector<T>;
  const T* const scales =
      plan.want_gradient ? stage_gradients(plan, first, count, rooms.g) : nullptr;
  const bool scale_staged = scales != nullptr && plan.source_gradients.data == nullptr;
  const auto constant = [](double x) { return broadcast<V>(static_cast<T>(x)); };
  const Tile<T> tile{
      .y = stage(plan.predictions, plan.shape, first, count, rooms.y),
      .t = stage_labels(plan, first, count, rooms.t),
      .v = stage_weights(plan, first, count, rooms.v),
      .g = scales,
      .loss = losses,
      .gradient = gradients,
      .count = count,
      .loss_scale = plan.loss.data != nullptr ? static_cast<T>(plan.loss_scale) : T(1),
      .gradient_scale = scale_staged ? T(1) : static_cast<T>(plan.gradient_scales[0]),
      .parameters = {constant(plan.label_scale), constant(plan.label_offset),
                     constant(plan.epsilon), constant(plan.delta)}};
  const bool weighted = tile.v != nullptr || tile.g != nullptr;
  return (weighted ? element_function<F, T, true>(plan)
                   : element_function<F, T, false>(plan))(tile);
}

/// Takes from `wide` what is not finite in `values`.
MPSNN_INLINE void repair(float* values, const double* wide, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (values[i] - values[i] != 0) values[i] = static_cast<float>(wide[i]);
  }
}

/// Runs one tile; returns the sum of its losses where they are reduced to one.
template <class F, class T>
double run_element_tile(const Plan& plan, std::int64_t first, std::int64_t count,
                        TileWriter<T>& loss_writer, TileWriter<T>& gradient_writer,
                        ElementScratch<T>& scratch) {
  const bool writes_losses = plan.want_loss && plan.loss.data != nullptr;
  T* const gradients = plan.want_gradient ? gradient_writer.room(first) : nullptr;
  T* const losses = plan.sums_per_image ? scratch.image_losses
                    : writes_losses     ? loss_writer.room(first)
                                        : nullptr;
  TileResult result = compute_tile<F, T>(plan, first, count, losses, gradients, scratch.rooms);
  bool sum_wide = false;
  if constexpr (sizeof(T) == sizeof(float)) {
    // What left the range of float32 on its way may still be a number: float64 decides.
    if (!result.losses_finite || !result.gradients_finite) {
      const TileResult wide = compute_tile<F, double>(plan, first, count, scratch.wide_losses,
                                                      scratch.wide_gradients, scratch.wide_rooms);
      if (gradients != nullptr && !result.gradients_finite)
        repair(gradients, scratch.wide_gradients, count);
      if (losses != nullptr && !result.losses_finite) repair(losses, scratch.wide_losses, count);
      if (!result.losses_finite) result.sum = wide.sum;
      sum_wide = !result.losses_finite;
    }
  }
  if (plan.want_gradient) gradient_writer.advance(count);
  if (writes_losses) loss_writer.advance(count);
  if (plan.sums_per_image) {
    if (sum_wide) {
      add_to_image_sums(plan, scratch.wide_losses, first, count);
    } else {
      add_to_image_sums(plan, losses, first, count);
    }
  }
  return result.sum;
}

/// Runs a whole chunk at once, where no operand is staged and no image wants its own sum; false
/// where it cannot, or float64 has to look at the results again.
template <class F, class T>
bool run_without_staging(const Plan& plan, std::int64_t chunk, const Range& range,
                         TileRooms<T>& rooms) {
  if (plan.sums_per_image || !is_in_place<T>(plan)) return false;
  T* const losses = place_of<T>(plan.loss, range.first, nullptr);
  T* const gradients = place_of<T>(plan.gradient, range.first, nullptr);
  const TileResult result =
      compute_tile<F, T>(plan, range.first, range.last - range.first, losses, gradients, rooms);
  if (is_summed(plan)) plan.sums[chunk] = result.sum;
  return result.losses_finite && result.gradients_finite;
}

template <class F, class T>
void run_element_chunk(const Plan& plan, std::int64_t chunk, std::byte* memory) {
  const Range range = chunk_range(plan, chunk);
  auto& scratch = *new (memory) ElementScratch<T>;
  if (run_without_staging<F, T>(plan, chunk, range, scratch.rooms)) return;
  TileWriter<T> loss_writer(plan.loss, scratch.losses);
  TileWriter<T> gradient_writer(plan.gradient, scratch.gradients);
  CompensatedSum sum;
  for (std::int64_t first = range.first; first < range.last; first += kTileElements) {
    const std::int64_t rest = range.last - first;
    sum.add(run_element_tile<F, T>(plan, first, rest < kTileElements ? rest : kTileElements,
                                   loss_writer, gradient_writer, scratch));
  }
  loss_writer.flush();
  gradient_writer.flush();
  if (is_summed(plan)) plan.sums[chunk] = sum.total();
  if (plan.gradient.streams) finish_streams();
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
