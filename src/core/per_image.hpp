// One double per image, or one for all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mpsnn_loss {

/// Allocates nothing where one value holds for all.
class PerImage {
 public:
  explicit PerImage(double one) : one_(one) {}
  PerImage(std::int64_t count, double value) : one_(value) {
    if (count > 1) many_.assign(static_cast<std::size_t>(count), value);
  }

  bool is_one() const { return many_.empty(); }
  double& operator[](std::int64_t image) { return begin()[is_one() ? 0 : image]; }
  double operator[](std::int64_t image) const { return begin()[is_one() ? 0 : image]; }

  double* begin() { return is_one() ? &one_ : many_.data(); }
  const double* begin() const { return is_one() ? &one_ : many_.data(); }
  const double* end() const { return begin() + (is_one() ? 1 : many_.size()); }

 private:
  double one_;
  std::vector<double> many_;
};

}  // namespace mpsnn_loss
