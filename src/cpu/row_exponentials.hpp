// The exponentials of the rows of a tile as they lie, and their sums.
#pragma once

#include "cpu/math.hpp"
#include "cpu/row_sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T, int kBefore>
class RowExponentials : protected RowSums<T, kBefore> {
  using Rows = RowSums<T, kBefore>;
  /// Rows whose maxima differ by less than 8 share a shift: that is a factor of 2^12, and there is
  /// head room for 2^24. Not where an element is so far below that its own row's shift would make
  /// it 0.
  static constexpr T kNear = 8, kFar = 90;

 protected:
  using Rows::any_row, Rows::for_each_row, Rows::for_each_vector;
  using Rows::channels_, Rows::kWidth, Rows::rows_;
  using Rows::fold_rows, Rows::sum_rows, Rows::sum_of_row;
  using typename Rows::V;

  /// As many rows as a tile has of those that are too long to be transposed.
  static constexpr std::int64_t kMostRows = 64;
  static_assert(kMostRows * (kMostTransposed + 1) >= kTileElements);

  /// A page of memory. A processor that loads from the place in a page where it has just stored in
  /// another takes the one for the other and waits, so the exponentials lie half a page from the
  /// predictions.
  static constexpr std::int64_t kPage = 4096 / sizeof(T);

  struct Exponentials {
    alignas(V) T elements[kTileElements + kPage + kWidth];
    alignas(V) T maxima[kMostRows];  // max y of each row
    T sums[kMostRows];               // Σ exp, and the largest of them
    T largest[kMostRows];
  };

  /// `reads_ahead`: whether the next tile is fetched while this one is computed.
  RowExponentials(std::int64_t channels, Exponentials& room, bool reads_ahead)
      : Rows(channels), exponentials_(room), reads_ahead_(reads_ahead) {}

  Exponentials& exponentials_;
  T* e_ = nullptr;  // exp(y), in its room

  /// Of predictions; labels, where they are not null, are fetched ahead too.
  void find_exponentials(const T* y, const T* t) {
    t_ = t;
    e_ = exponentials_.elements + half_a_page_from(y);
    V lowest = broadcast<V>(static_cast<T>(__builtin_inff()));
    fold_rows(exponentials_.maxima, Larger(),
              [&](std::int64_t, std::int64_t at) MPSNN_INLINE_LAMBDA {
                const T* const row = y + at;
                V maximum = broadcast<V>(-static_cast<T>(__builtin_inff()));
                for_each_vector(
                    at, [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
                      const V x = load_at(row + i);
                      maximum = larger(select<V>(live, x, maximum), maximum);
                      lowest = smaller(select<V>(live, x, lowest), lowest);
                    });
                return maximum;
              });
    if (one_shift_does(lowest)) {
      find_alike(y);
    } else {
      find_row_by_row(y);
    }
  }

 private:
  std::int64_t half_a_page_from(const T* y) const {
    const auto place = [](const T* at) {
      return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at) / sizeof(T)) % kPage;
    };
    const std::int64_t shift =
        (place(y) + kPage / 2 - place(exponentials_.elements) + kPage) % kPage;
    return shift / kWidth * kWidth;
  }
  /// A shift is a power of two, on which no digit of an exponential depends, so that of the first
  /// row may do for all of them. Not for large arguments: they subtract their own maximum first.
  bool one_shift_does(V lowest) const {
    const V first = broadcast<V>(exponentials_.maxima[0]);
    const Mask<V> far = ~(lowest > first - kFar) |
                        ~(abs(first) < broadcast<V>(MathConstants<T>::reducible - kNear));
    return !any<V>(far) && !any_row([&](std::int64_t r) {
      return ~(abs(load<V>(exponentials_.maxima + r) - first) < broadcast<V>(kNear));
    });
  }

  /// In one go, so that no lane idles at the end of a row.
  void find_alike(const T* y) {
    const std::int64_t count = rows_ * channels_;
    T* const e = e_;
    const ExpShift<V> shift(broadcast<V>(exponentials_.maxima[0]));
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) {
      read_ahead(y, i);
      store<V>(e + i, shift.exp_in_range(load<V>(y + i)));
    }
    if (i < count)
      store<V>(e + i,
               shift.exp_in_range(load_first<V>(y + i, static_cast<std::size_t>(count - i))));
    for (std::int64_t r = 0; r < rows_; r += kWidth)
      store<V>(exponentials_.largest + r, shift.exp(load<V>(exponentials_.maxima + r)));
    sum_rows(exponentials_.sums, [&](std::int64_t, std::int64_t at) MPSNN_INLINE_LAMBDA {
      return [of_row = e + at](std::int64_t k, auto load_at, Mask<V>)
                 MPSNN_INLINE_LAMBDA { return load_at(of_row + k); };
    });
  }
  void find_row_by_row(const T* y) {
    ExpShift<V> shifts[kMostRows / kWidth];  // a lane to a row
    for (std::int64_t r = 0; r < rows_; r += kWidth) {
      const V maxima = load<V>(exponentials_.maxima + r);
      const ExpShift<V> shift(maxima);
      shifts[r / kWidth] = shift;
      store<V>(exponentials_.largest + r, shift.exp(maxima));
    }
    sum_rows(exponentials_.sums, [&](std::int64_t r, std::int64_t at) MPSNN_INLINE_LAMBDA {
      const T* const of_y = y + at;
      T* const e = e_ + at;
      const auto shift = shifts[r / kWidth].of_lane(static_cast<std::size_t>(r % kWidth));
      return [=, this](std::int64_t i, auto load_at, Mask<V>) MPSNN_INLINE_LAMBDA {
        read_ahead(y, at + i);
        const V x = shift.exp(load_at(of_y + i));
        store<V>(e + i, x);  // the next row overwrites what is beyond this
        return x;
      };
    });
  }

  /// What stands at this place of the next tile: while exponentials are computed, memory has time.
  MPSNN_INLINE_MEMBER void read_ahead(const T* y, std::int64_t at) const {
    if (!reads_ahead_) return;
    __builtin_prefetch(y + at + kTileElements);
    if (t_ != nullptr) __builtin_prefetch(t_ + at + kTileElements);
  }

  const bool reads_ahead_;
  const T* t_ = nullptr;
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
