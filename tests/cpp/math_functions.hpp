// cpu/math.hpp over arrays, for one instruction set.
#pragma once

#include <cstddef>

namespace mpsnn_loss::test {

/// Each reads `count` values of x, and of `low` what the values lost to rounding (null: nothing).
template <class T>
struct MathFunctionsOf {
  void (*exp_of_nonpositive)(const T* x, const T* low, T* result, std::size_t count);
  /// exp(x - most), as a ratio of two exponentials with the shift of `most`.
  void (*shifted_exp)(const T* x, const T* most, T* result, std::size_t count);
  void (*log)(const T* x, const T* low, T* result, std::size_t count);
  void (*log1p_of_unit)(const T* x, const T* low, T* result, std::size_t count);
};

struct MathFunctions {
  MathFunctionsOf<float> single;
  MathFunctionsOf<double> real;
};

}  // namespace mpsnn_loss::test
