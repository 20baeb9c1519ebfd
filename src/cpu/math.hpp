// Exponential and logarithm over vectors. The polynomials are minimax fits (Remez) on the reduced
// range; the figure beside each is the largest relative error of the polynomial alone.
#pragma once

#include <bit>
#include <type_traits>

#include "cpu/simd.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

template <class T>
struct MathConstants;

template <>
struct MathConstants<float> {
  static constexpr float log2_e = 1.44269504f;
  static constexpr float ln2_high = 0.693359375f;  // 12 bits, so that n * ln2_high is exact
  static constexpr float ln2_low = -2.12194440e-4f;
  static constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float exp_underflow = -104.0f;    // below, exp is 0 even as a subnormal
  // Of exponentials with a common shift the largest is about 2^exp_head_room; what is less than
  // exp(exp_range) of it is 0.
  static constexpr float exp_head_room = 24, exp_range = -103.3f;
  static constexpr float reducible = 8192.0f;  // up to here arguments are reduced exactly
  static constexpr int mantissa_bits = 23;
  static constexpr unsigned exponent_bias = 127;
  static constexpr std::uint32_t one = 0x3F800000u;
  static constexpr std::uint32_t sqrt_half = 0x3F3504F3u;
  static constexpr float smallest_normal = 1.17549435e-38f;
  static constexpr float subnormal_scale = 8388608.0f;  // 2^23
  // exp(r) = 1 + r + r^2 q(r) on |r| <= ln2 / 2: 2^-28.2
  static constexpr float exp[] = {0.499999930506762661f, 0.166665147918637556f,
                                  0.0416684568194576334f, 0.00836941880235792639f,
                                  0.00138131422637709011f};
  // log(1 + f) = f - f^2/2 + f^3 p(f) on sqrt(1/2) <= 1 + f <= sqrt(2): 2^-30.3
  static constexpr float log[] = {
      0.333333124162078244f,  -0.250000096418390976f, 0.200021335155799066f,
      -0.166680065599255238f, 0.142192255541280611f,  -0.124051418956114022f,
      0.118903218459140901f,  -0.116796154665083612f, 0.0674655609638615892f};
};

template <>
struct MathConstants<double> {
  static constexpr double log2_e = 1.4426950408889634074;
  static constexpr double ln2_high = 6.93147180369123816490e-1;  // 33 bits
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr double round_magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double exp_underflow = -746.0;
  static constexpr double exp_head_room = 24, exp_range = -724.3;
  static constexpr double reducible = 524288.0;
  static constexpr int mantissa_bits = 52;
  static constexpr unsigned exponent_bias = 1023;
  static constexpr std::uint64_t one = 0x3FF0000000000000u;
  static constexpr std::uint64_t sqrt_half = 0x3FE6A09E667F3BCDu;
  static constexpr double smallest_normal = 2.2250738585072014e-308;
  static constexpr double subnormal_scale = 4503599627370496.0;  // 2^52
  // As above: 2^-62.5
  static constexpr double exp[] = {0.5,
                                   0.166666666666666777,
                                   0.0416666666666666319,
                                   0.00833333333332068299,
                                   0.00138888888889002876,
                                   0.000198412698887210589,
                                   0.0000248015872957367364,
                                   2.7557241406548743e-6,
                                   2.75572972806117982e-7,
                                   2.51100769807149547e-8,
                                   2.09078512926395003e-9};
  // log(1 + f) = f - s (f - s^2 r(s^2)) with s = f / (2 + f): 2^-66
  static constexpr double log[] = {0.666666666666666604, 0.40000000000006781,  0.285714285689148234,
                                   0.222222226725633373, 0.181817736039385945, 0.153871808771615868,
                                   0.132480867416714982, 0.132697936420723894};
};

/// In pairs of terms, so that the chain of dependent operations is half as long as Horner's.
template <class V, std::size_t N>
MPSNN_INLINE V polynomial(V x, const Scalar<V> (&coefficients)[N]) {
  const auto pair = [&](std::size_t i) MPSNN_INLINE_LAMBDA {
    const V low = broadcast<V>(coefficients[i]);
    return i + 1 < N ? mul_add(broadcast<V>(coefficients[i + 1]), x, low) : low;
  };
  const V square = x * x;
  V sum = pair((N - 1) / 2 * 2);
  for (std::size_t i = (N - 1) / 2 * 2; i > 0; i -= 2) sum = mul_add(sum, square, pair(i - 2));
  return sum;
}

/// Fewer operations than `polynomial`, one after the other.
template <class V, std::size_t N>
MPSNN_INLINE V horner(V x, const Scalar<V> (&coefficients)[N]) {
  V sum = broadcast<V>(coefficients[N - 1]);
  for (std::size_t i = N - 1; i > 0; --i) sum = mul_add(sum, x, broadcast<V>(coefficients[i - 1]));
  return sum;
}

/// An argument split as x = n ln 2 / steps + r, |r| <= ln 2 / (2 steps).
template <class V>
struct Reduced {
  Bits<V> n;  // those of n + round_magic
  V r;
};

/// Exact in r but for its last place while |x| is below `reducible`.
template <class Way, class V>
MPSNN_INLINE Reduced<V> reduce(V x) {
  using C = MathConstants<Scalar<V>>;
  const V shifted = mul_add(x, broadcast<V>(C::log2_e * Way::steps), broadcast<V>(C::round_magic));
  const V n = shifted - C::round_magic;
  const V r = mul_add(n, broadcast<V>(-Way::ln2_high / Way::steps), x);
  return {bits(shifted), mul_add(n, broadcast<V>(-Way::ln2_low / Way::steps), r)};
}

/// exp(x) = 2^n exp(r), the last of them by a polynomial.
template <class V>
struct ExpByPolynomial {
  using C = MathConstants<Scalar<V>>;
  static constexpr Scalar<V> steps = 1, ln2_high = C::ln2_high, ln2_low = C::ln2_low;

  /// exp(x) 2^(round_magic - origin), which has to be a normal number.
  MPSNN_INLINE V combine(const Reduced<V>& x, Bits<V> origin) {
    const V one = broadcast<V>(1);
    const V power = from_bits<V>((x.n - (origin - C::exponent_bias)) << C::mantissa_bits);
    return mul_add(mul_add(horner(x.r, C::exp), x.r, one), x.r, one) * power;
  }
};

/// exp(x) = 2^(n / steps) exp(r): the powers between 1 and 2 come from a table, so that the
/// polynomial is short. For processors that look up as many numbers at once as a vector has lanes
/// and that round a multiply-add once.
template <class V>
struct ExpByTable {
  using C = MathConstants<float>;
  static constexpr float steps = lanes<V>;  // 8 or 16
  // exp(r) = 1 + r + r^2 (low + high r): 2^-25.1 with 8 steps, 2^-29.2 with 16
  static constexpr float low = steps == 8 ? 0.500064850f : 0.500016212f;
  static constexpr float high = steps == 8 ? 0.166642964f : 0.166660741f;
  static constexpr float ln2_high = 0x1.62e430p-1f, ln2_low = -0x1.05c610p-29f;
  // Where the bits of n that choose a power end, those of the exponent begin.
  static constexpr int places = C::mantissa_bits - (steps == 8 ? 3 : 4);

  /// As above, with an origin in steps, whole powers of two from round_magic.
  MPSNN_INLINE V combine(const Reduced<V>& x, Bits<V> origin) {
    const V power = from_bits<V>(lookup(powers(), x.n) + ((x.n - origin) << places));
    const V rest = mul_add(mul_add(x.r, broadcast<V>(high), broadcast<V>(low)), x.r * x.r, x.r);
    return mul_add(power, rest, power);
  }

 private:
  /// The bits of 2^(i / steps) without those that adding i << places brings.
  MPSNN_INLINE Bits<V> powers() {
    static constexpr float sixteenths[] = {
        1.0f,          0x1.0b5586p0f, 0x1.172b84p0f, 0x1.2387a6p0f, 0x1.306fe0p0f, 0x1.3dea64p0f,
        0x1.4bfdaep0f, 0x1.5ab07ep0f, 0x1.6a09e6p0f, 0x1.7a1148p0f, 0x1.8ace54p0f, 0x1.9c4918p0f,
        0x1.ae89fap0f, 0x1.c199bep0f, 0x1.d5818ep0f, 0x1.ea4afap0f};
    static constexpr auto table =
        []<std::uint32_t... I>(std::integer_sequence<std::uint32_t, I...>) {
          return Bits<V>{
              (std::bit_cast<std::uint32_t>(sixteenths[I * 16 / lanes<V>]) - (I << places))...};
        }(std::make_integer_sequence<std::uint32_t, lanes<V>>());
    return table;
  }
};

template <class V>
using Exp = std::conditional_t<kHasLookup<V>, ExpByTable<V>, ExpByPolynomial<V>>;

/// exp(x) for x <= 0 and NaN; below 1.5 ULP down to the smallest normal result, rounded once more
/// below it.
template <class V>
MPSNN_INLINE V exp_of_nonpositive(V x) {
  using C = MathConstants<Scalar<V>>;
  constexpr Scalar<V> head_room = 64;  // brings all results into the normal range
  const V origin = broadcast<V>(C::round_magic - head_room * Exp<V>::steps);
  const Reduced<V> reduced = reduce<Exp<V>>(larger(broadcast<V>(C::exp_underflow), x));
  return Exp<V>::combine(reduced, bits(origin)) * Scalar<V>(0x1p-64);
}

/// A shift by which exponentials are scaled: exp(x) 2^-k with k near the largest x / ln 2, so that
/// none overflows and no difference of arguments is rounded.
template <class V>
class ExpShift {
 public:
  ExpShift() = default;
  /// `most`: the largest argument that will follow, but for a few of the powers of two that are
  /// head room.
  MPSNN_INLINE_MEMBER explicit ExpShift(V most) {
    using C = MathConstants<Scalar<V>>;
    // Arguments too large for the reduction are moved first. That is exact for those that matter,
    // as they lie within a factor of 2 of `most`.
    origin_ = select<V>(abs(most) < broadcast<V>(C::reducible), V{}, most);
    const V rest = most - origin_;
    floor_ = rest + C::exp_range;
    const V n = mul_add(rest, broadcast<V>(C::log2_e), broadcast<V>(C::round_magic)) -
                (C::round_magic + C::exp_head_room);
    exponent_ = bits(mul_add(n, broadcast<V>(Exp<V>::steps), broadcast<V>(C::round_magic)));
  }
  /// That of one lane in all lanes.
  MPSNN_INLINE_MEMBER ExpShift of_lane(std::size_t lane) const {
    ExpShift shift;
    shift.origin_ = broadcast<V>(origin_[lane]);
    shift.floor_ = broadcast<V>(floor_[lane]);
    shift.exponent_ = Bits<V>{} + exponent_[lane];
    return shift;
  }
  /// exp(x - most) up to a factor that is the same for all x; 0 where the least normal number is
  /// 2^exp_head_room times larger than that.
  MPSNN_INLINE_MEMBER V exp(V x) const {
    const V rest = x - origin_;
    return select<V>(rest < floor_, V{}, Exp<V>::combine(reduce<Exp<V>>(rest), exponent_));
  }
  /// The same of x that is not too large for the reduction, and not so small that it gives 0.
  MPSNN_INLINE_MEMBER V exp_in_range(V x) const {
    return Exp<V>::combine(reduce<Exp<V>>(x), exponent_);
  }

 private:
  V origin_, floor_;
  Bits<V> exponent_;
};

/// log(1 + f) for sqrt(1/2) <= 1 + f <= sqrt(2), plus n · ln 2.
MPSNN_INLINE FloatVector log_reduced(FloatVector f, FloatVector n) {
  using C = MathConstants<float>;
  const FloatVector square = f * f;
  const FloatVector tail = mul_add(square, broadcast<FloatVector>(-0.5f),
                                   mul_add(square * f, polynomial(f, C::log), n * C::ln2_low));
  return mul_add(n, broadcast<FloatVector>(C::ln2_high), f + tail);
}
MPSNN_INLINE DoubleVector log_reduced(DoubleVector f, DoubleVector n) {
  using C = MathConstants<double>;
  const DoubleVector s = f / (f + 2.0), z = s * s;
  const DoubleVector half_square = f * f * 0.5;
  const DoubleVector tail = s * (half_square + z * polynomial(z, C::log)) + n * C::ln2_low;
  return n * C::ln2_high + (f - (half_square - tail));
}

/// log(x) + shift ln 2 for normal x above 0.
template <class V>
MPSNN_INLINE V log_of_normal(V x, V shift) {
  using C = MathConstants<Scalar<V>>;
  const Bits<V> offset = bits(x) - C::sqrt_half;
  const Mask<V> exponent = reinterpret_cast<Mask<V>>(offset) >> C::mantissa_bits;
  const V mantissa =
      from_bits<V>(bits(x) - (reinterpret_cast<Bits<V>>(exponent) << C::mantissa_bits));
  // Integers to floating point through the magic number: exact for so few bits, and one add.
  const V magic = broadcast<V>(C::round_magic);
  const V n = from_bits<V>(reinterpret_cast<Bits<V>>(exponent + reinterpret_cast<Mask<V>>(magic))) -
              (magic - shift);
  return log_reduced(mantissa - Scalar<V>(1), n);
}

/// Natural logarithm; IEEE at 0, infinity, NaN and below 0. About 1 ULP.
template <class V>
MPSNN_INLINE V log(V x) {
  using C = MathConstants<Scalar<V>>;
  const V infinity = broadcast<V>(__builtin_inff());
  const Mask<V> tiny = x < broadcast<V>(C::smallest_normal), finite = x < infinity;
  if (!any<V>(tiny | ~finite)) [[likely]]
    return log_of_normal(x, V{});
  const V result = log_of_normal(select<V>(tiny, x * C::subnormal_scale, x),
                                 select<V>(tiny, broadcast<V>(-C::mantissa_bits), V{}));
  const V special =
      select<V>(x == V{}, -infinity, select<V>(x > V{}, x, broadcast<V>(__builtin_nanf(""))));
  return select<V>((x > V{}) & finite, result, special);
}

/// log(value + error) for a sum kept in two parts.
template <class V>
MPSNN_INLINE V log(Sum<V> x) {
  const V correction = x.error / x.value;
  // Not at 0 or infinity, where the correction is NaN.
  return log(x.value) + select<V>(abs(correction) < broadcast<V>(1), correction, V{});
}

/// log(1 + u) for u in [0, 1] and NaN.
template <class V>
MPSNN_INLINE V log1p_of_unit(V u) {
  const Mask<V> large = u > broadcast<V>(Scalar<V>(0.41421356237309504880));
  const V f = select<V>(large, u * Scalar<V>(0.5) - Scalar<V>(0.5), u);
  return log_reduced(f, select<V>(large, broadcast<V>(1), V{}));
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
