// What arrays of any rank may be to predictions: the rules of core/array_call.hpp.
#include "core/array_call.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "axes.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr const LossInfo& kHuber = info(LossType::huber);

}  // namespace

TEST_CASE("weights that do not broadcast are refused by name") {
  const auto accept = [](const Axes& axes, const Axes& weights, const LossInfo& loss = kHuber,
                         std::int64_t axis = -1) {
    CHECK_NOTHROW(require_broadcast(view("weights", weights), fold(axes, axis), loss));
  };
  const auto refuse = [](const Axes& axes, const Axes& weights, const LossInfo& loss = kHuber,
                         std::int64_t axis = -1, const std::string& words = "weights must ") {
    check_refused<ValueError>(
        words, [&] { require_broadcast(view("weights", weights), fold(axes, axis), loss); });
  };
  for (std::size_t rank = 1; rank <= 4; ++rank) {
    for_each_axes(rank, {1, 2, 3}, [&](const Axes& axes) {
      for_each_broadcast(axes, [&](const Axes& weights) {
        accept(axes, weights);
        for (std::size_t i = 0; i < weights.size(); ++i) {
          Axes wrong = weights;
          wrong[i] = axes[rank - weights.size() + i] + 1;
          refuse(axes, wrong);
          wrong[i] = 0;
          refuse(axes, wrong);
        }
      });
    });
  }
  refuse({2, 3}, {1, 2, 3});
  refuse({3}, {1, 3});
  refuse({2, 3}, {2}, kHuber, -1,
         "weights must broadcast to shape (2, 3); pass sample_weight for one per image, got (2,)");
  refuse({3, 2}, {2, 2}, kHuber, 0, "weights must broadcast to shape (3, 2), got (2, 2)");
  const LossInfo& cosine = info(LossType::cosine_distance);
  refuse({2, 3}, {2, 3}, cosine, -1, "weights must have a channel axis of 1 for cosine_distance");
  refuse({2, 3}, {3}, cosine);
  refuse({2, 3}, {2, 1}, cosine, 0);
  for (const Axes& weights : {Axes{}, Axes{1}, Axes{2, 1}, Axes{1, 1}})
    accept({2, 3}, weights, cosine);
  for (const Axes& weights : {Axes{}, Axes{1}, Axes{3}, Axes{1, 3}, Axes{1, 1}})
    accept({2, 3}, weights, cosine, 0);
}

TEST_CASE("sample weights are of images or of pixels, and are refused by name otherwise") {
  const Axes axes{4, 5, 3, 2};
  const auto judge = [&](const Axes& weights, std::int64_t axis, const Axes& of) {
    return judge_sample_weight(view("sample_weight", weights), fold(of, axis));
  };
  for (std::size_t channel_axis = 0; channel_axis < 4; ++channel_axis) {
    const auto axis = static_cast<std::int64_t>(channel_axis);
    const Axes pixels = without(axes, channel_axis);
    CHECK(judge({pixels.front()}, axis, axes) == Covers::images);
    CHECK(judge(pixels, axis, axes) == Covers::pixels);
    const std::string words = "sample_weight must have shape (" + std::to_string(pixels.front()) +
                              ",) or " + to_string(pixels.data(), 3);
    for (const Axes& wrong : {Axes{}, Axes{1}, Axes{7}, axes, Axes{pixels[0], pixels[1]}})
      check_refused<ValueError>(words + ", got", [&] { judge(wrong, axis, axes); });
    check_refused<ValueError>(words + "; pass class_weight for one per class, got",
                              [&] { judge({axes[channel_axis]}, axis, axes); });
  }
  for (const Axes& one : {Axes{}, Axes{1}}) CHECK_NOTHROW(judge(one, 0, {3}));
  check_refused<ValueError>(
      "sample_weight must have shape () or (1,); pass class_weight for one per class, got (3,)",
      [&] { judge({3}, 0, {3}); });
  check_refused<ValueError>("sample_weight must have shape (4,), got (4, 1)",
                            [&] { judge({4, 1}, 1, {4, 3}); });
}

TEST_CASE("class weights are one per channel, of a loss with one weight per element") {
  const Axes axes{4, 5, 3};
  const auto require = [&](const Axes& weights, std::int64_t axis, const LossInfo& loss) {
    require_class_weight(view("class_weight", weights), fold(axes, axis), loss);
  };
  for (std::size_t channel_axis = 0; channel_axis < 3; ++channel_axis) {
    const auto axis = static_cast<std::int64_t>(channel_axis);
    const std::int64_t channels = axes[channel_axis];
    CHECK_NOTHROW(require({channels}, axis, kHuber));
    for (const Axes& wrong : {Axes{}, Axes{1}, Axes{channels + 3}, Axes{channels, 1}, axes})
      check_refused<ValueError>("class_weight must have shape (" + std::to_string(channels) + ",)",
                                [&] { require(wrong, axis, kHuber); });
    check_refused<ValueError>("class_weight must be None for cosine_distance",
                              [&] { require({channels}, axis, info(LossType::cosine_distance)); });
  }
  check_refused<ValueError>(
      "class_weight must have shape (3,); pass sample_weight for one per image, got (4,)",
      [&] { require({4}, -1, kHuber); });
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
      const bool reduces = row.type != ReductionType::none;
      for (const std::int64_t axis : {0, 1, 2}) {
        const Folding folding = fold(three, axis);
        const std::int64_t images = axis == 0 ? 3 : 4;
        CHECK(copy(loss_axes(d, folding)) == (!reduces ? three : across ? Axes{} : Axes{images}));
      }
      CHECK(copy(loss_axes(d, fold(one))) == (!reduces ? one : across ? Axes{} : Axes{1}));
    }
  }
}

TEST_CASE("an array of source gradients has the axes of the loss") {
  const Axes axes{4, 3, 2, 5};
  for (const ReductionInfo& row : kReductions) {
    for (const bool across : {false, true}) {
      for (const std::int64_t axis : {0, 1, 2, 3}) {
        const LossDescriptor d{LossType::huber, row.type, across, 1, {}};
        const bool reduces = row.type != ReductionType::none;
        const auto judge = [&](const Axes& array) {
          return judge_source_gradient(d, view("source_gradient", array), fold(axes, axis));
        };
        const std::int64_t images = axis == 0 ? 3 : 4;
        const Axes right = !reduces ? axes : across ? Axes{} : Axes{images};
        CHECK(judge(right) == (reduces ? Covers::images : Covers::everything));
        for (const Axes& wrong : {Axes{}, Axes{1}, Axes{images}, Axes{images, 1}, Axes{5},
                                  Axes{4, 3, 2, 1}, Axes{3, 4, 2, 5}, axes}) {
          if (wrong == right) continue;
          check_refused<ValueError>("source_gradient must be a scalar", [&] { judge(wrong); });
        }
      }
    }
  }
}

TEST_CASE("labels are dense or class indices by their shape and type, or the mistake is named") {
  const Axes axes{2, 3, 4};
  for (const LossInfo& loss : kLosses) {
    for (std::size_t channel_axis = 0; channel_axis < 3; ++channel_axis) {
      const Folding folding = fold(axes, static_cast<std::int64_t>(channel_axis));
      const auto judge = [&](const Axes& labels, ElementType type) {
        return judge_labels(view("labels", labels), type, folding, loss);
      };
      const Axes pixels = without(axes, channel_axis);
      Axes with_one = axes;
      with_one[channel_axis] = 1;
      const std::string dense = "labels must have shape (2, 3, 4)";
      CHECK(judge(axes, ElementType::int64) == LabelKind::dense);
      CHECK(judge(axes, ElementType::float32) == LabelKind::dense);
      CHECK(judge(axes, ElementType::bfloat16) == LabelKind::dense);
      if (!loss.takes_class_indices) {
        check_refused<ValueError>(dense + ", as this loss takes no class indices, got",
                                  [&] { judge(pixels, ElementType::int64); });
        check_refused<ValueError>(dense + ", got", [&] { judge(pixels, ElementType::float32); });
        check_refused<ValueError>(dense + ", got", [&] { judge(with_one, ElementType::int64); });
        continue;
      }
      CHECK(judge(pixels, ElementType::uint8) == LabelKind::class_indices);
      for (const ElementType type :
           {ElementType::float32, ElementType::bfloat16, ElementType::boolean})
        check_refused<TypeError>("labels must hold integers where they are class indices",
                                 [&] { judge(pixels, type); });
      const std::string either =
          dense + ", or " + to_string(pixels.data(), 2) + " where they are class indices";
      check_refused<ValueError>(either + ", without a channel axis",
                                [&] { judge(with_one, ElementType::int64); });
      for (const Axes& wrong :
           {Axes{pixels[1], pixels[0]}, Axes{}, Axes{1, 2, 3}, Axes{2, 3, 4, 1}})
        check_refused<ValueError>(either + ", got", [&] { judge(wrong, ElementType::int64); });
    }
  }
}

TEST_CASE("of no elements, axes are not multiplied, and too many are refused") {
  constexpr std::int64_t kHuge = std::int64_t{1} << 60;
  for (const Axes& axes : {Axes{kHuge, 0}, Axes{0, kHuge, kHuge, 3}, Axes{kHuge, kHuge, 0, 2}}) {
    CHECK((fold(axes).shape() == Shape{axes[0], 1, 1, 0}));
  }
  for (const Axes& axes : {Axes{kHuge, kHuge}, Axes{2, kHuge, kHuge, 3}, Axes{kHuge, 8},
                           Axes{1, kHuge, kHuge, kHuge, 1}}) {
    Folding folding = fold(axes);
    CHECK(folding.admit(Axes(axes.size(), 0)));
    for (const FormatInfo& format : kFormats) {
      check_refused<ValueError>("predictions must fit in 63-bit addresses", [&] {
        check_shape("predictions", {folding.shape(), format.format});
      });
    }
  }
}

}  // namespace mpsnn_loss::test
