// The rows of a tile as they lie, vector by vector, and sums over each of them.
#pragma once

#include "cpu/softmax_rows.hpp"
#include "cpu/sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// `kBefore`: how many vectors of each row stand before its last one, as a constant that loops are
/// unrolled by; -1: any number.
template <class T, int kBefore>
class RowSums {
 protected:
  using V = Vector<T>;
  static constexpr auto kWidth = static_cast<std::int64_t>(lanes<V>);

  explicit RowSums(std::int64_t channels) : channels_(channels) {}

  /// Calls body(index, load, store, live lanes) along the row that begins at this element of the
  /// tile. Where memory follows, the last vector is stored whole too: the next row overwrites what
  /// is too much, so rows are to be written in their order.
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_vector(std::int64_t first, Body body) const {
    const auto load_whole = [](const T* at) MPSNN_INLINE_LAMBDA { return load<V>(at); };
    const auto store_whole = [](T* to, V x) MPSNN_INLINE_LAMBDA { store<V>(to, x); };
    std::int64_t i = 0;
    if constexpr (kBefore >= 0) {
      for (int k = 0; k < kBefore; ++k, i += kWidth) body(i, load_whole, store_whole, ~Mask<V>{});
    } else {
      // Two at a time, as counting would be a quarter of the work.
      for (; i + 2 * kWidth <= channels_; i += 2 * kWidth) {
        body(i, load_whole, store_whole, ~Mask<V>{});
        body(i + kWidth, load_whole, store_whole, ~Mask<V>{});
      }
      if (i + kWidth <= channels_) {
        body(i, load_whole, store_whole, ~Mask<V>{});
        i += kWidth;
      }
      if (i == channels_) return;
    }
    const auto rest = static_cast<std::size_t>(channels_ - i);
    const Mask<V> live = first_lanes<V>(rest);
    if (first < first_to_end_) return body(i, load_whole, store_whole, live);
    body(
        i, [rest](const T* at) MPSNN_INLINE_LAMBDA { return load_first<V>(at, rest); },
        [rest](T* to, V x) MPSNN_INLINE_LAMBDA { store_first<V>(to, x, rest); }, live);
  }

  /// Calls body(row, its first element in the tile).
  template <class Body>
  MPSNN_INLINE_MEMBER void for_each_row(Body body) const {
    for (std::int64_t r = 0; r < rows_; ++r) body(r, r * channels_);
  }

  /// Whether test(row) is true for any row, of as many at a time as a vector has lanes.
  template <class Test>
  MPSNN_INLINE_MEMBER bool any_row(Test test) const {
    Mask<V> found{};
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const std::int64_t rest = rows_ - r;
      found |= rest < kWidth ? test(r) & first_lanes<V>(static_cast<std::size_t>(rest)) : test(r);
    }
    return any<V>(found);
  }

  /// Rows of so few channels may go side by side too, with the parts of their sums as registers.
  bool sums_by_parts() const {
    return (kBefore + 1) * kWidth <= kMostTransposed && channels_ <= kMostTransposed;
  }
  template <class Term>
  MPSNN_INLINE_MEMBER T sum_by_parts(std::int64_t first, Term term) const {
    constexpr std::int64_t parts = kParts<V>;
    T part[parts] = {};
    for_each_vector(first,
                    [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
                      T of_x[kWidth];
                      store<V>(of_x, select<V>(live, term(i, load_at, live), V{}));
                      for (std::int64_t k = 0; k < kWidth; ++k) part[k % parts] += of_x[k];
                    });
    if constexpr (parts == 2) return part[0] + part[1];
    return (part[0] + part[parts / 2]) + (part[1] + part[parts - 1]);
  }
  template <class Term>
  MPSNN_INLINE_MEMBER V sum_by_lanes(std::int64_t first, Term term) const {
    V sum{};
    for_each_vector(
        first, [&](std::int64_t i, auto load_at, auto, Mask<V> live)
                   MPSNN_INLINE_LAMBDA { sum += select<V>(live, term(i, load_at, live), V{}); });
    return sum;
  }

  /// Σ term(index, load, live lanes) over the channels of the row that begins at this
  /// element of the tile, in the order of sum_of_channels.
  template <class Term>
  MPSNN_INLINE_MEMBER T sum_of_row(std::int64_t first, Term term) const {
    return sums_by_parts() ? sum_by_parts(first, term) : sum_of_lanes(sum_by_lanes(first, term));
  }

  /// Calls row(row, its first element) for vectors, whose lanes are combined to one number for each
  /// row. Those of as many rows as a vector has lanes are folded in one go: a row at a time, the
  /// next would wait for it.
  template <class Combine, class Row>
  MPSNN_INLINE_MEMBER void fold_rows(T* to, Combine combine, Row row) const {
    for (std::int64_t first = 0; first < rows_; first += kWidth) {
      const std::int64_t rest = rows_ - first, live = rest < kWidth ? rest : kWidth;
      V of_rows[kWidth];
      for (std::int64_t k = 0; k < live; ++k) of_rows[k] = row(first + k, (first + k) * channels_);
      for (std::int64_t k = live; k < kWidth; ++k) of_rows[k] = V{};
      store<V>(to + first, fold_each(of_rows, combine));
    }
  }
  /// Sums over the channels of each row: begin(row, first element) returns the terms of sum_of_row.
  template <class Begin>
  MPSNN_INLINE_MEMBER void sum_rows(T* to, Begin begin) const {
    if (sums_by_parts()) {
      for_each_row([&](std::int64_t r, std::int64_t at)
                       MPSNN_INLINE_LAMBDA { to[r] = sum_by_parts(at, begin(r, at)); });
      return;
    }
    fold_rows(to, Add(), [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      return sum_by_lanes(at, begin(r, at));
    });
  }

  void begin_rows(std::int64_t rows) {
    rows_ = rows;
    const std::int64_t last = (channels_ - 1) / kWidth * kWidth;  // where the last vector begins
    first_to_end_ = rows * channels_ - last - kWidth + 1;
  }

  const std::int64_t channels_;
  std::int64_t rows_ = 0;

 private:
  /// Of the tile's elements the first from which a row's last vector would reach beyond it.
  std::int64_t first_to_end_ = 0;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
