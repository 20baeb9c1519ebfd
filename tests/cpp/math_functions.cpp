// CMake compiles this file once per instruction set, with MPSNN_ISA a namespace of the tests' own.
#include "math_functions.hpp"

#include "cpu/math.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {
namespace {

template <class T, class F>
MPSNN_INLINE void apply(const T* x, const T* low, T* result, std::size_t count, F f) {
  using V = Vector<T>;
  for (std::size_t i = 0; i < count; i += lanes<V>) {
    const std::size_t rest = count - i < lanes<V> ? count - i : lanes<V>;
    const V error = low != nullptr ? load_first<V>(low + i, rest) : V{};
    store_first<V>(result + i, f(load_first<V>(x + i, rest), error), rest);
  }
}

template <class T>
void exp_of_nonpositive_of(const T* x, const T* low, T* result, std::size_t count) {
  using V = Vector<T>;
  apply(x, low, result, count, [](V v, V) { return exp_of_nonpositive(v); });
}
template <class T>
void shifted_exp_of(const T* x, const T* most, T* result, std::size_t count) {
  using V = Vector<T>;
  apply(x, most, result, count, [](V v, V m) {
    const ExpShift<V> shift(m);
    return shift.exp(v) / shift.exp(m);
  });
}
template <class T>
void log_of(const T* x, const T* low, T* result, std::size_t count) {
  using V = Vector<T>;
  if (low == nullptr) return apply(x, low, result, count, [](V v, V) { return log(v); });
  apply(x, low, result, count, [](V v, V error) { return log(Sum<V>{v, error}); });
}
template <class T>
void log1p_of_unit_of(const T* x, const T* low, T* result, std::size_t count) {
  using V = Vector<T>;
  apply(x, low, result, count, [](V v, V) { return log1p_of_unit(v); });
}

template <class T>
constexpr test::MathFunctionsOf<T> kAll{exp_of_nonpositive_of<T>, shifted_exp_of<T>, log_of<T>,
                                        log1p_of_unit_of<T>};

}  // namespace

extern const test::MathFunctions math_functions;
const test::MathFunctions math_functions{kAll<float>, kAll<double>};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
