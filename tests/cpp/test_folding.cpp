// How axes of any number become those of a batch, wherever the channels are: Folding of
// core/array_call.hpp against the places of all elements.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "axes.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

/// In elements.
Axes contiguous(const Axes& axes) {
  Axes strides(axes.size());
  std::int64_t stride = 1;
  for (std::size_t i = axes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= axes[i];
  }
  return strides;
}

/// Those of contiguous weights, one for each axis of predictions, as NumPy broadcasts them.
Axes broadcast_strides(const Axes& axes, const Axes& weights) {
  Axes strides(axes.size() - weights.size(), 0);
  const Axes own = contiguous(weights);
  for (std::size_t i = 0; i < weights.size(); ++i) strides.push_back(weights[i] == 1 ? 0 : own[i]);
  return strides;
}

/// Where the elements of an array lie, the axes nested as `order` has them.
Axes places(const Axes& axes, const Axes& strides, const Axes& order) {
  Axes all{0};
  for (const std::int64_t axis : order) {
    const auto i = static_cast<std::size_t>(axis);
    Axes next;
    for (const std::int64_t place : all) {
      for (std::int64_t at = 0; at < axes[i]; ++at) next.push_back(place + at * strides[i]);
    }
    all = std::move(next);
  }
  return all;
}

/// The first axis that is not of channels, then the others as they come, the channels last.
Axes batch_pixels_channels(std::size_t rank, std::size_t channel_axis) {
  Axes order(rank);
  std::iota(order.begin(), order.end(), 0);
  order = without(order, channel_axis);
  order.push_back(static_cast<std::int64_t>(channel_axis));
  return order;
}

/// The elements lie, once folded, where they lay: in the order batch, pixels, channels.
bool keeps_places(const Folding& folding, const Axes& axes, const Axes& strides) {
  const Axes order = batch_pixels_channels(axes.size(), folding.channel_axis());
  const auto shape = folding.shape().axes();
  return places(copy(shape), copy(folding.fold(strides)), {0, 1, 2, 3}) ==
         places(axes, strides, order);
}

/// Whether the elements are evenly spaced.
bool is_line(const Axes& places) {
  for (std::size_t i = 2; i < places.size(); ++i) {
    if (places[i] - places[i - 1] != places[1] - places[0]) return false;
  }
  return true;
}

/// Whether the axes of pixels can be cut in two, each half of which is one line in every array.
bool merges_to_two(const Axes& axes, std::size_t channel_axis, const std::vector<Axes>& arrays) {
  Axes pixels = batch_pixels_channels(axes.size(), channel_axis);
  pixels.pop_back();
  if (!pixels.empty()) pixels.erase(pixels.begin());
  for (std::size_t cut = 0; cut <= pixels.size(); ++cut) {
    const auto middle = pixels.begin() + static_cast<std::ptrdiff_t>(cut);
    const Axes outer(pixels.begin(), middle), inner(middle, pixels.end());
    if (std::ranges::all_of(arrays, [&](const Axes& strides) {
          return is_line(places(axes, strides, outer)) && is_line(places(axes, strides, inner));
        }))
      return true;
  }
  return false;
}

/// Strides of an array that lies anyhow: axes in any order, apart, backwards, repeated.
Axes random_strides(const Axes& axes, Random& random) {
  Axes order(axes.size());
  std::iota(order.begin(), order.end(), 0);
  const bool in_order = random.one_in(2);
  for (std::size_t i = order.size(); i > 1 && !in_order; --i)
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  Axes strides(axes.size());
  std::int64_t stride = 1 + random.below(2);
  for (std::size_t k = order.size(); k-- > 0;) {
    const auto i = static_cast<std::size_t>(order[k]);
    // Of an axis of 1, strides say nothing.
    strides[i] = axes[i] == 1 ? random.below(50) : random.one_in(9) ? 0 : stride;
    if (random.one_in(9)) strides[i] = -strides[i];
    stride *= axes[i];
    if (random.one_in(5)) stride += 3;
  }
  return strides;
}

}  // namespace

TEST_CASE("one axis has the channels, the first other is the batch, the rest are pixels") {
  for (std::size_t rank = 1; rank <= 5; ++rank) {
    for_each_axes(rank, {0, 1, 2, 3}, [&](const Axes& axes) {
      for (std::size_t channel_axis = 0; channel_axis < rank; ++channel_axis) {
        const auto axis = static_cast<std::int64_t>(channel_axis);
        Folding folding = fold(axes, axis);
        const Axes others = without(axes, channel_axis);
        CHECK(folding.rank() == rank);
        CHECK(copy(folding.axes()) == axes);
        CHECK(copy(folding.axes_without_channels()) == others);
        CHECK(folding.channels() == axes[channel_axis]);
        CHECK(folding.images() == (rank > 1 ? others.front() : 1));
        const bool has_elements = product(axes) > 0;
        CHECK(folding.is_empty() == !has_elements);
        CHECK(fold(axes, axis - static_cast<std::int64_t>(rank)).channel_axis() == channel_axis);
        if (has_elements && !folding.admit(contiguous(axes))) {
          CHECK(channel_axis > 1);  // lies among the pixels, more than once
          continue;
        }
        const Shape shape = folding.shape();
        CHECK(shape.images == folding.images());
        CHECK(shape.channels == (has_elements ? axes[channel_axis] : 0));
        const Axes pixels(others.begin() + (rank > 1 ? 1 : 0), others.end());
        CHECK(shape.pixels() == (has_elements ? product(pixels) : 1));
      }
    });
  }
}

TEST_CASE("predictions without an axis, and an axis that they do not have, are refused by name") {
  check_refused<ValueError>("predictions must have at least 1 axis", [] { fold({}); });
  const Axes axes{2, 3, 4};
  for (const std::int64_t axis : {std::int64_t{3}, std::int64_t{-4}, INT64_MAX, INT64_MIN}) {
    check_refused<ValueError>(
        "axis must be in [-3, 3) for predictions of shape (2, 3, 4), got " + std::to_string(axis),
        [&] { fold(axes, axis); });
  }
}

TEST_CASE("predictions and weights that broadcast keep their elements once folded") {
  int folded = 0, refused = 0, wrong = 0;
  for (std::size_t rank = 1; rank <= 5; ++rank) {
    for_each_axes(rank, {1, 2, 3}, [&](const Axes& axes) {
      const Axes own = contiguous(axes);
      for (std::size_t channel_axis = 0; channel_axis < rank; ++channel_axis) {
        Folding alone = fold(axes, static_cast<std::int64_t>(channel_axis));
        if (!alone.admit(own) || !keeps_places(alone, axes, own)) ++wrong;
        for_each_broadcast(axes, [&](const Axes& weights) {
          const Axes strides = broadcast_strides(axes, weights);
          Folding folding = alone;
          if (folding.admit(strides)) {
            ++folded;
            if (!keeps_places(folding, axes, own) || !keeps_places(folding, axes, strides)) ++wrong;
          } else {
            ++refused;
            if (merges_to_two(axes, channel_axis, {own, strides})) ++wrong;
            // What was refused has changed nothing.
            if (folding.shape() != alone.shape() || !keeps_places(folding, axes, own)) ++wrong;
          }
        });
      }
    });
  }
  CHECK(wrong == 0);
  CHECK(folded > 30000);
  CHECK(refused > 1000);
}

TEST_CASE("arrays that lie anyhow are admitted exactly where their pixels merge to two axes") {
  Random random(1);
  int admitted = 0, refused = 0, wrong = 0;
  for (int trial = 0; trial < 60000; ++trial) {
    const auto rank = static_cast<std::size_t>(1 + random.below(6));
    Axes axes(rank);
    for (std::int64_t& axis : axes) axis = 1 + random.below(3);
    const auto channel_axis =
        static_cast<std::size_t>(random.below(static_cast<std::int64_t>(rank)));
    Folding folding = fold(axes, static_cast<std::int64_t>(channel_axis));
    std::vector<Axes> arrays;
    for (int i = 0; i < 3; ++i) {
      arrays.push_back(random_strides(axes, random));
      const bool fits = folding.admit(arrays.back());
      if (fits != merges_to_two(axes, channel_axis, arrays)) ++wrong;
      if (!fits) arrays.pop_back();
      ++(fits ? admitted : refused);
    }
    for (const Axes& strides : arrays) {
      if (!keeps_places(folding, axes, strides)) ++wrong;
    }
  }
  CHECK(wrong == 0);
  CHECK(admitted > 10000);
  CHECK(refused > 10000);
}

TEST_CASE("an array that is packed lies contiguously, channels last") {
  for (std::size_t rank = 1; rank <= 6; ++rank) {
    const Axes axes(rank, 2);
    for (std::size_t channel_axis = 0; channel_axis < rank; ++channel_axis) {
      Folding folding = fold(axes, static_cast<std::int64_t>(channel_axis));
      const auto packed = folding.packed_order();
      const Axes order(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(rank));
      CHECK(order == batch_pixels_channels(rank, channel_axis));
      Axes strides(rank);
      for (std::size_t k = 0; k < rank; ++k)
        strides[static_cast<std::size_t>(order[k])] = std::int64_t{1} << (rank - 1 - k);
      CHECK(folding.admit(strides));
      CHECK(folding.fold(strides) == contiguous_strides(folding.shape()));
    }
  }
}

TEST_CASE("as many axes as there may be fold, and the last of them too") {
  Axes axes(Folding::kMostAxes, 1);
  for (const std::size_t i : {0u, 20u, 61u, 62u, 63u}) axes[i] = 2;
  for (const std::int64_t channel_axis : {0, 1, 20, 62, 63}) {
    Folding folding = fold(axes, channel_axis);
    CHECK(folding.admit(contiguous(axes)));
    CHECK(keeps_places(folding, axes, contiguous(axes)));
    CHECK(folding.shape().elements() == 32);
  }
}

TEST_CASE("an array has its own axes in the order of those of predictions") {
  for (std::size_t rank = 1; rank <= 5; ++rank) {
    const Axes axes(rank, 2);
    for (std::size_t channel_axis = 0; channel_axis < rank; ++channel_axis) {
      const Folding folding = fold(axes, static_cast<std::int64_t>(channel_axis));
      const Axes order = batch_pixels_channels(rank, channel_axis);
      // Which axis of predictions each own axis stands for.
      const auto check = [&](Covers covers, const Axes& own) {
        for (std::size_t i = 0; i < rank; ++i) {
          const auto at = std::ranges::find(own, static_cast<std::int64_t>(i));
          std::optional<std::size_t> expected;
          if (at != own.end()) expected = static_cast<std::size_t>(at - own.begin());
          CHECK(folding.own_axis(covers, own.size(), i) == expected);
        }
      };
      Axes all(rank);
      std::iota(all.begin(), all.end(), 0);
      check(Covers::pixels, without(all, channel_axis));
      check(Covers::channels, {static_cast<std::int64_t>(channel_axis)});
      if (rank > 1) check(Covers::images, {order.front()});
      for (std::size_t missing = 0; missing <= rank; ++missing)
        check(Covers::everything, {all.begin() + static_cast<std::ptrdiff_t>(missing), all.end()});
    }
  }
  const Axes one{4};
  CHECK_FALSE(fold(one).own_axis(Covers::images, 1, 0));
}

}  // namespace mpsnn_loss::test
