// Shapes of arrays, as lists of axes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/array_call.hpp"

namespace mpsnn_loss::test {

using Axes = std::vector<std::int64_t>;

inline ArrayView view(const char* name, const Axes& axes) { return {name, axes}; }
/// What refers to the axes, which live on.
inline Folding fold(const Axes& predictions, std::int64_t axis = -1) {
  return Folding("predictions", predictions, axis);
}

inline Axes copy(std::span<const std::int64_t> axes) { return {axes.begin(), axes.end()}; }
inline Axes without(Axes axes, std::size_t i) {
  axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(i));
  return axes;
}

inline std::int64_t product(const Axes& axes) {
  std::int64_t result = 1;
  for (const std::int64_t axis : axes) result *= axis;
  return result;
}

/// Calls visit(axes) for every list of `rank` axes, each out of `choices`.
inline void for_each_axes(std::size_t rank, const Axes& choices,
                          const std::function<void(const Axes&)>& visit) {
  Axes axes(rank);
  std::size_t combinations = 1;
  for (std::size_t i = 0; i < rank; ++i) combinations *= choices.size();
  for (std::size_t k = 0; k < combinations; ++k) {
    std::size_t rest = k;
    for (std::int64_t& axis : axes) {
      axis = choices[rest % choices.size()];
      rest /= choices.size();
    }
    visit(axes);
  }
}

/// Every shape that broadcasts to `axes` as NumPy has it.
inline void for_each_broadcast(const Axes& axes, const std::function<void(const Axes&)>& visit) {
  for (std::size_t rank = 0; rank <= axes.size(); ++rank) {
    for (std::size_t pattern = 0; pattern < std::size_t{1} << rank; ++pattern) {
      Axes weights(rank, 1);
      for (std::size_t i = 0; i < rank; ++i) {
        if ((pattern >> i & 1) != 0) weights[i] = axes[axes.size() - rank + i];
      }
      visit(weights);
    }
  }
}

}  // namespace mpsnn_loss::test
