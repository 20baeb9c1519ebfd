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

template <class T, RowLayout layout, bool Factors>
class SoftmaxDominant : public SoftmaxSums<T, layout, Factors> {
  using Base = SoftmaxSums<T, layout, Factors>;

 public:
  using Base::Base;

 protected:
  using Base::by_class_, Base::channels_, Base::plan_, Base::ratio_, Base::scale_, Base::sum_,
      Base::label_sum_;
  using Base::class_of, Base::largest_, Base::place_of_exponentials, Base::smoothing, Base::walk,
      Base::with_factors;
  using Base::kPlanes, Base::kWidth;
  using typename Base::Operands, typename Base::Smoothing, typename Base::Tiles, typename Base::V;

  /// Above this share of S no digit is lost that the contract wants; any above 1/2 names one
  /// channel.
  static constexpr T kDominant = T(0.625);

  /// Looks for the dominant channel of a long row, whose exponentials still stand.
  void find_in_long_row() {
    dominant_ = -1;
    const T largest = largest_[0];
    if (!(largest > sum_[0] * kDominant)) return;
    Parts parts;
    Tiles(*this, true).for_each(0, [&](std::int64_t c, std::int64_t count, const Operands& in) {
      add_tile(c, count, in, parts);
    });
    const double pulls = parts.pulls.total(), own = static_cast<double>(parts.own);
    const double others = parts.others.total(), e = static_cast<double>(largest), sum = e + others;
    ratio_.set_group(0, broadcast<V>(static_cast<T>(static_cast<double>(label_sum_[0]) / sum)));
    const double scale = static_cast<double>(scale_[0]);
    value_ = static_cast<T>(pulls * scale * (e / sum) - own * scale / sum * others);
    if (!(value_ - value_ == 0)) dominant_ = -1;
  }

  /// Puts the gradient of a long row's dominant channel among those of a tile.
  void put_in_long_row(std::int64_t c, std::int64_t count, T* out) const {
    if (dominant_ >= c && dominant_ < c + count) out[dominant_ - c] = value_;
  }

  /// What the exponential of the dominant channel is above, and no other; infinity where a row has
  /// none, but few planes have no need to look beforehand.
  MPSNN_INLINE_MEMBER V threshold(std::int64_t g) const {
    const V limit = sum_.group(g) * kDominant;
    if (kPlanes && channels_ <= Base::kFewPlanes) return limit;
    return select<V>(largest_.group(g) > limit, limit, broadcast<V>(__builtin_inff()));
  }

  /// Writes the gradients pull(index) of a group of planes that are so few that all stay in
  /// registers, with those of dominant channels among them; returns the sum of the others.
  template <std::size_t channels, class Pull>
  MPSNN_INLINE V write_few_planes(const T* e, T* out, V limit, Pull pull) {
    V gradients[channels], others{};
    Mask<V> dominant[channels];
    for (std::size_t c = 0; c < channels; ++c) {
      const auto i = static_cast<std::int64_t>(c) * kWidth;
      gradients[c] = pull(i);
      dominant[c] = load<V>(e + i) > limit;
      others = add_other(dominant[c], gradients[c], others);
    }
    const V value = V{} - others;
    const Mask<V> finite = value - value == V{};
    for (std::size_t c = 0; c < channels; ++c) {
      store<V>(out + static_cast<std::int64_t>(c) * kWidth,
               select<V>(dominant[c] & finite, value, gradients[c]));
    }
    return others;
  }

  /// Puts the gradients of the dominant channels among those of a group of planes.
  static void put_in_planes(std::int64_t count, const T* e, T* out, V limit) {
    V others{};
    for (std::int64_t i = 0; i < count; i += kWidth)
      others = add_other(load<V>(e + i) > limit, load<V>(out + i), others);
    const V value = V{} - others;
    limit = select<V>(value - value == V{}, limit, broadcast<V>(__builtin_inff()));
    for (std::int64_t i = 0; i < count; i += kWidth)
      store<V>(out + i, select<V>(load<V>(e + i) > limit, value, load<V>(out + i)));
  }

  /// The same for one short row, which adds up as planes do where those are an alternative.
  [[gnu::noinline]] static void put_in_row(std::int64_t count, const T* e, T* out, T limit) {
    std::int64_t m = 0;
    while (m < count && !(e[m] > limit)) ++m;  // as another thread may write to predictions
    T others = 0;
    if (count <= kMostInPlanes) {
      for (std::int64_t i = 0; i < count; ++i) others += out[i] * T(i == m ? 0 : 1);
    } else {
      V sum{};
      walk(count, [&](std::int64_t i, auto load_at, auto, Mask<V>) MPSNN_INLINE_LAMBDA {
        sum = add_other(load_at(e + i) > limit, load_at(out + i), sum);
      });
      others = sum_of_lanes(sum);
    }
    if (m < count && others - others == 0) out[m] = T(0) - others;
  }

 private:
  /// What is no number of the dominant channel makes none of the sum either.
  MPSNN_INLINE V add_other(Mask<V> dominant, V gradient, V sum) {
    return mul_add(gradient, select<V>(dominant, V{}, broadcast<V>(1)), sum);
  }

  /// Of a long row: sums of exponentials and of labels without the dominant channel, and its label.
  struct Parts {
    Accumulator<T> others, pulls;
    T own = 0;
  };

  void add_tile(std::int64_t c, std::int64_t count, const Operands& in, Parts& parts) {
    const Smoothing smooth = smoothing();
    const T* const e = place_of_exponentials() + c;
    const V limit = sum_.group(0) * kDominant;
    const std::int64_t hot = by_class_ ? class_of(0) - c : 0;
    walk(count, [&](std::int64_t i, auto load_at, auto, Mask<V> live) MPSNN_INLINE_LAMBDA {
      const V x = load_at(e + i);
      const Mask<V> dominant = x > limit;
      const V given = by_class_ ? one_at<V>(hot - i) : load_at(in.t + i);
      const V a = with_factors(smooth(given), in, i, load_at);
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
