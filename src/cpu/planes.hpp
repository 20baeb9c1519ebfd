// Blocks of rows between memory and planes: rows that lie closely are transposed on the way, arrays
// whose channels come first are copied plane by plane, and everything else is staged as rows first.
#pragma once

#include <type_traits>

#include "cpu/staging.hpp"
#include "cpu/transpose.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// How many pixels in a row lie one element apart, counted from a multiple of that number.
inline std::int64_t pixels_in_line(const Strides& strides, const Shape& shape) {
  std::int64_t line = 1;
  const std::int64_t axes[] = {shape.width, shape.height, shape.images};
  for (std::size_t i = 0; i < 3; ++i) {
    if (axes[i] == 1) continue;
    if (strides[2 - i] != line) break;
    line *= axes[i];
  }
  return line;
}

/// True where an end is copied plane by plane.
template <class T, class End>
bool lies_in_planes(const End& end, const Shape& shape) {
  constexpr std::int64_t kLeast = 16;  // fewer are not worth it
  return end.data != nullptr && !end.dense && end.format == kFormatOf<T> &&
         pixels_in_line(end.strides, shape) >= kLeast;
}

/// How many vectors the planes of one group of rows lie behind those of the one before: an odd
/// number, so that a plane does not lie in the same set of the cache for all groups.
inline std::int64_t group_pitch(std::int64_t channels) { return channels | 1; }

/// Moves a block of rows of up to kMostInShortRows channels.
template <class T>
class PlaneMover {
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);
  /// Elements of arrays that do not stay in the second-level cache.
  static constexpr std::int64_t kLarge = 1 << 18;
  /// Rows that are staged at a time: whole groups of them.
  static constexpr std::int64_t kRowElements = kWidth * 256;

 public:
  PlaneMover(const Plan& plan, std::int64_t most_rows, Rooms& rooms)
      : shape_(plan.shape),
        channels_(plan.shape.channels),
        pitch_(group_pitch(plan.shape.channels)),
        most_rows_(most_rows),
        predictions_(plan.predictions),
        labels_(plan.class_indices == nullptr ? plan.labels : plan.predictions),
        rows_room_(rooms.take<T>(kRowElements + kSpill)),
        group_room_(rooms.take<T>(kRowElements + kSpill)),
        loss_(plan.loss, plan.shape, rooms.take<T>(kRowElements + kSpill)),
        gradient_(plan.gradient, plan.shape, rooms.take<T>(kRowElements + kSpill)),
        hessian_(plan.hessian, plan.shape, rooms.take<T>(kRowElements + kSpill)) {}

  static const std::int64_t kScratchBytes;

  /// Large arrays are fetched a block ahead, while other work is done: as much of it as the group
  /// from row `r` on has in one channel.
  bool reads_ahead() const { return ahead_y_.at != nullptr && ahead_t_.at != nullptr; }
  MPSNN_INLINE_MEMBER void prefetch(std::int64_t r, std::int64_t channel) const {
    for (const Ahead& ahead : {ahead_y_, ahead_t_})
      __builtin_prefetch(ahead.at + r * ahead.by_row + channel * ahead.by_channel);
  }

  void begin(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    rows_ = rows;
    if (shape_.elements() <= kLarge) return;
    ahead_y_ = ahead_of(predictions_);
    ahead_t_ = ahead_of(labels_);
  }

  /// The planes of a source.
  void bring(const Source& source, T* planes) {
    if (lies_in_planes<T>(source, shape_)) return copy_in(source, planes);
    for_each_part([&](std::int64_t row, std::int64_t rows) {
      const std::int64_t first = (pixel_ + row) * channels_, count = rows * channels_;
      const T* const from = is_in_place<T>(source) ? reinterpret_cast<const T*>(source.data) + first
                                                   : stage_all(source, first, count);
      transpose_in(from, rows, planes + row * pitch_);
    });
  }
  /// The planes of tiles that stage_tile(first element, count) makes.
  template <class Stage>
  void bring_tiles(T* planes, Stage stage_tile) {
    for_each_part([&](std::int64_t row, std::int64_t rows) {
      const std::int64_t first = (pixel_ + row) * channels_, count = rows * channels_;
      for_each_tile(count, [&](std::int64_t at, std::int64_t length) {
        const T* const tile = stage_tile(first + at, length);
        for (std::int64_t i = 0; i < length; ++i) rows_room_[at + i] = tile[i];
      });
      transpose_in(rows_room_, rows, planes + row * pitch_);
    });
  }

  void put_losses(const T* planes) { put(planes, loss_); }
  void put_gradient(const T* planes) { put(planes, gradient_); }
  void put_hessian(const T* planes) { put(planes, hessian_); }
  void flush() {
    for (TileWriter<T>* writer : {&loss_, &gradient_, &hessian_}) writer->flush();
  }

 private:
  /// Room for what transposition reads and writes beyond rows, and for a line that is begun.
  static constexpr std::int64_t kSpill = 2 * kPiece<T> + kWidth + WriterRoom<T>::kLine;

  /// Where the next block lies, and how far apart what is fetched of it.
  struct Ahead {
    const T* at = nullptr;
    std::int64_t by_row = 0, by_channel = 0;
  };
  Ahead ahead_of(const Source& source) const {
    const T* const begin = reinterpret_cast<const T*>(source.data);
    if (is_in_place<T>(source))
      return {begin + (pixel_ + most_rows_) * channels_, channels_, kWidth};
    if (!lies_in_planes<T>(source, shape_)) return {};
    return {begin + place_of_pixel(source.strides, shape_, pixel_) + rows_, 1, source.strides[3]};
  }

  /// Calls body(first row, rows) for parts of the block that fit a room, whole groups but the last.
  template <class Body>
  void for_each_part(Body body) const {
    const std::int64_t most = kRowElements / channels_ / kWidth * kWidth;
    for (std::int64_t row = 0; row < rows_; row += most)
      body(row, rows_ - row < most ? rows_ - row : most);
  }
  template <class Body>
  static void for_each_tile(std::int64_t count, Body body) {
    for (std::int64_t at = 0; at < count; at += kTileElements)
      body(at, count - at < kTileElements ? count - at : kTileElements);
  }
  const T* stage_all(const Source& source, std::int64_t first, std::int64_t count) {
    for_each_tile(count, [&](std::int64_t at, std::int64_t length) {
      stage(source, shape_, first + at, length, rows_room_ + at);
    });
    return rows_room_;
  }

  /// True where a group can be moved without touching what lies behind its rows.
  bool is_contained(std::int64_t rows_left) const {
    return rows_left >= (channels_ < kPiece<T> ? 2 * kWidth : kWidth);
  }
  void transpose_in(const T* from, std::int64_t rows, T* planes) {
    const std::int64_t group = kWidth * channels_;
    std::int64_t r = 0;
    for (; is_contained(rows - r); r += kWidth, from += group, planes += kWidth * pitch_) {
      to_planes(from, channels_, planes, kWidth);
    }
    for (; r < rows; r += kWidth, from += group, planes += kWidth * pitch_) {
      const std::int64_t left = rows - r, count = (left < kWidth ? left : kWidth) * channels_;
      for (std::int64_t i = 0; i < count; ++i) group_room_[i] = from[i];
      for (std::int64_t i = count; i < group; ++i) group_room_[i] = T(0);
      to_planes(group_room_, channels_, planes, kWidth);
    }
  }
  void transpose_out(const T* planes, std::int64_t rows, T* to) {
    const std::int64_t group = kWidth * channels_;
    std::int64_t r = 0;
    for (; is_contained(rows - r); r += kWidth, to += group, planes += kWidth * pitch_)
      from_planes(planes, kWidth, channels_, to);
    for (; r < rows; r += kWidth, to += group, planes += kWidth * pitch_) {
      const std::int64_t left = rows - r, count = (left < kWidth ? left : kWidth) * channels_;
      from_planes(planes, kWidth, channels_, group_room_);
      for (std::int64_t i = 0; i < count; ++i) to[i] = group_room_[i];
    }
  }

  void copy_in(const Source& source, T* planes) const {
    const T* from =
        reinterpret_cast<const T*>(source.data) + place_of_pixel(source.strides, shape_, pixel_);
    const std::int64_t whole = rows_ / kWidth * kWidth;
    constexpr std::int64_t kPlanesAhead = 8;
    const bool is_short = rows_ <= 8 * WriterRoom<T>::kLine;
    for (std::int64_t c = 0; c < channels_; ++c, from += source.strides[3], planes += kWidth) {
      T* to = planes;
      // Of few lines the processor does not see by itself that more will follow.
      for (std::int64_t r = 0; is_short && r < whole; r += WriterRoom<T>::kLine)
        __builtin_prefetch(from + kPlanesAhead * source.strides[3] + r);
      for (std::int64_t r = 0; r < whole; r += kWidth, to += kWidth * pitch_)
        store<V>(to, load<V>(from + r));
      if (whole < rows_)
        store<V>(to, load_first<V>(from + whole, static_cast<std::size_t>(rows_ - whole)));
    }
  }
  template <class Store>
  void copy_out(const T* planes, T* to, Store store_at) const {
    const std::int64_t whole = rows_ / kWidth * kWidth;
    for (std::int64_t r = 0; r < whole; r += kWidth, planes += kWidth * pitch_)
      store_at(to + r, load<V>(planes));
    if constexpr (!std::is_same_v<Store, PlainStore>) store_at.finish();
    if (whole < rows_)
      store_first<V>(to + whole, load<V>(planes), static_cast<std::size_t>(rows_ - whole));
  }
  struct PlainStore {
    MPSNN_INLINE_MEMBER void operator()(T* to, V x) const { store<V>(to, x); }
  };

  void put(const T* planes, TileWriter<T>& writer) {
    const Sink& sink = writer.sink();
    if (lies_in_planes<T>(sink, shape_)) {
      T* to = reinterpret_cast<T*>(sink.data) + place_of_pixel(sink.strides, shape_, pixel_);
      for (std::int64_t c = 0; c < channels_; ++c, to += sink.strides[3], planes += kWidth) {
        if (kJoinsLanes && sink.streams) {
          copy_out(planes, to, StreamWriter<T>(to));
        } else {
          copy_out(planes, to, PlainStore());
        }
      }
      return;
    }
    for_each_part([&](std::int64_t row, std::int64_t rows) {
      transpose_out(planes + row * pitch_, rows, writer.room((pixel_ + row) * channels_));
      writer.advance(rows * channels_);
    });
  }

  const Shape& shape_;
  const std::int64_t channels_, pitch_;
  const std::int64_t most_rows_;
  const Source &predictions_, &labels_;
  Ahead ahead_y_, ahead_t_;
  T *const rows_room_, *const group_room_;
  TileWriter<T> loss_, gradient_, hessian_;
  std::int64_t pixel_ = 0, rows_ = 0;
};

template <class T>
inline constexpr std::int64_t PlaneMover<T>::kScratchBytes =
    5 * ((kRowElements + kSpill) * std::int64_t{sizeof(T)} + Rooms::kSlack);

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
