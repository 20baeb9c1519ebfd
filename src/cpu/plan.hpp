// A call resolved to pointers, scales and chunks: all that the loops need to know. Only plain data
// and enumerations, because the loops are compiled once per instruction set (see simd.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/compensated_sum.hpp"
#include "core/loss_type.hpp"
#include "core/shape.hpp"

namespace mpsnn_loss::cpu {

/// Work is cut into about 64 chunks of 16384 to 65536 elements: a large call has more of them, a
/// small one fewer. Threads have no say in the cut, so that results do not depend on their number.
inline constexpr std::int64_t kChunks = 64, kLeastInChunk = 16384, kMostInChunk = 65536;
/// Elements that are staged at a time: a few such arrays stay in the first-level cache.
inline constexpr std::int64_t kTileElements = 1024;

/// An input, seen as [N, H, W, C] with stride 0 along the axes it broadcasts on.
struct Source {
  const std::byte* data = nullptr;  // null: absent
  Format format = Format::float32;
  Strides strides = {};        // in elements
  bool dense = false;          // C-contiguous, without broadcasts
  bool one_per_pixel = false;  // the same with one channel
};

/// An output of the predictions' shape.
struct Sink {
  std::byte* data = nullptr;  // null: not wanted
  Format format = Format::float32;
  Strides strides = {};
  bool dense = false;
  bool streams = false;     // too large for the caches: stored past them
  bool overwrites = false;  // the predictions: a tile is finished before it is stored
};

struct Plan {
  LossType loss_type = {};
  bool want_loss = false, want_gradient = false, want_hessian = false;
  bool by_labels = false;         // the gradient is with respect to the labels
  bool double_precision = false;  // compute in float64, else in float32

  Shape shape;
  Source predictions, labels, source_gradients;
  Source weights[3];  // of which each element is the product
  std::int64_t weight_count = 0;
  const std::int64_t* class_indices = nullptr;  // instead of labels; null: dense labels
  bool has_ignored_class = false;
  std::int64_t ignored_class = 0;

  double label_scale = 1, label_offset = 0, epsilon = 0, delta = 0;
  double loss_scale = 1;                    // ω, on losses that are not reduced
  const double* gradient_scales = nullptr;  // g ω / D: one, or one per image
  bool scale_per_image = false;

  Sink gradient, hessian;
  Sink loss;                      // where nothing is reduced
  bool results_in_place = false;  // one of them takes the place of the predictions

  double* sums = nullptr;       // of weighted losses, without ω: one per chunk, or one per image
  bool sums_per_image = false;  // a chunk holds whole images and every image wants its own sum

  // A unit is an element, or a whole pixel for losses that couple channels.
  std::int64_t unit_elements = 1;
  std::int64_t image_units = 0;
  std::int64_t chunks = 0;
  std::int64_t chunk_units = 0;       // at most, within one image or across whole images
  std::int64_t chunks_per_image = 0;  // 0: chunks hold whole images
  std::int64_t copy_scratch = 0;      // bytes for its predictions, where results take their place
};

/// Whether a result is stored past the caches, which has to end before others read it.
[[gnu::always_inline]] inline bool has_streams(const Plan& plan) {
  return plan.gradient.streams || plan.hessian.streams || plan.loss.streams;
}

/// A row is short up to 255 channels. Fewer than 8 rows never go side by side.
inline constexpr std::int64_t kMostInShortRows = 255, kLeastSideBySide = 8;
/// A chunk has a multiple of 16 rows, unless rows are long, so that its part of each plane begins
/// with a line of the cache.
inline constexpr std::int64_t kRowsOfLine = 16;

/// The class of a pixel as the caller's memory says at this moment: read once, as another thread
/// may write to it after it was checked. Whoever uses it as an index looks at it again.
[[gnu::always_inline]] inline std::int64_t read_class(const Plan& plan, std::int64_t pixel) {
  const volatile std::int64_t& place = plan.class_indices[pixel];
  return place;
}

/// Whether a chunk copies its predictions, as results take their place. Where nothing but gradients
/// of elements is wanted, it is enough that each tile is finished before it is stored.
[[gnu::always_inline]] inline bool copies_predictions(const Plan& plan) {
  return plan.results_in_place && (plan.want_loss || info(plan.loss_type).couples_channels);
}

struct Range {
  std::int64_t first, last;
};

/// The units of one chunk.
[[gnu::always_inline]] inline Range chunk_range(const Plan& plan, std::int64_t chunk) {
  if (plan.chunks_per_image == 0) {
    const std::int64_t all = plan.shape.images * plan.image_units;
    const std::int64_t first = chunk * plan.chunk_units, last = first + plan.chunk_units;
    return {first, last < all ? last : all};
  }
  const std::int64_t image = chunk / plan.chunks_per_image, part = chunk % plan.chunks_per_image;
  const std::int64_t first = part * plan.chunk_units, last = first + plan.chunk_units;
  const std::int64_t base = image * plan.image_units;
  return {base + first, base + (last < plan.image_units ? last : plan.image_units)};
}

/// What one instruction set provides.
struct KernelSet {
  const char* name;
  /// What a chunk needs beside plan.copy_scratch: the stack is the caller's, and may be small.
  std::int64_t (*scratch_bytes)(const Plan& plan);
  /// `scratch`: bytes for both that no other thread uses, aligned for any vector.
  void (*run_chunk)(const Plan& plan, std::int64_t chunk, std::byte* scratch);
};

}  // namespace mpsnn_loss::cpu
