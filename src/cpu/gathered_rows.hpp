// Long rows whose channels come first: some neighbouring pixels are copied at a time, so that each
// line of the cache is touched once, and their results go back together.
#pragma once

#include "cpu/planes.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
class GatheredRows {
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<Vector<T>>);

 public:
  static constexpr std::int64_t kMostRows = 16;

  GatheredRows(const Plan& plan, Rooms& rooms) : plan_(plan), own_(plan) {
    const std::int64_t elements = kMostRows * plan.shape.channels;
    for (T*& room : rooms_) room = rooms.take<T>(elements);
  }
  static std::int64_t scratch_bytes(std::int64_t channels) {
    return 5 * (kMostRows * channels * std::int64_t{sizeof(T)} + Rooms::kSlack);
  }

  /// The plan with copies in place of what lies channels-first, for the rows of begin().
  const Plan& plan() const { return own_; }

  void begin(std::int64_t pixel, std::int64_t rows) {
    pixel_ = pixel;
    rows_ = rows;
    gather_from(plan_.predictions, own_.predictions, rooms_[0]);
    gather_from(plan_.labels, own_.labels, rooms_[1]);
    for_each_sink([&](const Sink& sink, Sink& own, T* room) {
      own = sink;
      move(own, room);
      own.streams = false;
    });
  }
  void end() {
    const Shape& shape = plan_.shape;
    const std::int64_t channels = shape.channels;
    for_each_sink([&](const Sink& sink, Sink&, const T* room) {
      T* const to = reinterpret_cast<T*>(sink.data) + place_of_pixel(sink.strides, shape, pixel_);
      std::int64_t r = 0;
      for (; r + kWidth <= rows_ && in_one_line(sink.strides); r += kWidth)
        to_planes(room + r * channels, channels, to + r, sink.strides[3]);
      if (r < rows_) {
        const std::int64_t rest = (rows_ - r) * channels;
        scatter(room + r * channels, rest, sink, shape, (pixel_ + r) * channels);
      }
    });
  }

 private:
  bool in_one_line(const Strides& strides) const {
    const std::int64_t line = pixels_in_line(strides, plan_.shape);
    return pixel_ % line + rows_ <= line;
  }
  /// Makes an end the copy of the rows in a room.
  template <class End>
  void move(End& end, T* room) const {
    end.data = reinterpret_cast<std::byte*>(room - pixel_ * plan_.shape.channels);
    end.strides = contiguous_strides(plan_.shape);
    end.dense = true;
  }
  void gather_from(const Source& source, Source& own, T* room) const {
    const Shape& shape = plan_.shape;
    const std::int64_t channels = shape.channels;
    if (!lies_in_planes<T>(source, shape)) return;
    const T* const from =
        reinterpret_cast<const T*>(source.data) + place_of_pixel(source.strides, shape, pixel_);
    std::int64_t r = 0;
    for (; r + kWidth <= rows_ && in_one_line(source.strides); r += kWidth)
      from_planes(from + r, source.strides[3], channels, room + r * channels);
    if (r < rows_)
      gather(source, shape, (pixel_ + r) * channels, (rows_ - r) * channels, room + r * channels);
    own = source;
    move(own, room);
  }
  template <class F>
  void for_each_sink(F f) {
    const Sink* const sinks[] = {&plan_.gradient, &plan_.hessian, &plan_.loss};
    Sink* const own[] = {&own_.gradient, &own_.hessian, &own_.loss};
    for (std::size_t i = 0; i < 3; ++i) {
      if (lies_in_planes<T>(*sinks[i], plan_.shape)) f(*sinks[i], *own[i], rooms_[2 + i]);
    }
  }

  const Plan& plan_;
  Plan own_;
  T* rooms_[5];
  std::int64_t pixel_ = 0, rows_ = 0;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
