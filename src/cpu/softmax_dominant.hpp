// The channel m of a row that is more likely than all others together, where there is one. Its
// gradient p Σ a - a is a small difference of large numbers; without cancellation it is
//
//   p_m Σ_{k≠m} a_k - a_m Σ_{k≠m} p_k = -Σ_{k≠m} (p_k Σ a - a_k)
//
// Long rows take the left side, from sums in float64, as their gradients leave tile by tile. Short
// ones take the right side, which adds up what is written anyway. Where that is not finite, the
// plain form says what IEEE says.
#pragma once

#include "cpu/softmax_sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T, Layout layout, bool Factors>
class SoftmaxDominant : public SoftmaxSums<T, layout, Factors> {
  using Base = SoftmaxSums<T, layout, Factors>;

 public:
  using Base::Base;

 protected:
  using Base::by_class_, Base::plan_, Base::ratio_, Base::scale_, Base::sum_, Base::label_sum_;
  using Base::class_of, Base::largest_exponentials, Base::place_of_exponentials, Base::smoothing,
      Base::walk, Base::with_factors;
  using Base::kPlanes, Base::kWidth;
  using typename Base::Operands, typename Base::Smoothing, typename Base::Tiles, typename Base::V;

  /// Looks for the dominant channel of a long row, whose exponentials still stand.
  void find_in_long_row() {
    dominant_ = -1;
    const T largest = largest_exponentials(0)[0];
    if (!(largest * 2 > sum_[0])) return;
    Parts parts;
    Tiles(*this, true).for_each(0, [&](std::int64_t c, std::int64_t count, const Operands& in) {
      add_tile(c, count, in, parts);
    });
    double pulls = parts.pulls.total(), own = static_cast<double>(parts.own);
    if (const std::int64_t hot = by_class_ ? class_of(0) : -1; hot >= 0)
      (hot == dominant_ ? own : pulls) += plan_.label_scale;
    const double others = parts.others.total(), e = static_cast<double>(largest), sum = e + others;
    ratio_.set_group(0, broadcast<V>(static_cast<T>(static_cast<double>(label_sum_[0]) / sum)));
    const double scale = static_cast<double>(scale_[0]);
    value_ = static_cast<T>((pulls * (e / sum) - own / sum * others) * scale);
    if (!(value_ - value_ == 0)) dominant_ = -1;
  }

  /// Puts the gradient of a long row's dominant channel among those of a tile.
  void put_in_long_row(std::int64_t c, std::int64_t count, T* out) const {
    if (dominant_ >= c && dominant_ < c + count) out[dominant_ - c] = value_;
  }

  /// What the exponential of the dominant channel is above, and no other; infinity where a row has
  /// none, but planes have no need to look beforehand.
  MPSNN_INLINE_MEMBER V threshold(std::int64_t g) const {
    const V half = sum_.group(g) * T(0.5);
    if constexpr (kPlanes) return half;
    return select<V>(largest_exponentials(g) > half, half, broadcast<V>(__builtin_inff()));
  }

  /// Puts the gradients of the dominant channels into a group of planes, where the `others` add up
  /// to so much.
  static void put_in_planes(std::int64_t count, const T* e, T* out, V limit, V others) {
    const V value = V{} - others;
    limit = select<V>(value - value == V{}, limit, broadcast<V>(__builtin_inff()));
    for (std::int64_t i = 0; i < count; i += kWidth)
      store<V>(out + i, select<V>(load<V>(e + i) > limit, value, load<V>(out + i)));
  }

  /// The same for one short row, whose lanes are added up as those of planes are. `hot` is to be
  /// added to the gradient of its class, unless that is the dominant channel; -1: none.
  static void put_in_row(std::int64_t count, const T* e, T* out, T limit, V lanes_of_others,
                         std::int64_t hot_class, T hot) {
    T others = lanes_of_others[0];
    for (std::int64_t i = 1; i < kWidth; ++i) others += lanes_of_others[i];
    std::int64_t m = 0;
    while (m < count && !(e[m] > limit)) ++m;
    if (hot_class >= 0 && hot_class != m) others += hot;
    if (m < count && others - others == 0) out[m] = T(0) - others;
  }

 private:
  /// Of a long row: sums of exponentials and of labels without the dominant channel, and its label.
  struct Parts {
    Accumulator<T> others, pulls;
    T own = 0;
  };

  void add_tile(std::int64_t c, std::int64_t count, const Operands& in, Parts& parts) {
    const Smoothing smooth = smoothing();
    const T* const e = place_of_exponentials() + c;
    const V limit = sum_.group(0) * T(0.5);
    walk(count, [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
      const V x = load_at(e + i);
      const Mask<V> dominant = x > limit;
      const V label = by_class_ ? smooth.offset : smooth(load_at(in.t + i));
      const V a = with_factors(label, in, i, load_at);
      parts.others.add(select<V>(dominant, V{}, x));
      parts.pulls.add(select<V>(live & ~dominant, a, V{}));
      for (std::int64_t k = 0; any<V>(dominant) && k < kWidth; ++k) {
        if (dominant[k] == 0) continue;
        dominant_ = c + i + k;
        parts.own = a[k];
      }
    });
  }

  std::int64_t dominant_ = -1;  // of a long row; -1: none
  T value_ = 0;                 // its gradient
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
