// A sum of many terms whose rounding errors do not grow with their number.
#pragma once

#include "core/strict_semantics.hpp"

namespace mpsnn_loss {

/// Neumaier's.
class CompensatedSum {
 public:
  [[gnu::always_inline]] void add(double x) {
    const double sum = value_ + x, part = sum - value_;
    error_ += (value_ - (sum - part)) + (x - part);
    value_ = sum;
  }
  [[gnu::always_inline]] double total() const {
    const double sum = value_ + error_;
    return sum == sum ? sum : value_;  // the error of an infinite sum is NaN
  }

 private:
  double value_ = 0, error_ = 0;
};

}  // namespace mpsnn_loss
