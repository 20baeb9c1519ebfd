// How weights multiply.
#pragma once

#include <limits>

#include "core/strict_semantics.hpp"

namespace mpsnn_loss {

/// a b: an exact 0 wins over NaN and infinity, and rounding makes no other 0.
template <class T>
[[gnu::always_inline]] static inline T weight_product(T a, T b) {
  constexpr T kSmallest = std::numeric_limits<T>::denorm_min();
  if (a == T(0) || b == T(0)) return T(0);
  const T product = a * b;
  return product != T(0) ? product : (a < T(0)) != (b < T(0)) ? -kSmallest : kSmallest;
}

}  // namespace mpsnn_loss
