// One struct per loss: its value, its derivatives by prediction y and label t, and the second one
// by prediction, over vectors: docs/contract.md, sections 3 and 5. Where MPSCNNLoss.h contradicts
// itself, the gradient is the derivative of the forward loss (section 8).
//
// A product whose label factor is exactly 0 is exactly 0, whatever the other factor
// (label_product).
#pragma once

#include "core/loss_type.hpp"
#include "cpu/math.hpp"
#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class V>
struct Parameters {
  V label_scale;   // 1 - s
  V label_offset;  // what smoothing adds: s / K for softmax, s / 2 for sigmoid
  V epsilon;
  V delta;
};

template <class T>
MPSNN_INLINE Parameters<Vector<T>> in_all_lanes(const Parameters<T>& p) {
  using V = Vector<T>;
  return {broadcast<V>(p.label_scale), broadcast<V>(p.label_offset), broadcast<V>(p.epsilon),
          broadcast<V>(p.delta)};
}

/// label · factor, 0 where the label is 0.
template <class V>
MPSNN_INLINE V label_product(V label, V factor) {
  return select<V>(label == V{}, V{}, label * factor);
}

template <LossType>
struct Formula;

template <>
struct Formula<LossType::mean_absolute_error> {
  // |y - t|
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>&) {
    return abs(y - t);
  }
  // sign(y - t), 0 at equality
  template <class V>
  MPSNN_INLINE V by_prediction(V y, V t, const Parameters<V>&) {
    const V e = y - t;
    return select<V>(e > V{}, broadcast<V>(1), select<V>(e < V{}, broadcast<V>(-1), e));
  }
  template <class V>
  MPSNN_INLINE V by_label(V y, V t, const Parameters<V>& p) {
    return by_prediction(t, y, p);
  }
  template <class V>
  MPSNN_INLINE V second_by_prediction(V, V, const Parameters<V>&) {
    return V{};
  }
};

template <>
struct Formula<LossType::mean_squared_error> {
  // (y - t)^2
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>&) {
    const V e = y - t;
    return e * e;
  }
  // 2 (y - t)
  template <class V>
  MPSNN_INLINE V by_prediction(V y, V t, const Parameters<V>&) {
    const V e = y - t;
    return e + e;
  }
  template <class V>
  MPSNN_INLINE V by_label(V y, V t, const Parameters<V>& p) {
    return by_prediction(t, y, p);
  }
  template <class V>
  MPSNN_INLINE V second_by_prediction(V, V, const Parameters<V>&) {
    return broadcast<V>(2);
  }
};

template <>
struct Formula<LossType::sigmoid_cross_entropy> {
  // max(y, 0) - y t' + log(1 + exp(-|y|)); the first two terms are taken together as y (1 - t') for
  // y > 0 and -y t' below, which cannot cancel. 1 - t' is formed from 1 - t for the same reason.
  // The term y - y only keeps what IEEE says of inf - inf t': NaN where t' is above 0.
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>& p) {
    const V smooth = mul_add(t, p.label_scale, p.label_offset);
    const V rest = mul_add(Scalar<V>(1) - t, p.label_scale, p.label_offset);
    const V above = y * rest + select<V>(smooth <= V{}, V{}, y - y);
    const V linear = select<V>(y > V{}, above, -label_product(smooth, y));
    return linear + log1p_of_unit(exp_of_nonpositive(-abs(y)));
  }
  // sigmoid(y) - t'
  template <class V>
  MPSNN_INLINE V by_prediction(V y, V t, const Parameters<V>& p) {
    const V smooth = mul_add(t, p.label_scale, p.label_offset);
    const V rest = mul_add(Scalar<V>(1) - t, p.label_scale, p.label_offset);
    const V e = exp_of_nonpositive(-abs(y));
    const Mask<V> above = y > V{};
    const V numerator =
        mul_add(select<V>(above, -smooth, rest), e, select<V>(above, rest, -smooth));
    return numerator / (Scalar<V>(1) + e);
  }
  // -(1 - s) y
  template <class V>
  MPSNN_INLINE V by_label(V y, V, const Parameters<V>& p) {
    return -(p.label_scale * y);
  }
  // sigmoid(y) (1 - sigmoid(y)) = e / (1 + e)^2 with e = exp(-|y|); the square in two roundings
  template <class V>
  MPSNN_INLINE V second_by_prediction(V y, V, const Parameters<V>&) {
    const V e = exp_of_nonpositive(-abs(y));
    return e / mul_add(e, e + Scalar<V>(2), broadcast<V>(1));
  }
};

template <>
struct Formula<LossType::categorical_cross_entropy> {
  // -t log y
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>&) {
    return -label_product(t, log(y));
  }
  // -t / y
  template <class V>
  MPSNN_INLINE V by_prediction(V y, V t, const Parameters<V>&) {
    return select<V>(t == V{}, V{}, -(t / y));
  }
  // -log y
  template <class V>
  MPSNN_INLINE V by_label(V y, V, const Parameters<V>&) {
    return -log(y);
  }
  // t / y^2
  template <class V>
  MPSNN_INLINE V second_by_prediction(V y, V t, const Parameters<V>&) {
    return select<V>(t == V{}, V{}, t / y / y);
  }
};

template <>
struct Formula<LossType::hinge> {
  // -m = 1 - 2t, exact for the labels 0 and 1 and all from 1/4 to 1
  template <class V>
  MPSNN_INLINE V minus_m(V t) {
    return Scalar<V>(1) - (t + t);
  }
  // max(0, 1 - m y)
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>&) {
    const V z = one_plus_product(minus_m(t), y);
    return select<V>(z <= V{}, V{}, z);
  }
  // -m where 1 - m y > 0
  template <class V>
  MPSNN_INLINE V by_prediction(V y, V t, const Parameters<V>&) {
    return where_active(one_plus_product(minus_m(t), y), minus_m(t));
  }
  // -2y where 1 - m y > 0
  template <class V>
  MPSNN_INLINE V by_label(V y, V t, const Parameters<V>&) {
    return where_active(one_plus_product(minus_m(t), y), y * Scalar<V>(-2));
  }
  template <class V>
  MPSNN_INLINE V where_active(V z, V slope) {
    return select<V>(z > V{}, slope, select<V>(z <= V{}, V{}, z));  // z is NaN in neither case
  }
  template <class V>
  MPSNN_INLINE V second_by_prediction(V, V, const Parameters<V>&) {
    return V{};
  }
};

template <>
struct Formula<LossType::huber> {
  // e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), with e = y - t
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>& p) {
    const V e = y - t, size = abs(e);
    return select<V>(size > p.delta, p.delta * (size - p.delta * Scalar<V>(0.5)),
                     e * e * Scalar<V>(0.5));
  }
  // clamp(e, -delta, delta)
  template <class V>
  MPSNN_INLINE V by_prediction(V y, V t, const Parameters<V>& p) {
    const V e = y - t;
    return select<V>(e > p.delta, p.delta, select<V>(e < -p.delta, -p.delta, e));
  }
  template <class V>
  MPSNN_INLINE V by_label(V y, V t, const Parameters<V>& p) {
    return by_prediction(t, y, p);
  }
  // 1 where |e| <= delta, else 0
  template <class V>
  MPSNN_INLINE V second_by_prediction(V y, V t, const Parameters<V>& p) {
    const V e = y - t;
    return select<V>(abs(e) <= p.delta, broadcast<V>(1), select<V>(e == e, V{}, e));
  }
};

template <>
struct Formula<LossType::cosine_distance> {
  // 1 - sum over channels of y t; the 1 of each pixel is added once, where the sum is finished
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>&) {
    return -label_product(t, y);
  }
  template <class V>
  MPSNN_INLINE V by_prediction(V, V t, const Parameters<V>&) {
    return -t;
  }
  template <class V>
  MPSNN_INLINE V by_label(V y, V, const Parameters<V>&) {
    return -y;
  }
  template <class V>
  MPSNN_INLINE V second_by_prediction(V, V, const Parameters<V>&) {
    return V{};
  }
};

template <>
struct Formula<LossType::log> {
  // y + eps and 1 - y + eps, with what their rounding lost: their logarithms may be close to 0
  template <class V>
  MPSNN_INLINE Sum<V> likelihood(V y, const Parameters<V>& p) {
    return two_sum(y, p.epsilon);
  }
  template <class V>
  MPSNN_INLINE Sum<V> complement(V y, const Parameters<V>& p) {
    const Sum<V> rest = two_sum(broadcast<V>(1), -y);
    const Sum<V> sum = two_sum(rest.value, p.epsilon);
    return {sum.value, sum.error + rest.error};
  }
  // -t log(y + eps) - (1 - t) log(1 - y + eps)
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>& p) {
    return -label_product(t, log(likelihood(y, p))) -
           label_product(Scalar<V>(1) - t, log(complement(y, p)));
  }
  // -t / (y + eps) + (1 - t) / (1 - y + eps)
  template <class V>
  MPSNN_INLINE V by_prediction(V y, V t, const Parameters<V>& p) {
    const V rest = Scalar<V>(1) - t, one = broadcast<V>(1);
    const V a = select<V>(t == V{}, one, y + p.epsilon);
    const V b = select<V>(rest == V{}, one, Scalar<V>(1) - y + p.epsilon);
    if constexpr (!kRoundsOnce || sizeof(Scalar<V>) == sizeof(double)) {
      return select<V>(rest == V{}, V{}, rest / b) - select<V>(t == V{}, V{}, t / a);
    } else {
      // One division for both terms. Where the product is not finite, float64 decides.
      const V product = a * b;
      return mul_add(product, V{}, mul_add(rest, a, -(t * b)) / product);
    }
  }
  // log(1 - y + eps) - log(y + eps)
  template <class V>
  MPSNN_INLINE V by_label(V y, V, const Parameters<V>& p) {
    return log(complement(y, p)) - log(likelihood(y, p));
  }
  // t / (y + eps)^2 + (1 - t) / (1 - y + eps)^2
  template <class V>
  MPSNN_INLINE V second_by_prediction(V y, V t, const Parameters<V>& p) {
    const V rest = Scalar<V>(1) - t;
    return select<V>(t == V{}, V{}, over_square(t, likelihood(y, p))) +
           select<V>(rest == V{}, V{}, over_square(rest, complement(y, p)));
  }
  // x / a^2. What the rounding of a lost counts twice, but for an infinite a, of which it is NaN; a
  // tiny a is scaled, as its square is not even normal.
  template <class V>
  MPSNN_INLINE V over_square(V x, Sum<V> a) {
    constexpr auto kTiny = Scalar<V>(0x1p-30), kScale = Scalar<V>(0x1p62);
    const V scale = select<V>(abs(a.value) < kTiny, broadcast<V>(kScale), broadcast<V>(1));
    const V value = a.value * scale, twice = Scalar<V>(2) * value * (a.error * scale);
    const V square = mul_add(value, value, select<V>(twice == twice, twice, V{}));
    return x / square * scale * scale;
  }
};

template <>
struct Formula<LossType::kullback_leibler_divergence> {
  // t (log t - y), y being log-probabilities
  template <class V>
  MPSNN_INLINE V loss(V y, V t, const Parameters<V>&) {
    // Labels are often 0, which log is slower for.
    return label_product(t, log(select<V>(t == V{}, broadcast<V>(1), t)) - y);
  }
  template <class V>
  MPSNN_INLINE V by_prediction(V, V t, const Parameters<V>&) {
    return -t;
  }
  // log t + 1 - y
  template <class V>
  MPSNN_INLINE V by_label(V y, V t, const Parameters<V>&) {
    return log(t) + Scalar<V>(1) - y;
  }
  template <class V>
  MPSNN_INLINE V second_by_prediction(V, V, const Parameters<V>&) {
    return V{};
  }
};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
