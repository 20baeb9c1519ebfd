// What the loops of softmax cross entropy share, whose channels are coupled: a row of C channels
// per pixel.
//
//   e_c = exp(y_c - max y), S = Σ e_c        -lp_c = log S + (max y - y_c), both parts >= 0
//   a_c = g_c ω v_c t'_c / D                 dL/dy_j = e_j (Σ a_c / S) - a_j
//                                            d²L/dy_j² = e_j (Σ a_c / S) (1 - e_j / S)
//                                            dL/dt_c = g_c ω v_c (1 - s) (-lp_c) / D
//
// A channel m that is more likely than all others together is dominant. Its gradient p Σ a - a is a
// small difference of large numbers; without cancellation it is
//
//   p_m Σ_{k≠m} a_k - a_m Σ_{k≠m} p_k = -Σ_{k≠m} (p_k Σ a - a_k)
//
// which adds up what is written anyway. Where that is not finite, the plain form says what IEEE
// says. Its 1 - p_m is the sum of the others over S.
#pragma once

#include "core/compensated_sum.hpp"
#include "cpu/formulas.hpp"
#include "cpu/math.hpp"
#include "cpu/plan.hpp"
#include "cpu/staging.hpp"
#include "cpu/sums.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// A channel with more than this share of S is dominant. Up to it the plain form loses no digit
/// that docs/contract.md, section 7, wants; any share above 1/2 names one channel.
template <class T>
inline constexpr T kDominant = T(0.625);

/// A plan as the loops of softmax see it.
template <class T>
struct SoftmaxCall {
  const Plan& plan;
  std::int64_t channels = plan.shape.channels;
  bool writes_losses = plan.want_loss && plan.loss.data != nullptr;
  bool reduces = plan.want_loss && !writes_losses;  // the losses of a row are added up
  bool writes_label_gradients = plan.want_gradient && plan.by_labels;
  bool pulls = plan.want_gradient && !plan.by_labels;  // the gradient is by predictions
  bool weighted = is_weighted(plan);                   // rows may weigh nothing
  bool has_factors;                                    // v or g differs from channel to channel
  bool by_class;                                       // class indices are used as they are
  T label_scale = static_cast<T>(plan.label_scale);
  T label_offset = static_cast<T>(plan.label_offset);

  explicit SoftmaxCall(const Plan& p) : plan(p), has_factors(p.source_gradients.data != nullptr) {
    for (const Source& weights : p.weights) has_factors = has_factors || weights.strides[3] != 0;
    by_class =
        p.class_indices != nullptr && !has_factors && !writes_losses && !writes_label_gradients;
  }
  bool needs_log() const { return plan.want_loss || writes_label_gradients; }
  bool writes_values() const { return writes_losses || writes_label_gradients; }

  /// t' = t (1 - s) + s / K.
  MPSNN_INLINE_MEMBER Vector<T> smoothed(Vector<T> t) const {
    using V = Vector<T>;
    return mul_add(t, broadcast<V>(label_scale), broadcast<V>(label_offset));
  }
  /// Σ t' from Σ t, where no factors are in between.
  MPSNN_INLINE_MEMBER Vector<T> smoothed_sum(Vector<T> t) const {
    using V = Vector<T>;
    const double offsets = plan.label_offset * static_cast<double>(channels);
    return mul_add(t, broadcast<V>(label_scale), broadcast<V>(static_cast<T>(offsets)));
  }
  /// The class of a pixel; -1 where it is ignored, or is none.
  std::int64_t class_of(std::int64_t pixel) const {
    const std::int64_t index = read_class(plan, pixel);
    const bool ignored = plan.has_ignored_class && index == plan.ignored_class;
    return ignored || index < 0 || index >= channels ? -1 : index;
  }
};

/// x g v, 0 where v is 0; g, v: null for 1.
template <class V>
struct Factors {
  const Scalar<V>*g = nullptr, *v = nullptr;

  template <class Load>
  MPSNN_INLINE_MEMBER V multiply(V x, std::int64_t i, Load load_at) const {
    if (g != nullptr) x = x * load_at(g + i);
    if (v != nullptr) {
      const V weight = load_at(v + i);
      x = select<V>(weight == V{}, V{}, x * weight);
    }
    return x;
  }
  /// x scale v. v times the scale first, as where v is one value per row.
  template <class Load>
  MPSNN_INLINE_MEMBER V weigh(V x, V scale, std::int64_t i, Load load_at) const {
    if (v == nullptr) return x * scale;
    const V weight = load_at(v + i);
    return select<V>(weight == V{}, V{}, x * (weight * scale));
  }
};

/// What the gradient by predictions multiplies: dL/dy = e by_e + t by_t + rest.
template <class T>
struct Pull {
  using V = Vector<T>;
  V by_e, by_t, rest;
  V hot;  // t by_t + rest of a class

  Pull() = default;
  /// `ratio`: Σ a / S without the scale; `scale`: g ω v / D.
  MPSNN_INLINE_MEMBER Pull(const SoftmaxCall<T>& call, V ratio, V scale) : by_e(ratio * scale) {
    by_t = call.has_factors ? -scale : -(scale * call.label_scale);
    rest = call.has_factors ? V{} : -(scale * call.label_offset);
    hot = by_t + rest;
  }
  /// That of one lane in all lanes.
  MPSNN_INLINE_MEMBER Pull of_lane(std::size_t lane) const {
    Pull pull;
    pull.by_e = broadcast<V>(by_e[lane]);
    pull.by_t = broadcast<V>(by_t[lane]);
    pull.rest = broadcast<V>(rest[lane]);
    pull.hot = broadcast<V>(hot[lane]);
    return pull;
  }
};

/// NaN in the lanes of rows whose Σ a is so small that Σ a / S could be subnormal: with S that
/// other rows of a tile have a say in, through the shift, so would have its digits.
template <class V>
MPSNN_INLINE V check_of_pull(V labels, V scales) {
  const V a = abs(labels * scales);
  const V nan = broadcast<V>(static_cast<Scalar<V>>(__builtin_nanf("")));
  constexpr Scalar<V> least =
      sizeof(Scalar<V>) == sizeof(float) ? Scalar<V>(0x1p-80) : Scalar<V>(0);
  return select<V>((a < broadcast<V>(least)) & (a != V{}), nan, V{});
}

/// What a gradient adds to the sum of those of the other channels: nothing where it is dominant,
/// and NaN where it is so and not finite.
template <class V>
MPSNN_INLINE V other(V gradient, Mask<V> dominant) {
  return gradient - select<V>(dominant, gradient, V{});
}

/// The diagonal of the Hessian from exponentials: p (1 - p) Σ a.
template <class V>
struct Curvature {
  V by_e, inverse;

  MPSNN_INLINE_MEMBER Curvature(V by_e_, V sum) : by_e(by_e_), inverse(broadcast<V>(1) / sum) {}
  MPSNN_INLINE_MEMBER V operator()(V e) const {
    return e * by_e * mul_add(-e, inverse, broadcast<V>(1));
  }
  /// Of the dominant channel; `others`: Σ e without it. This order keeps what is on the way from
  /// being subnormal.
  MPSNN_INLINE_MEMBER V of_dominant(V e, V others) const { return others * (e * by_e) * inverse; }
  /// Of a channel that is dominant if its exponential is above the limit.
  MPSNN_INLINE_MEMBER V operator()(V e, V limit, V others) const {
    const V value = of_dominant(e, others);
    return select<V>((e > limit) & (value - value == V{}), value, (*this)(e));
  }
  /// NaN where a product on the way could leave the range, of a row with this largest exponential.
  MPSNN_INLINE_MEMBER V check(V largest) const {
    const V most = largest * by_e * Scalar<V>(0x1p40);
    return most - most;
  }
};

/// v of rows where it is one value, 1 where it differs from channel to channel and 0 for ignored
/// pixels; and g ω v / D.
template <class T>
void read_row_factors(const SoftmaxCall<T>& call, std::int64_t pixel, std::int64_t rows,
                      TileRoom<T>& room, T* weights, T* scales) {
  const Plan& plan = call.plan;
  const T scale = plan.want_gradient ? static_cast<T>(plan.gradient_scales[0]) : T(0);
  if (!call.weighted && !plan.scale_per_image) {
    for (std::int64_t r = 0; r < rows; ++r) weights[r] = T(1), scales[r] = scale;
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) weights[r] = T(1);
  for (std::int64_t done = 0, count = 0; !call.has_factors && plan.weight_count > 0 && done < rows;
       done += count) {
    count = rows - done < kTileElements ? rows - done : kTileElements;
    const T* const product =
        multiply_weights(plan, count, room, [&](const Source& source, TileRoom<T>& to) {
          stage_pixels(source, plan.shape, pixel + done, count, to.elements);
          return to.elements;
        });
    for (std::int64_t r = 0; r < count; ++r) weights[done + r] = product[r];
  }
  for (std::int64_t r = 0; plan.has_ignored_class && r < rows; ++r) {
    if (read_class(plan, pixel + r) == plan.ignored_class) weights[r] = T(0);
  }
  for (std::int64_t r = 0; plan.want_gradient && r < rows; ++r) {
    const std::int64_t image = plan.scale_per_image ? (pixel + r) / plan.image_units : 0;
    const double product = static_cast<double>(weights[r]) * plan.gradient_scales[image];
    scales[r] = weights[r] == T(0) ? T(0) : static_cast<T>(product);
  }
}

/// Rows of up to so many channels are transposed to go side by side; with more, a vector of one row
/// leaves few lanes idle and needs no transposition.
inline constexpr std::int64_t kMostTransposed = 16;

/// Rows of up to kMostInShortRows channels are summed in parts, which are the same in every layout:
/// up to kMostTransposed channels, every fourth channel is of one part (every second, where vectors
/// have two lanes); beyond that, channels in the same lane of a row's vectors are.
template <class V>
inline constexpr std::int64_t kParts = lanes<V> < 4 ? lanes<V> : 4;

/// combine() of all term(channel) in each lane, in `parts` parts that are folded by halves.
template <std::int64_t parts, class V, class Count, class Term, class Combine>
MPSNN_INLINE V fold_in_parts(Count channels, V empty, Term term, Combine combine) {
  V part[parts];
  for (V& p : part) p = empty;
  std::int64_t c = 0;
  for (; c + parts <= channels; c += parts) {
    for (std::int64_t k = 0; k < parts; ++k) part[k] = combine(part[k], term(c + k));
  }
  for (std::int64_t k = 0; k < parts - 1; ++k) {
    if (c + k < channels) part[k] = combine(part[k], term(c + k));
  }
  for (std::int64_t half = parts / 2; half > 0; half /= 2) {
    for (std::int64_t k = 0; k < half; ++k) part[k] = combine(part[k], part[k + half]);
  }
  return part[0];
}
template <class V, class Count, class Term>
MPSNN_INLINE V sum_of_channels(Count channels, Term term) {
  if (channels <= kMostTransposed) return fold_in_parts<kParts<V>>(channels, V{}, term, Add());
  return fold_in_parts<static_cast<std::int64_t>(lanes<V>)>(channels, V{}, term, Add());
}

/// log S of rows with this largest exponential and these others. S / largest is how often the
/// largest stands in the row, and others / largest: kept apart, as that may be far smaller than 1.
template <class V>
MPSNN_INLINE V log_of_sum(V sum, V largest, V others) {
  const V magic = broadcast<V>(MathConstants<Scalar<V>>::round_magic);
  const V ties = ((sum - others) / largest + magic) - magic;
  return log(two_sum(ties, others / largest));
}

/// The losses of a chunk's rows, which come in order: each goes to the lane that its number in the
/// chunk says, so that their sum does not depend on how many come at a time.
class RowLosses {
 public:
  template <class T>
  void add(const T* losses, std::int64_t count) {
    std::int64_t i = 0;
    for (; i < count && lane_ != 0; ++i) add_to(lane_, losses[i]), lane_ = (lane_ + 1) % kLanes;
    for (; i + kLanes <= count; i += kLanes) {
      for (std::int64_t k = 0; k < kLanes; ++k) add_to(k, losses[i + k]);
    }
    for (; i < count; ++i) add_to(lane_++, losses[i]);
  }
  /// The loss of a row that float64 looked at again.
  void add_wide(double loss) { wide_.add(loss); }
  double total() const {
    CompensatedSum sum = wide_;
    for (std::int64_t k = 0; k < kLanes; ++k) {
      sum.add(sum_[k]);
      if (error_[k] == error_[k]) sum.add(error_[k]);  // that of an infinite sum is NaN
    }
    return sum.total();
  }

 private:
  static constexpr std::int64_t kLanes = 8;

  template <class T>
  MPSNN_INLINE_MEMBER void add_to(std::int64_t lane, T loss) {
    const Sum<double> sum = two_sum(sum_[lane], static_cast<double>(loss));
    sum_[lane] = sum.value;
    error_[lane] += sum.error;
  }

  double sum_[kLanes] = {}, error_[kLanes] = {};
  std::int64_t lane_ = 0;
  CompensatedSum wide_;
};

/// The three results of a chunk, each in rows where it has to be made elsewhere.
template <class T>
struct SoftmaxWriters {
  TileWriter<T> loss, gradient, hessian;

  SoftmaxWriters(const Plan& plan, Rooms& rooms)
      : loss(plan.loss, plan.shape, *rooms.take<WriterRoom<T>>()),
        gradient(plan.gradient, plan.shape, *rooms.take<WriterRoom<T>>()),
        hessian(plan.hessian, plan.shape, *rooms.take<WriterRoom<T>>()) {}
  void flush() {
    for (TileWriter<T>* writer : {&loss, &gradient, &hessian}) writer->flush();
  }
};

/// Which results of a row left the range of float32 on the way.
struct Lost {
  bool loss = false, gradient = false, hessian = false;
  explicit operator bool() const { return loss || gradient || hessian; }
};

/// A block of rows that was computed.
template <class T>
struct RowsDone {
  T* losses;         // of each row, where they are reduced
  const Lost* lost;  // by each row; null where nothing was
};

/// Hands over the losses of rows that are reduced.
template <class T>
void add_losses(const Plan& plan, std::int64_t pixel, std::int64_t rows, const T* losses,
                RowLosses& sum) {
  if (!plan.sums_per_image) return sum.add(losses, rows);
  for (std::int64_t r = 0; r < rows; ++r)
    plan.sums[(pixel + r) / plan.image_units] += static_cast<double>(losses[r]);
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
