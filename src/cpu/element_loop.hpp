// The loop of the losses whose elements are independent: stage a tile, apply the formula, store.
#pragma once

#include <new>

#include "cpu/element_kernel.hpp"
#include "cpu/plan.hpp"
#include "cpu/staging.hpp"
#include "cpu/sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// What a chunk works in, which would be too much for a small stack.
template <class T>
struct ElementScratch {
  TileRooms<T> rooms;
  typename WeightTiles<T>::Repeated weights;
  WriterRoom<T> losses, gradients, hessians;
  T image_losses[kTileElements];
  // For float64 to look again at what float32 computed.
  static constexpr std::int64_t kWide = sizeof(T) == sizeof(float) ? kTileElements : 1;
  TileRooms<double> wide_rooms;
  double wide_losses[kWide], wide_gradients[kWide], wide_hessians[kWide];
};

/// Where the results of a tile go; null: not stored.
template <class T>
struct ResultTiles {
  T *loss, *gradient, *hessian;
  bool stream;
};

template <class T>
Parameters<T> parameters_of(const Plan& plan) {
  return {static_cast<T>(plan.label_scale), static_cast<T>(plan.label_offset),
          static_cast<T>(plan.epsilon), static_cast<T>(plan.delta)};
}

/// Where the operands of a tile stand, contiguous and of the compute type; null: 1.
template <class T>
struct OperandTiles {
  const T *y, *t, *v, *g;
};

template <class T>
OperandTiles<T> staged(const Plan& plan, std::int64_t first, std::int64_t count,
                       TileRooms<T>& rooms, const T* weights) {
  return {stage(plan.predictions, plan.shape, first, count, rooms.y),
          stage_labels(plan, first, count, rooms.t), weights,
          plan.want_gradient ? stage_gradients(plan, first, count, rooms.g) : nullptr};
}

/// Where nothing has to be staged.
template <class T>
MPSNN_INLINE OperandTiles<T> as_they_lie(const Plan& plan, std::int64_t first) {
  return {place_of<T>(plan.predictions, first), place_of<T>(plan.labels, first),
          place_of<T>(plan.weights[0], first), place_of<T>(plan.source_gradients, first)};
}

/// Applies the formula.
template <class F, class T>
TileResult compute_tile(const Plan& plan, const OperandTiles<T>& from, std::int64_t count,
                        const ResultTiles<T>& to) {
  const Tile<T> tile{
      .y = from.y,
      .t = from.t,
      .v = from.v,
      .g = from.g,
      .loss = to.loss,
      .gradient = to.gradient,
      .hessian = to.hessian,
      .streams = to.stream,
      .count = count,
      .loss_scale = plan.loss.data != nullptr ? static_cast<T>(plan.loss_scale) : T(1),
      .gradient_scale = plan.scale_per_image ? T(1) : static_cast<T>(plan.gradient_scales[0]),
      .parameters = parameters_of<T>(plan)};
  const bool weighted = tile.v != nullptr || tile.g != nullptr;
  return (weighted ? element_function<F, T, true>(plan)
                   : element_function<F, T, false>(plan))(tile);
}

/// Takes from `wide` what is not finite in `values`.
MPSNN_INLINE void repair(float* values, const double* wide, std::int64_t count) {
  for (std::int64_t i = 0; values != nullptr && i < count; ++i) {
    if (values[i] - values[i] != 0) values[i] = static_cast<float>(wide[i]);
  }
}

/// Where the results of a chunk are made, tile after tile.
template <class T>
struct ResultWriters {
  TileWriter<T> loss, gradient, hessian;

  ResultWriters(const Plan& plan, ElementScratch<T>& scratch)
      : loss(plan.loss, plan.shape, scratch.losses),
        gradient(plan.gradient, plan.shape, scratch.gradients),
        hessian(plan.hessian, plan.shape, scratch.hessians) {}
};

/// Runs one tile; returns the sum of its losses where they are reduced to one.
template <class F, class T>
double run_element_tile(const Plan& plan, std::int64_t first, std::int64_t count,
                        WeightTiles<T>& weights, ResultWriters<T>& writers,
                        ElementScratch<T>& scratch) {
  const bool writes_losses = plan.loss.data != nullptr;
  const ResultTiles<T> to{
      .loss = plan.sums_per_image ? scratch.image_losses
              : writes_losses     ? writers.loss.room(first)
                                  : nullptr,
      .gradient = plan.want_gradient ? writers.gradient.room(first) : nullptr,
      .hessian = plan.want_hessian ? writers.hessian.room(first) : nullptr,
      .stream = false,
  };
  TileResult result = compute_tile<F>(
      plan, staged(plan, first, count, scratch.rooms, weights.tile(first, count)), count, to);
  bool sum_wide = false;
  if constexpr (sizeof(T) == sizeof(float)) {
    // What left the range of float32 on its way may still be a number: float64 decides.
    if (!result.losses_finite || !result.gradients_finite) {
      const ResultTiles<double> wide_to{scratch.wide_losses, scratch.wide_gradients,
                                        scratch.wide_hessians, false};
      TileRooms<double>& rooms = scratch.wide_rooms;
      const double* const wide_weights = stage_weights(plan, first, count, rooms.v);
      const TileResult wide =
          compute_tile<F>(plan, staged(plan, first, count, rooms, wide_weights), count, wide_to);
      if (!result.gradients_finite) {
        repair(to.gradient, scratch.wide_gradients, count);
        repair(to.hessian, scratch.wide_hessians, count);
      }
      if (!result.losses_finite) {
        repair(to.loss, scratch.wide_losses, count);
        result.sum = wide.sum;
        sum_wide = true;
      }
    }
  }
  if (plan.want_gradient) writers.gradient.advance(count);
  if (plan.want_hessian) writers.hessian.advance(count);
  if (writes_losses) writers.loss.advance(count);
  if (plan.sums_per_image) {
    if (sum_wide) {
      add_to_image_sums(plan, scratch.wide_losses, first, count);
    } else {
      add_to_image_sums(plan, to.loss, first, count);
    }
  }
  return result.sum;
}

/// Runs a whole chunk at once, where no operand is staged and no image wants its own sum; false
/// where it cannot, or float64 has to look at the results again.
template <class F, class T>
bool run_without_staging(const Plan& plan, std::int64_t chunk, const Range& range) {
  if (plan.sums_per_image || !is_direct<T>(plan)) return false;
  const bool stream = has_streams(plan);
  const ResultTiles<T> to{place_of<T>(plan.loss, range.first),
                          place_of<T>(plan.gradient, range.first),
                          place_of<T>(plan.hessian, range.first), stream};
  const TileResult result =
      compute_tile<F>(plan, as_they_lie<T>(plan, range.first), range.last - range.first, to);
  if (is_summed(plan)) plan.sums[chunk] = result.sum;
  if (stream) finish_streams();
  return result.losses_finite && result.gradients_finite;
}

/// The same for a gradient whose operands all have the same 16 bits: converted where they are
/// loaded and stored, so that half as many bytes are half the time.
template <class F, class S>
bool run_narrow(const Plan& plan, const Range& range) {
  if (results_of(plan) != Results::gradient || plan.weight_count > 0 || plan.scale_per_image ||
      plan.source_gradients.data != nullptr || plan.class_indices != nullptr ||
      plan.gradient.overwrites) {
    return false;
  }
  const auto fits = [](const auto& end) { return end.dense && end.format == kFormatOf<S>; };
  if (!fits(plan.predictions) || !fits(plan.labels) || !fits(plan.gradient)) return false;
  const auto place = [&](const auto* data) {
    return reinterpret_cast<const S*>(data) + range.first;
  };
  S* const gradient = place_of<S>(plan.gradient, range.first);
  const bool stream = plan.gradient.streams && StreamWriter<S>::can_stream(gradient);
  const Tile<float, S> tile{.y = place(plan.predictions.data),
                            .t = place(plan.labels.data),
                            .v = nullptr,
                            .g = nullptr,
                            .loss = nullptr,
                            .gradient = gradient,
                            .hessian = nullptr,
                            .streams = stream,
                            .count = range.last - range.first,
                            .loss_scale = 1,
                            .gradient_scale = static_cast<float>(plan.gradient_scales[0]),
                            .parameters = parameters_of<float>(plan)};
  const TileResult result = ElementKernel<F, float, Results::gradient, false, S>::run(tile);
  if (stream) finish_streams();
  return result.gradients_finite;
}

template <class F, class T>
void run_element_chunk(const Plan& plan, std::int64_t chunk, std::byte* memory) {
  const Range range = chunk_range(plan, chunk);
  if (run_without_staging<F, T>(plan, chunk, range)) return;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (run_narrow<F, Float16>(plan, range) || run_narrow<F, BFloat16>(plan, range)) return;
  }
  auto& scratch = *new (memory) ElementScratch<T>;
  WeightTiles<T> weights(plan, scratch.rooms.v, scratch.weights);
  ResultWriters<T> writers(plan, scratch);
  CompensatedSum sum;
  for (std::int64_t first = range.first; first < range.last; first += kTileElements) {
    const std::int64_t rest = range.last - first;
    sum.add(run_element_tile<F, T>(plan, first, rest < kTileElements ? rest : kTileElements,
                                   weights, writers, scratch));
  }
  for (TileWriter<T>* writer : {&writers.loss, &writers.gradient, &writers.hessian})
    writer->flush();
  if (is_summed(plan)) plan.sums[chunk] = sum.total();
  if (has_streams(plan)) finish_streams();
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
