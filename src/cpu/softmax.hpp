// A chunk of softmax rows: which layout it has, the blocks it is cut into, and what float64 looks
// at again.
#pragma once

#include "cpu/gathered_rows.hpp"
#include "cpu/softmax_long_rows.hpp"
#include "cpu/softmax_short_rows.hpp"
#include "cpu/softmax_side_by_side.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// How many elements a block of rows has that are transposed, and one that is copied plane by
/// plane; and how many rows either has at most.
inline constexpr std::int64_t kElementsOfBlock = 2048, kElementsOfPlanes = 32768,
                              kRowsOfBlock = 1024;

/// Calls f(strides) for each array that rows side by side copy plane by plane.
template <class T, class F>
void for_each_in_planes(const Plan& plan, F f) {
  for (const Source* source : {&plan.predictions, &plan.labels, &plan.source_gradients}) {
    if (lies_in_planes<T>(*source, plan.shape)) f(source->strides);
  }
  for (const Sink* sink : {&plan.gradient, &plan.hessian, &plan.loss}) {
    if (lies_in_planes<T>(*sink, plan.shape)) f(sink->strides);
  }
}

template <class T>
bool has_planes(const Plan& plan) {
  bool found = false;
  for_each_in_planes<T>(plan, [&](const Strides&) { found = true; });
  return found;
}

/// One instruction set serves all layouts of a row: exponentials differ between them in the last
/// place, and a row has the same bits in any batch.
enum class SoftmaxLayout { long_rows, short_rows, side_by_side };

template <class T>
SoftmaxLayout layout_of(const Plan& plan) {
  using enum SoftmaxLayout;
  const std::int64_t channels = plan.shape.channels, rows = plan.shape.images * plan.image_units;
  if (channels > kMostInShortRows) return long_rows;
  if (rows < kLeastSideBySide) return short_rows;
  return channels <= kMostTransposed || has_planes<T>(plan) ? side_by_side : short_rows;
}

/// The most rows of a block side by side, in whole groups: as many as stay in the first-level
/// cache. Of planes more, so that each visit to one copies a longer stretch.
template <class T>
std::int64_t most_rows(const Plan& plan) {
  constexpr auto width = static_cast<std::int64_t>(lanes<Vector<T>>);
  const std::int64_t elements = has_planes<T>(plan) ? kElementsOfPlanes : kElementsOfBlock;
  const std::int64_t fit = elements / plan.shape.channels,
                     most = fit < plan.chunk_units ? fit : plan.chunk_units;
  const std::int64_t bounded = most < kRowsOfBlock ? most : kRowsOfBlock;
  return bounded < width ? width : (bounded + width - 1) / width * width;
}

/// The rows of the block from a pixel on: planes are copied in one stretch each.
template <class T>
std::int64_t rows_of_block(const Plan& plan, std::int64_t pixel, std::int64_t most) {
  for_each_in_planes<T>(plan, [&](const Strides& strides) {
    const std::int64_t line = pixels_in_line(strides, plan.shape), rest = line - pixel % line;
    if (rest < most) most = rest;
  });
  return most;
}

/// Computes in float64 what a row has lost, and writes it; returns the loss where it was lost.
inline double run_again(const Plan& plan, std::int64_t pixel, const Lost& lost, Rooms rooms) {
  Plan part = plan;
  part.want_loss = lost.loss;
  part.want_gradient = lost.gradient || lost.hessian;
  part.want_hessian = lost.hessian;
  if (!lost.loss) part.loss = {};
  if (!lost.gradient) {  // comes with the Hessian, and goes nowhere
    double* const nowhere = rooms.take<double>(plan.shape.channels);
    part.gradient = {.data = reinterpret_cast<std::byte*>(nowhere - pixel * plan.shape.channels),
                     .format = Format::float64,
                     .strides = contiguous_strides(plan.shape),
                     .dense = true};
  }
  const SoftmaxCall<double> call(part);
  LongRows<double> row(call, rooms);
  const double loss = *row.run(pixel, 1).losses;
  row.flush();
  return loss;
}

/// Looks again at those of a block's rows that lost something.
template <class T, class Rows>
void find_lost(const SoftmaxCall<T>& call, Rows& rows, std::int64_t pixel, std::int64_t count,
               const RowsDone<T>& block, const Rooms& rooms, RowLosses& sum) {
  rows.flush();
  for (std::int64_t r = 0; r < count; ++r) {
    if (!block.lost[r]) continue;
    const double loss = run_again(call.plan, pixel + r, block.lost[r], rooms);
    if (!call.reduces || !block.lost[r].loss) continue;
    block.losses[r] = T(0);
    if (call.plan.sums_per_image) {
      call.plan.sums[(pixel + r) / call.plan.image_units] += loss;
    } else {
      sum.add_wide(loss);
    }
  }
}

/// Runs a chunk block by block. `rooms`: for float64 to look again.
template <class T, class Rows, class RowsAt>
void run_blocks(const SoftmaxCall<T>& call, const Range& range, Rows& rows, const Rooms& rooms,
                RowLosses& sum, RowsAt rows_at) {
  for (std::int64_t pixel = range.first, count = 0; pixel < range.last; pixel += count) {
    count = rows_at(pixel);
    if (count > range.last - pixel) count = range.last - pixel;
    const RowsDone<T> block = rows.run(pixel, count);
    if (sizeof(T) == sizeof(float) && block.lost != nullptr)
      find_lost(call, rows, pixel, count, block, rooms, sum);
    if (call.reduces) add_losses(call.plan, pixel, count, block.losses, sum);
  }
  rows.flush();
}

template <class T>
void run_long_rows(const SoftmaxCall<T>& call, const Range& range, Rooms rooms, RowLosses& sum) {
  const auto one = [](std::int64_t) { return std::int64_t{1}; };
  if (!has_planes<T>(call.plan)) {
    LongRows<T> rows(call, rooms);
    return run_blocks(call, range, rows, rooms, sum, one);
  }
  GatheredRows<T> gathered(call.plan, rooms);
  const SoftmaxCall<T> of_copies(gathered.plan());
  LongRows<T> rows(of_copies, rooms);
  constexpr std::int64_t most = GatheredRows<T>::kMostRows;
  for (std::int64_t pixel = range.first; pixel < range.last; pixel += most) {
    const std::int64_t rest = range.last - pixel, count = rest < most ? rest : most;
    gathered.begin(pixel, count);
    run_blocks(of_copies, {pixel, pixel + count}, rows, rooms, sum, one);
    gathered.end();
  }
}

template <class T>
void run_softmax_chunk(const Plan& plan, std::int64_t chunk, std::byte* memory) {
  const Range range = chunk_range(plan, chunk);
  const SoftmaxCall<T> call(plan);
  Rooms rooms(memory);
  RowLosses sum;
  switch (layout_of<T>(plan)) {
    case SoftmaxLayout::long_rows: run_long_rows(call, range, rooms, sum); break;
    case SoftmaxLayout::short_rows: {
      const auto run = [&](auto rows) {
        run_blocks(call, range, rows, rooms, sum, [&](std::int64_t) { return rows.most_rows(); });
      };
      // Segmentation has about 21 classes: three vectors of eight floats, which registers hold.
      constexpr auto kWidth = static_cast<std::int64_t>(lanes<Vector<T>>);
      if constexpr (kWidth == 8 && sizeof(T) == sizeof(float)) {
        if (call.channels > 2 * kWidth && call.channels <= 3 * kWidth) {
          run(ShortRows<T, 2>(call, rooms));
          break;
        }
      }
      run(ShortRows<T>(call, rooms));
      break;
    }
    case SoftmaxLayout::side_by_side: {
      const std::int64_t most = most_rows<T>(plan);
      SideBySide<T> rows(call, most, rooms);
      run_blocks(call, range, rows, rooms, sum,
                 [&](std::int64_t pixel) { return rows_of_block<T>(plan, pixel, most); });
      break;
    }
  }
  if (is_summed(plan)) plan.sums[chunk] = sum.total();
  if (has_streams(plan)) finish_streams();
}

/// What a chunk works in. Enough for either layout of short rows: where results take the place of
/// predictions, a chunk copies those, and their copy may have another layout.
template <class T>
std::int64_t softmax_scratch(const Plan& plan) {
  const std::int64_t channels = plan.shape.channels;
  const std::int64_t again = LongRows<double>::scratch_bytes(channels) +
                             channels * std::int64_t{sizeof(double)} + Rooms::kSlack;
  if (layout_of<T>(plan) == SoftmaxLayout::long_rows) {
    const bool gathers = has_planes<T>(plan);
    return again + LongRows<T>::scratch_bytes(channels) +
           (gathers ? GatheredRows<T>::scratch_bytes(channels) : 0);
  }
  const std::int64_t side = SideBySide<T>::scratch_bytes(channels, most_rows<T>(plan));
  const std::int64_t lying = ShortRows<T>::kScratchBytes;
  return again + (side > lying ? side : lying);
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
