// Brings the operands of a tile into contiguous arrays of the compute type, and results out of
// them: converts other formats, spreads broadcast weights, expands class indices, streams large
// results. What is already so in memory is used where it stands.
#pragma once

#include "core/weight_product.hpp"
#include "cpu/convert.hpp"
#include "cpu/plan.hpp"
#include "cpu/spread.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// Memory of a chunk, handed out piece by piece.
class Rooms {
 public:
  static constexpr std::int64_t kSlack = 128;  // of each room

  explicit Rooms(std::byte* begin) : at_(begin) {}
  template <class T>
  T* take(std::int64_t count = 1) {
    auto* const room = reinterpret_cast<T*>(at_);
    // One line apart, so that equal places of rooms do not fall into the same set of the cache.
    at_ += (count * std::int64_t{sizeof(T)} + 63) / 64 * 64 + 64;
    return room;
  }

 private:
  std::byte* at_;
};

/// Where a tile is staged, with room for a vector more to be spoilt.
template <class T>
struct alignas(Vector<T>) TileRoom {
  T elements[kTileElements + static_cast<std::int64_t>(lanes<Vector<T>>)];
};

/// Rooms for the operands of a tile.
template <class T>
struct TileRooms {
  TileRoom<T> y, t, v, g;
};

/// True where a source is absent or used as it lies.
template <class T>
MPSNN_INLINE bool is_in_place(const Source& source) {
  return source.data == nullptr || (source.dense && source.format == kFormatOf<T>);
}

/// True where results are made where they belong.
template <class T>
MPSNN_INLINE bool is_in_place(const Sink& sink) {
  return sink.data == nullptr ||
         (sink.dense && sink.format == kFormatOf<T> && !sink.streams && !sink.overwrites);
}

/// Where elements lie from `first` on, in a dense source or sink of that type; null where absent.
template <class T>
MPSNN_INLINE const T* place_of(const Source& source, std::int64_t first) {
  return source.data == nullptr ? nullptr : reinterpret_cast<const T*>(source.data) + first;
}
template <class T>
MPSNN_INLINE T* place_of(const Sink& sink, std::int64_t first) {
  return sink.data == nullptr ? nullptr : reinterpret_cast<T*>(sink.data) + first;
}

/// Where a tile of results is made that is not in place, behind the begin of a line of the cache.
template <class T>
struct WriterRoom {
  static constexpr std::int64_t kLine = 64 / sizeof(T);

  T elements[kTileElements + kLine + static_cast<std::int64_t>(lanes<Vector<T>>)];
};

/// Where the results of a chunk are made, tile after tile: in place, or in a room and then put
/// where they belong. Streamed ones leave in whole lines of the cache; a line that is begun waits
/// for its rest.
template <class T>
class TileWriter {
 public:
  TileWriter(const Sink& sink, const Shape& shape, WriterRoom<T>& room)
      : TileWriter(sink, shape, room.elements) {}
  /// A room of another size, which has as much space behind its tiles.
  TileWriter(const Sink& sink, const Shape& shape, T* room)
      : sink_(sink), shape_(shape), elements_(room) {}
  const Sink& sink() const { return sink_; }

  /// Room for a tile from element `first` on, and for lanes - 1 more that may be spoilt where it is
  /// not in place.
  T* room(std::int64_t first) {
    if (is_in_place<T>(sink_)) return reinterpret_cast<T*>(sink_.data) + first;
    first_ = first - filled_;
    return elements_ + filled_;
  }
  /// Takes the tile over.
  void advance(std::int64_t count) {
    if (is_in_place<T>(sink_)) return;
    if (!sink_.dense) return scatter(elements_, count, sink_, shape_, first_);
    filled_ += count;
    const auto begin = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(sink_.data));
    const std::int64_t end = begin / std::int64_t{sizeof(T)} + first_ + filled_;
    const std::int64_t rest = sink_.streams && filled_ >= kLine ? end % kLine : 0;
    const std::int64_t whole = filled_ - rest;
    put(elements_, whole, sink_, first_);
    for (std::int64_t i = 0; i < rest; ++i) elements_[i] = elements_[whole + i];
    first_ += whole;
    filled_ = rest;
  }
  void flush() {
    if (filled_ > 0) put(elements_, filled_, sink_, first_);
    filled_ = 0;
  }

 private:
  static constexpr std::int64_t kLine = WriterRoom<T>::kLine;

  const Sink& sink_;
  const Shape& shape_;
  T* const elements_;
  std::int64_t first_ = 0, filled_ = 0;
};

/// Whether loops store single vectors past the caches. Those in float64 store whole tiles so: that
/// is for checking gradients, and not worth compiling each loop once more.
template <class T>
inline constexpr bool kStreams = kJoinsLanes && sizeof(T) == sizeof(float);

/// Stores vector after vector past the caches, so that each line of the results travels once, while
/// loads and arithmetic go on in between: a burst of such stores would have to wait. Lines are
/// aligned and results need not be, so each store joins two vectors. The first vector, and what is
/// left in the end, are stored plainly.
template <class T>
class StreamWriter {
  using V = Vector<T>;

 public:
  explicit StreamWriter(T* begin) : begin_(begin), shift_(offset(begin)) {}

  MPSNN_INLINE_MEMBER void operator()(T* to, V x) {
    if (to == begin_) {
      store<V>(to, x);
    } else {
      stream(to - shift_, join_(before_, x));
    }
    before_ = x;
    end_ = to + lanes<V>;
  }
  void finish() {
    if (end_ != nullptr)
      store_first<V>(end_ - shift_, join_(before_, before_), static_cast<std::size_t>(shift_));
  }

 private:
  static std::int64_t offset(const T* at) {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at) % sizeof(V) / sizeof(T));
  }

  T* const begin_;
  T* end_ = nullptr;
  const std::int64_t shift_;
  const JoinedLanes<V> join_{shift_};
  V before_{};
};

/// Results of 16 bits are streamed where they are aligned as allocators align them, and need not be
/// joined.
template <class T>
  requires kIsNarrow<T>
class StreamWriter<T> {
 public:
  static bool can_stream(const T* begin) {
    return reinterpret_cast<std::uintptr_t>(begin) % kNarrowAlignment == 0;
  }
  explicit StreamWriter(const T*) {}
  MPSNN_INLINE_MEMBER void operator()(T* to, FloatVector x) { stream_narrow(to, x); }
  void finish() {}
};

/// Where so many elements lie next to each other in a source that has gaps or broadcasts elsewhere;
/// null where they do not.
template <class T>
const T* place_in_run(const Source& source, const Shape& shape, std::int64_t first,
                      std::int64_t count) {
  if (source.format != kFormatOf<T>) return nullptr;
  const std::int64_t run = run_length(source.strides, shape);
  if (count > run || first % run + count > run) return nullptr;
  return reinterpret_cast<const T*>(source.data) + place_of_element(source.strides, shape, first);
}

/// `count` elements of a source from element `first` of the predictions' layout on.
template <class T>
const T* stage(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
               T* room) {
  if (is_in_place<T>(source)) return reinterpret_cast<const T*>(source.data) + first;
  if (const T* const there = place_in_run<T>(source, shape, first, count)) return there;
  if (source.dense) {
    convert_in(source.data, source.format, first, count, room);
  } else {
    spread(source, shape, first, count, room);
  }
  return room;
}
template <class T>
const T* stage(const Source& source, const Shape& shape, std::int64_t first, std::int64_t count,
               TileRoom<T>& room) {
  return stage(source, shape, first, count, room.elements);
}

/// Labels, or class indices as rows of zeros with a one.
template <class T>
const T* stage_labels(const Plan& plan, std::int64_t first, std::int64_t count, TileRoom<T>& room) {
  if (plan.class_indices == nullptr) return stage(plan.labels, plan.shape, first, count, room);
  const std::int64_t channels = plan.shape.channels, last = first + count - 1;
  for (std::int64_t i = 0; i < count; ++i) room.elements[i] = T(0);
  for (std::int64_t pixel = first / channels; pixel <= last / channels; ++pixel) {
    const std::int64_t index = read_class(plan, pixel);
    if (index < 0 || index >= channels) continue;
    const std::int64_t place = pixel * channels + index - first;
    if (place >= 0 && place < count) room.elements[place] = T(1);
  }
  return room.elements;
}

MPSNN_INLINE bool is_weighted(const Plan& plan) {
  return plan.weight_count > 0 || plan.has_ignored_class;
}

/// Multiplies `product` with the tile that stage_one makes of weights. Not inlined, as its tile
/// would then be on the stack of every call.
template <class T, class Stage>
[[gnu::noinline]] void multiply_by(const Source& weights, const T* product, std::int64_t count,
                                   TileRoom<T>& room, Stage stage_one) {
  TileRoom<T> more;
  const T* const factors = stage_one(weights, more);
  for (std::int64_t i = 0; i < count; ++i)
    room.elements[i] = weight_product(product[i], factors[i]);
}

/// The product of the tiles that stage_one makes of each array of weights.
template <class T, class Stage>
const T* multiply_weights(const Plan& plan, std::int64_t count, TileRoom<T>& room,
                          Stage stage_one) {
  const T* product = stage_one(plan.weights[0], room);
  for (std::int64_t k = 1; k < plan.weight_count; ++k) {
    multiply_by(plan.weights[k], product, count, room, stage_one);
    product = room.elements;
  }
  return product;
}

/// Weights with those of ignored pixels 0; null where every weight is 1.
template <class T>
const T* stage_weights(const Plan& plan, std::int64_t first, std::int64_t count,
                       TileRoom<T>& room) {
  if (!is_weighted(plan)) return nullptr;
  const T* weights = nullptr;
  if (plan.weight_count > 0) {
    weights = multiply_weights(plan, count, room, [&](const Source& source, TileRoom<T>& to) {
      return stage(source, plan.shape, first, count, to);
    });
  }
  if (!plan.has_ignored_class) return weights;
  T* const scratch = room.elements;
  for_each_pixel(plan.shape, first, count,
                 [&](std::int64_t at, std::int64_t length, std::int64_t pixel, std::int64_t) {
                   const bool ignored = read_class(plan, pixel) == plan.ignored_class;
                   for (std::int64_t i = 0; i < length; ++i) {
                     scratch[at + i] = ignored ? T(0) : weights != nullptr ? weights[at + i] : T(1);
                   }
                 });
  return scratch;
}

/// The weights of a chunk, tile after tile. Those that all pixels of an image share are spread once
/// for many tiles.
template <class T>
class WeightTiles {
 public:
  /// A tile of them, from any channel on.
  struct Repeated {
    T elements[2 * kTileElements + static_cast<std::int64_t>(lanes<Vector<T>>)];
  };

  WeightTiles(const Plan& plan, TileRoom<T>& room, Repeated& repeated)
      : plan_(plan),
        room_(room),
        repeated_(repeated),
        repeats_(plan.weight_count == 1 && !plan.has_ignored_class &&
                 is_one_for_pixels(plan.weights[0]) && plan.shape.channels <= kTileElements) {}

  /// Null where every weight is 1.
  const T* tile(std::int64_t first, std::int64_t count) {
    const std::int64_t of_image = plan_.shape.image_elements(), channels = plan_.shape.channels;
    if (!repeats_ || first % of_image + count > of_image)
      return stage_weights(plan_, first, count, room_);
    const std::int64_t image = first / of_image;
    if (image != image_) {
      const Source& weights = plan_.weights[0];
      repeat_pixel(weights, image * weights.strides[0], channels, 0, kTileElements + channels,
                   repeated_.elements);
      image_ = image;
    }
    return repeated_.elements + first % channels;
  }

 private:
  const Plan& plan_;
  TileRoom<T>& room_;
  Repeated& repeated_;
  const bool repeats_;
  std::int64_t image_ = -1;  // whose weights are spread
};

/// Each chunk hands over one sum of its losses.
MPSNN_INLINE bool is_summed(const Plan& plan) {
  return plan.want_loss && plan.loss.data == nullptr && !plan.sums_per_image;
}

/// Source gradients of each element: an array of them, or each image's own scale g ω / D; null
/// where one scale holds for all.
template <class T>
const T* stage_gradients(const Plan& plan, std::int64_t first, std::int64_t count,
                         TileRoom<T>& room) {
  if (plan.source_gradients.data != nullptr)
    return stage(plan.source_gradients, plan.shape, first, count, room);
  if (!plan.scale_per_image) return nullptr;
  T* const scratch = room.elements;
  const std::int64_t image_elements = plan.shape.image_elements();
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t image = (first + i) / image_elements,
                       end = (image + 1) * image_elements - first;
    const T scale = static_cast<T>(plan.gradient_scales[image]);
    for (; i < count && i < end; ++i) scratch[i] = scale;
  }
  return scratch;
}

/// True where results are stored straight to where they belong.
template <class T>
MPSNN_INLINE bool is_direct(const Sink& sink) {
  return is_in_place<T>(sink) ||
         (kStreams<T> && sink.dense && sink.format == kFormatOf<T> && !sink.overwrites);
}

/// True where that holds for all results and no operand has to be staged for them.
template <class T>
bool is_direct(const Plan& plan) {
  return is_in_place<T>(plan.predictions) && is_in_place<T>(plan.labels) &&
         plan.weight_count <= 1 && is_in_place<T>(plan.weights[0]) &&
         is_in_place<T>(plan.source_gradients) && plan.class_indices == nullptr &&
         !plan.scale_per_image && is_direct<T>(plan.gradient) && is_direct<T>(plan.hessian) &&
         is_direct<T>(plan.loss);
}

/// Adds to each image's sum the part of it among `count` values that stand one to a unit.
template <class T>
void add_to_image_sums(const Plan& plan, const T* values, std::int64_t first, std::int64_t count) {
  for (std::int64_t i = 0; i < count;) {
    const std::int64_t image = (first + i) / plan.image_units,
                       end = (image + 1) * plan.image_units - first;
    double sum = 0;
    for (; i < count && i < end; ++i) sum += static_cast<double>(values[i]);
    plan.sums[image] += sum;
  }
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
