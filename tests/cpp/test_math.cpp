// The exponential and the logarithm of cpu/math.hpp against the C library's in higher precision.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "cpu/instruction_sets.hpp"
#include "math_functions.hpp"
#include "support.hpp"

namespace mpsnn_loss::cpu {
namespace test_baseline {
extern const test::MathFunctions math_functions;
}
#if defined(MPSNN_TESTS_x86_64_v3)
namespace test_x86_64_v3 {
extern const test::MathFunctions math_functions;
}
#endif
#if defined(MPSNN_TESTS_x86_64_v4)
namespace test_x86_64_v4 {
extern const test::MathFunctions math_functions;
}
#endif
}  // namespace mpsnn_loss::cpu

namespace mpsnn_loss::test {
namespace {

/// Those of the instruction set that the engine uses in this run.
const MathFunctions& functions() {
  const std::string name = cpu::active_instruction_set().name;
#if defined(MPSNN_TESTS_x86_64_v3)
  if (name == "x86_64_v3") return cpu::test_x86_64_v3::math_functions;
#endif
#if defined(MPSNN_TESTS_x86_64_v4)
  if (name == "x86_64_v4") return cpu::test_x86_64_v4::math_functions;
#endif
  return cpu::test_baseline::math_functions;
}

template <class T>
const MathFunctionsOf<T>& functions_of() {
  if constexpr (sizeof(T) == 4) {
    return functions().single;
  } else {
    return functions().real;
  }
}

/// What T is compared with.
template <class T>
using Reference = std::conditional_t<sizeof(T) == 4, double, long double>;
template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// The distance from the exact value in units of its last place; 0 where both are NaN, or the same.
template <class T>
double ulps(T given, Reference<T> exact) {
  using Limits = std::numeric_limits<T>;
  if (std::isnan(given) || std::isnan(exact)) {
    return std::isnan(given) && std::isnan(exact) ? 0 : std::numeric_limits<double>::infinity();
  }
  if (static_cast<Reference<T>>(given) == exact) return 0;
  const int lowest = Limits::min_exponent - Limits::digits;
  if (std::isinf(exact)) return std::numeric_limits<double>::infinity();
  // An overflow is the next number that the format does not have.
  const Reference<T> beyond = std::ldexp(Reference<T>(1), Limits::max_exponent);
  Reference<T> value = std::isinf(given) ? std::copysign(beyond, given) : given;
  if (std::abs(exact) > beyond) exact = std::copysign(beyond, exact);
  int exponent = 0;
  std::frexp(exact, &exponent);
  const int place = std::clamp(exponent - Limits::digits, lowest, Limits::max_exponent);
  value = std::ldexp(std::abs(value - exact), -place);
  return static_cast<double>(value);
}

template <class T>
struct Worst {
  double error = -1;
  T at = 0, low = 0, given = 0;

  void meet(double candidate, T x, T error_of_x, T result) {
    if (candidate > error) *this = {candidate, x, error_of_x, result};
  }
};

template <class T>
void check_at_most(const Worst<T>& worst, double bound) {
  CAPTURE(static_cast<double>(worst.at));
  CAPTURE(static_cast<double>(worst.low));
  CAPTURE(static_cast<double>(worst.given));
  CAPTURE(bound);
  CHECK(worst.error <= bound);
}

/// Compares f(x[i] + low[i]) with exact(x[i] + low[i]); `low` may be empty.
template <class T, class F, class Exact>
Worst<T> worst_error(const std::vector<T>& x, const std::vector<T>& low, F f, Exact exact) {
  std::vector<T> result(x.size());
  f(x.data(), low.empty() ? nullptr : low.data(), result.data(), x.size());
  Worst<T> worst;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const T error = low.empty() ? T(0) : low[i];
    worst.meet(ulps(result[i], exact(static_cast<Reference<T>>(x[i]), error)), x[i], error,
               result[i]);
  }
  return worst;
}

/// 2^22 numbers of every sign and exponent, subnormal, infinite and NaN among them.
template <class T>
std::vector<T> all_exponents() {
  constexpr int kStep = static_cast<int>(sizeof(T)) * 8 - 22;
  std::vector<T> values;
  Random random(1);
  for (std::uint64_t i = 0; i < (1u << 22); ++i) {
    const std::uint64_t rest = random.next() & ((std::uint64_t{1} << kStep) - 1);
    values.push_back(std::bit_cast<T>(static_cast<Bits<T>>(i << kStep | rest)));
  }
  return values;
}

/// Numbers spread evenly.
template <class T>
std::vector<T> evenly(double low, double high, std::size_t count) {
  std::vector<T> values;
  for (std::size_t i = 0; i < count; ++i) {
    const double part = static_cast<double>(i) / static_cast<double>(count - 1);
    values.push_back(static_cast<T>(low + (high - low) * part));
  }
  return values;
}

/// For each value less than half a unit of its last place: what a rounding may have lost.
template <class T>
std::vector<T> rounding_errors(const std::vector<T>& values) {
  std::vector<T> errors;
  Random random(2);
  for (const T x : values) {
    const T unit = std::abs(x) * std::numeric_limits<T>::epsilon();
    errors.push_back(std::isfinite(unit) ? static_cast<T>(random.uniform(-0.25, 0.25)) * unit
                                         : T(0));
  }
  return errors;
}

template <class R, class T>
R exact_log(R x, T low) {
  return low == T(0) ? std::log(x) : std::log(x) + std::log1p(static_cast<R>(low) / x);
}

// float in ULP as it stands in the contract's error budget; 1e-15 relative is 4.5 ULP of double at
// the bottom of a binade.
template <class T>
inline constexpr double kBound = sizeof(T) == 4 ? 1.5 : 4.5;

}  // namespace

TEST_CASE_TEMPLATE("exp of numbers up to 0 is right to the last place", T, float, double) {
  const auto exp = functions_of<T>().exp_of_nonpositive;
  const auto exact = [](auto x, T) { return std::exp(x); };
  auto values = all_exponents<T>();
  std::erase_if(values, [](T x) { return x > 0; });
  check_at_most(worst_error(values, {}, exp, exact), kBound<T>);
  const double floor = sizeof(T) == 4 ? -105 : -747;
  check_at_most(worst_error(evenly<T>(floor, 0, 1 << 20), {}, exp, exact), kBound<T>);
}

TEST_CASE_TEMPLATE("exponentials with a common shift do not suffer from the rounding of x - most",
                   T, float, double) {
  const auto shifted = functions_of<T>().shifted_exp;
  const auto exact = [](auto x, T most) { return std::exp(x - static_cast<Reference<T>>(most)); };
  const double floor = sizeof(T) == 4 ? -90 : -700;
  for (const double most :
       {0.0, 1e-3, 0.7, -3.3, 77.7, -431.1, 8000.3, -8191.9, 8193.7, 1e5, -3e6}) {
    // What lies below `most`, in numbers that the format has.
    const auto values = evenly<T>(most + floor, most, 1 << 16);
    const std::vector<T> shifts(values.size(), values.back());
    check_at_most(worst_error(values, shifts, shifted, exact), 6);
  }
}

TEST_CASE_TEMPLATE("log is right to the last place for every exponent", T, float, double) {
  const auto log = functions_of<T>().log;
  const auto exact = [](auto x, T low) { return exact_log(x, low); };
  check_at_most(worst_error(all_exponents<T>(), {}, log, exact), kBound<T>);
  check_at_most(worst_error(evenly<T>(0.25, 4, 1 << 20), {}, log, exact), kBound<T>);
}

TEST_CASE_TEMPLATE("log of a sum in two parts sees the lost part", T, float, double) {
  const auto log = functions_of<T>().log;
  const auto exact = [](auto x, T low) { return exact_log(x, low); };
  const auto values = evenly<T>(1e-3, 4, 1 << 20);
  // The contract gives a whole formula 4 ULP.
  check_at_most(worst_error(values, rounding_errors(values), log, exact), sizeof(T) == 4 ? 3 : 4.5);
}

TEST_CASE_TEMPLATE("log1p of the unit interval is right to the last place", T, float, double) {
  const auto log1p = functions_of<T>().log1p_of_unit;
  const auto exact = [](auto x, T) { return std::log1p(x); };
  auto values = all_exponents<T>();
  std::erase_if(values, [](T x) { return !(x >= 0 && x <= 1) && !std::isnan(x); });
  check_at_most(worst_error(values, {}, log1p, exact), kBound<T>);
  check_at_most(worst_error(evenly<T>(0, 1, 1 << 20), {}, log1p, exact), kBound<T>);
}

TEST_CASE_TEMPLATE("exp and log are IEEE at the edges", T, float, double) {
  using Limits = std::numeric_limits<T>;
  const T infinity = Limits::infinity(), nan = Limits::quiet_NaN();
  const std::vector<T> x{T(0),
                         -T(0),
                         infinity,
                         -infinity,
                         nan,
                         -nan,
                         T(1),
                         Limits::max(),
                         Limits::lowest(),
                         Limits::denorm_min(),
                         -Limits::denorm_min(),
                         T(-1)};
  std::vector<T> exp(x.size()), log(x.size());
  functions_of<T>().exp_of_nonpositive(x.data(), nullptr, exp.data(), x.size());
  functions_of<T>().log(x.data(), nullptr, log.data(), x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(static_cast<double>(x[i]));
    if (std::isnan(x[i])) CHECK(std::isnan(exp[i]));
    if (std::abs(x[i]) < T(1)) CHECK(exp[i] == T(1));
    if (x[i] < T(-1)) CHECK(exp[i] == T(0));
    if (!(x[i] >= 0)) CHECK(std::isnan(log[i]));
    if (x[i] == 0) CHECK(log[i] == -infinity);
  }
  CHECK(log[2] == infinity);
  CHECK(log[6] == 0);
  CHECK_FALSE(std::signbit(log[6]));
}

}  // namespace mpsnn_loss::test
