// From arrays of any rank to batches: core/array_call.hpp.
#include "core/array_call.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

using Axes = std::vector<std::int64_t>;

constexpr const LossInfo& kHuber = info(LossType::huber);

ArrayView view(const char* name, const Axes& axes) { return {name, axes}; }

Folded fold(const Axes& predictions, const ArrayView* weights, const LossInfo& loss = kHuber) {
  return mpsnn_loss::fold(view("predictions", predictions), Format::float32, weights, loss);
}

std::int64_t product(const Axes& axes) {
  std::int64_t result = 1;
  for (const std::int64_t axis : axes) result *= axis;
  return result;
}

/// Calls visit(axes) for every list of `rank` axes, each out of `choices`.
void for_each_axes(std::size_t rank, const Axes& choices,
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
void for_each_broadcast(const Axes& axes, const std::function<void(const Axes&)>& visit) {
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

/// For each element of an array of `axes`, in order, the index into weights that broadcast to it.
std::vector<std::int64_t> broadcast_indices(const Axes& axes, const Axes& weights) {
  std::vector<std::int64_t> indices;
  const std::size_t missing = axes.size() - weights.size();
  for (std::int64_t flat = 0; flat < product(axes); ++flat) {
    std::int64_t rest = flat, stride = 1, index = 0;
    for (std::size_t i = axes.size(); i-- > 0;) {
      const std::int64_t at = rest % axes[i];
      rest /= axes[i];
      if (i < missing) continue;
      const std::int64_t extent = weights[i - missing];
      if (extent != 1) index += at * stride;
      stride *= extent;
    }
    indices.push_back(index);
  }
  return indices;
}

Axes axes_of(const Shape& shape) {
  const auto axes = shape.axes();
  return {axes.begin(), axes.end()};
}

}  // namespace

TEST_CASE("the first axis is the batch, the last the channels, all between are pixels") {
  for (std::size_t rank = 1; rank <= 6; ++rank) {
    for_each_axes(rank, {0, 1, 2, 3}, [&](const Axes& axes) {
      const Folded layout = fold(axes, nullptr);
      const Shape& shape = layout.predictions;
      std::int64_t pixels = 1;
      for (std::size_t i = 1; i + 1 < rank; ++i) pixels *= axes[i];
      CHECK(shape.images == (rank > 1 ? axes.front() : 1));
      const bool has_elements = product(axes) > 0;
      CHECK(is_empty(axes) == !has_elements);
      CHECK(shape.channels == (has_elements ? axes.back() : 0));
      CHECK(shape.pixels() == (has_elements ? pixels : 1));
      CHECK(layout.weights_fit);
    });
  }
}

TEST_CASE("weights that broadcast to predictions broadcast to the same elements once folded") {
  int folded = 0, refused = 0, wrong = 0;
  for (std::size_t rank = 1; rank <= 5; ++rank) {
    for_each_axes(rank, {1, 2, 3}, [&](const Axes& axes) {
      for_each_broadcast(axes, [&](const Axes& weights) {
        const ArrayView weights_view = view("weights", weights);
        const Folded layout = fold(axes, &weights_view);
        const Axes full = axes_of(layout.predictions), part = axes_of(layout.weights);
        if (product(full) != product(axes)) ++wrong;
        if (!layout.weights_fit) {
          ++refused;
          // Their pixels are to be written out, and nothing else.
          const Shape& whole = layout.predictions;
          const std::int64_t images = weights.size() == rank ? weights.front() : 1;
          if (layout.weights != Shape{images, whole.pixels(), 1, weights.back()}) ++wrong;
          return;
        }
        ++folded;
        const bool same = product(part) == product(weights) &&
                          broadcast_indices(full, part) == broadcast_indices(axes, weights);
        if (!same) ++wrong;
      });
    });
  }
  CHECK(wrong == 0);
  CHECK(folded > 5000);
  CHECK(refused > 0);
}

TEST_CASE("weights are expanded only where their pixel axes alternate more than twice") {
  for (std::size_t rank = 3; rank <= 6; ++rank) {
    for_each_axes(rank, {1, 2}, [&](const Axes& axes) {
      for_each_broadcast(axes, [&](const Axes& weights) {
        if (weights.size() < rank) return;
        int groups = 0;
        bool before = false;
        for (std::size_t i = 1; i + 1 < rank; ++i) {
          if (axes[i] == 1) continue;
          const bool spreads = weights[i] == 1;
          if (groups == 0 || spreads != before) ++groups;
          before = spreads;
        }
        const ArrayView weights_view = view("weights", weights);
        CHECK(fold(axes, &weights_view).weights_fit == (groups <= 2));
      });
    });
  }
}

TEST_CASE("weights that do not broadcast are refused by name") {
  const auto refuse = [](const Axes& axes, const Axes& weights, const LossInfo& loss) {
    const ArrayView weights_view = view("weights", weights);
    check_refused<ValueError>("weights", [&] { fold(axes, &weights_view, loss); });
  };
  refuse({2, 3}, {2, 2}, kHuber);
  refuse({2, 3}, {2}, kHuber);
  refuse({2, 3}, {1, 2, 3}, kHuber);
  refuse({3}, {1, 3}, kHuber);
  refuse({2, 3}, {0, 3}, kHuber);
  refuse({2, 1}, {2, 3}, kHuber);
  const LossInfo& cosine = info(LossType::cosine_distance);
  refuse({2, 3}, {2, 3}, cosine);
  refuse({2, 3}, {3}, cosine);
  for (const Axes& weights : {Axes{}, Axes{1}, Axes{2, 1}, Axes{1, 1}}) {
    const ArrayView weights_view = view("weights", weights);
    CHECK_NOTHROW(fold({2, 3}, &weights_view, cosine));
  }
}

TEST_CASE("predictions without an axis are refused by name") {
  check_refused<ValueError>("predictions", [] { fold({}, nullptr); });
}

TEST_CASE("axes other than the required ones are refused with both shapes") {
  CHECK_NOTHROW(require_axes(view("labels", {2, 3}), Axes{2, 3}));
  CHECK_NOTHROW(require_axes(view("labels", {}), Axes{}));
  for (const Axes& axes : {Axes{2, 3, 1}, Axes{3, 2}, Axes{2}, Axes{}}) {
    check_refused<ValueError>("labels must have shape (2, 3)",
                              [&] { require_axes(view("labels", axes), Axes{2, 3}); });
  }
}

TEST_CASE("a class index outside the classes is refused with its position") {
  const Axes axes{2, 3, 4};
  std::vector<std::int64_t> indices(24, 4);
  const ArrayView labels = view("labels", axes);
  const auto check = [&](std::optional<std::int64_t> ignored) {
    return [&, ignored] { check_class_indices(labels, indices.data(), 5, ignored); };
  };
  CHECK_NOTHROW(check({})());
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const std::string position = "labels[" + std::to_string(i / 12) + ", " +
                                 std::to_string(i / 4 % 3) + ", " + std::to_string(i % 4) + "]";
    for (const std::int64_t wrong : {std::int64_t{-1}, std::int64_t{5}, INT64_MAX, INT64_MIN}) {
      indices[i] = wrong;
      check_refused<ValueError>(position + " is " + std::to_string(wrong), check({}));
      check_refused<ValueError>(position, check(7));
      CHECK_NOTHROW(check(wrong)());
    }
    indices[i] = 0;
  }
  CHECK_NOTHROW(check(0)());  // an ignored class may be one of the classes
  const std::int64_t one = 5;
  check_refused<ValueError>("labels[] is 5",
                            [&] { check_class_indices(view("labels", {}), &one, 5, {}); });
}

TEST_CASE("the loss has the axes of predictions, one per image, or none across the batch") {
  const Axes three{4, 3, 2}, one{3};
  for (const ReductionInfo& row : kReductions) {
    for (const bool across : {false, true}) {
      const LossDescriptor d{LossType::huber, row.type, across, 1, {}};
      const auto axes = [&](const Axes& of) {
        const auto result = loss_axes(d, of);
        return Axes(result.begin(), result.end());
      };
      const bool reduces = row.type != ReductionType::none;
      CHECK(axes(three) == (!reduces ? three : across ? Axes{} : Axes{4}));
      CHECK(axes(one) == (!reduces ? one : across ? Axes{} : Axes{1}));
    }
  }
}

TEST_CASE("an array of source gradients has the axes of the loss") {
  const Axes axes{4, 3, 2, 5};
  for (const ReductionInfo& row : kReductions) {
    Request request;
    request.descriptor = {LossType::huber, row.type, false, 1, {}};
    request.predictions =
        make_operand("predictions", {{4, 3, 2, 5}, Format::float32}, nullptr, false);
    const bool reduces = row.type != ReductionType::none;
    const Axes right = reduces ? Axes{4} : axes;
    const Shape shape = source_gradient_shape(request, view("source_gradient", right), axes);
    CHECK(shape == (reduces ? Shape{4, 1, 1, 1} : Shape{4, 3, 2, 5}));
    for (const Axes& wrong :
         {Axes{1}, Axes{4, 1}, Axes{5}, Axes{4, 3, 2, 1}, reduces ? axes : Axes{4}}) {
      check_refused<ValueError>("source_gradient", [&] {
        source_gradient_shape(request, view("source_gradient", wrong), axes);
      });
    }
  }
}

TEST_CASE("labels are dense or class indices by their shape and type, or the mistake is named") {
  const Axes axes{2, 3, 4};
  const auto judge = [&](const Axes& labels, ElementType type, LossType loss) {
    return judge_labels(view("labels", labels), type, axes, info(loss));
  };
  for (const LossInfo& loss : kLosses) {
    CHECK(judge(axes, ElementType::int64, loss.type) == LabelKind::dense);
    CHECK(judge(axes, ElementType::float32, loss.type) == LabelKind::dense);
    if (!loss.takes_class_indices) {
      check_refused<ValueError>("labels must have shape (2, 3, 4), as this loss takes no",
                                [&] { judge({2, 3}, ElementType::int64, loss.type); });
      continue;
    }
    CHECK(judge({2, 3}, ElementType::uint8, loss.type) == LabelKind::class_indices);
    for (const ElementType type : {ElementType::float32, ElementType::boolean})
      check_refused<TypeError>("labels must hold integers where they are class indices",
                               [&] { judge({2, 3}, type, loss.type); });
    check_refused<ValueError>(
        "labels must have shape (2, 3, 4), or (2, 3) where they are class "
        "indices, without a channel axis",
        [&] { judge({2, 3, 1}, ElementType::int64, loss.type); });
    check_refused<ValueError>("labels must have shape (2, 3, 4), or (2, 3) where they are class",
                              [&] { judge({3, 2}, ElementType::int64, loss.type); });
  }
}

TEST_CASE("of no elements, axes are not multiplied") {
  constexpr std::int64_t kHuge = std::int64_t{1} << 60;
  for (const Axes& axes : {Axes{kHuge, 0}, Axes{0, kHuge, kHuge, 3}, Axes{kHuge, kHuge, 0, 2}}) {
    const Folded layout = fold(axes, nullptr);
    CHECK((layout.predictions == Shape{axes[0], 1, 1, 0}));
  }
  for (const Axes& axes : {Axes{kHuge, kHuge}, Axes{2, kHuge, kHuge, 3}, Axes{kHuge, 8}})
    check_refused<ValueError>("predictions must fit in 63-bit addresses",
                              [&] { fold(axes, nullptr); });
}

}  // namespace mpsnn_loss::test
