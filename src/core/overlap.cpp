#include "core/overlap.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

namespace mpsnn_loss {
namespace {

/// A term step · x of a sum, for any whole x from 0 to `most`.
struct Term {
  std::int64_t step, most;
};

/// Looks for values of the terms whose sum lies in [low, high]. Two arrays overlap where the
/// distance of two elements is less than their size, which is such a question; in general it is as
/// hard as packing a knapsack, but arrays have few axes, whose strides divide one another.
class BoundedSum {
 public:
  explicit BoundedSum(std::vector<Term> terms) : terms_(std::move(terms)) {
    std::erase_if(terms_, [](const Term& term) { return term.step == 0 || term.most == 0; });
    std::ranges::sort(terms_, std::greater(), &Term::step);
    // A term that fills the gaps of a larger one is merged with it: mostly the rows of both arrays.
    for (std::size_t i = terms_.size(); i-- > 1;) {
      const std::int64_t times = terms_[i - 1].step / terms_[i].step;
      if (terms_[i - 1].step % terms_[i].step != 0 || terms_[i].most < times - 1) continue;
      terms_[i - 1] = {terms_[i].step, terms_[i].most + times * terms_[i - 1].most};
      terms_.erase(terms_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    // Of those that come after each one.
    reach_.assign(terms_.size() + 1, 0);
    divisor_.assign(terms_.size() + 1, 0);
    for (std::size_t i = terms_.size(); i-- > 0;) {
      reach_[i] = reach_[i + 1] + terms_[i].step * terms_[i].most;
      divisor_[i] = std::gcd(divisor_[i + 1], terms_[i].step);
    }
  }

  Overlap find(std::int64_t low, std::int64_t high) {
    steps_ = 0;
    return find(0, low, high);
  }

 private:
  static constexpr int kMostSteps = 100'000;

  Overlap find(std::size_t i, std::int64_t low, std::int64_t high) {
    if (low <= 0 && high >= 0) return Overlap::some;  // the others may all be 0
    if (high < 0 || low > reach_[i]) return Overlap::none;
    if (high / divisor_[i] * divisor_[i] < low) return Overlap::none;  // no multiple in between
    const auto [step, most] = terms_[i];
    const std::int64_t beyond = low - reach_[i + 1];  // of it, at least this is needed
    const std::int64_t first = beyond <= 0 ? 0 : (beyond + step - 1) / step;
    Overlap found = Overlap::none;
    for (std::int64_t x = std::min(most, high / step); x >= first; --x) {
      if (++steps_ > kMostSteps) return Overlap::undecided;
      const Overlap here = find(i + 1, low - x * step, high - x * step);
      if (here == Overlap::some) return here;
      if (here == Overlap::undecided) found = here;
    }
    return found;
  }

  std::vector<Term> terms_;
  std::vector<std::int64_t> reach_, divisor_;
  int steps_ = 0;
};

/// The axes of an array as terms of the distance from its lowest address.
void add_terms(const StridedArray& array, std::vector<Term>& terms) {
  for (std::size_t i = 0; i < array.axes.size(); ++i)
    terms.push_back({std::abs(array.strides[i]), array.axes[i] - 1});
}

}  // namespace

Overlap overlap(const StridedArray& a, const StridedArray& b) {
  const MemoryRange of_a = memory_of(a), of_b = memory_of(b);
  if (of_a.begin >= of_b.end || of_b.begin >= of_a.end) return Overlap::none;
  std::vector<Term> terms;
  add_terms(a, terms);
  add_terms(b, terms);
  // From an element of a to one of b. Those of b count backwards from its highest element, so that
  // every term of the distance adds to it.
  const std::int64_t size_a = size_of(a.type), size_b = size_of(b.type);
  const auto from = static_cast<std::int64_t>(of_b.end - of_a.begin) - size_b;
  return BoundedSum(std::move(terms)).find(from - size_a + 1, from + size_b - 1);
}

Overlap self_overlap(const StridedArray& array) {
  std::vector<Term> axes;
  add_terms(array, axes);
  if (std::ranges::any_of(array.axes, [](std::int64_t axis) { return axis == 0; }))
    return Overlap::none;
  std::erase_if(axes, [](const Term& term) { return term.most == 0; });
  std::ranges::sort(axes, {}, &Term::step);
  const std::int64_t size = size_of(array.type);
  std::int64_t reach = size;
  const bool nested = std::ranges::all_of(axes, [&](const Term& axis) {
    const bool beyond = axis.step >= reach;
    reach += axis.step * axis.most;
    return beyond;
  });
  if (nested) return Overlap::none;
  // Two elements that differ along axis i, and along none before it: one step along it, and any
  // along the others, come back to within an element.
  Overlap found = Overlap::none;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (axes[i].step == 0) return Overlap::some;
    std::vector<Term> terms{{axes[i].step, axes[i].most - 1}};
    std::int64_t target = -axes[i].step;
    for (std::size_t k = i + 1; k < axes.size(); ++k) {
      terms.push_back({axes[k].step, 2 * axes[k].most});
      target += axes[k].step * axes[k].most;
    }
    const Overlap here = BoundedSum(std::move(terms)).find(target - size + 1, target + size - 1);
    if (here == Overlap::some) return here;
    if (here == Overlap::undecided) found = here;
  }
  return found;
}

}  // namespace mpsnn_loss
