// THE table of losses: Apple's raw values, the names users write, and what each loss reads.
// Names, enumerations, the engine's dispatch and the tests all follow from it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/strict_semantics.hpp"

namespace mpsnn_loss {

/// MPSCNNLossType (MPSCNNTypes.h).
enum class LossType : std::uint32_t {
  mean_absolute_error = 0,
  mean_squared_error = 1,
  softmax_cross_entropy = 2,
  sigmoid_cross_entropy = 3,
  categorical_cross_entropy = 4,
  hinge = 5,
  huber = 6,
  cosine_distance = 7,
  log = 8,
  kullback_leibler_divergence = 9,
};

/// MPSCNNReductionType (MPSCNNTypes.h), and one that only the functions on arrays know.
enum class ReductionType : std::int32_t {
  none = 0,
  sum = 1,
  mean = 2,
  sum_by_non_zero_weights = 3,
  mean_by_weights = 0x10000,
};

/// What label_smoothing mixes the labels with.
enum class Smoothing : std::uint8_t { none, one_over_classes, one_half };

/// All that is special about a loss. Nothing else asks which loss it is, but its formula.
struct LossInfo {
  LossType type;
  const char* name;
  bool is_apples = true;  // of MPSCNNLossType; only the functions on arrays know the others
  Smoothing smoothing = Smoothing::none;
  bool takes_class_indices = false;   // labels may be integers, one per pixel
  bool couples_channels = false;      // each channel of a result depends on its whole pixel
  bool one_weight_per_pixel = false;  // its loss is of a pixel, and so is its weight
  double pixel_constant = 0;          // added to the loss of each pixel, its formula gives the rest
  bool sums_only = false;             // accepts no reduction but sum
  bool weighs_by_labels = false;      // a mean by weights weighs each label by its value

  /// The channels of a pixel cannot be computed apart from each other.
  constexpr bool keeps_channels_together() const {
    return couples_channels || one_weight_per_pixel;
  }
};

/// Losses and reductions that Apple does not have come last; their raw values start here.
inline constexpr std::uint32_t kFirstBeyondApples = 0x10000;

inline constexpr auto kLosses = std::to_array<LossInfo>({
    {.type = LossType::mean_absolute_error, .name = "mean_absolute_error"},
    {.type = LossType::mean_squared_error, .name = "mean_squared_error"},
    {.type = LossType::softmax_cross_entropy,
     .name = "softmax_cross_entropy",
     .smoothing = Smoothing::one_over_classes,
     .takes_class_indices = true,
     .couples_channels = true,
     .weighs_by_labels = true},
    {.type = LossType::sigmoid_cross_entropy,
     .name = "sigmoid_cross_entropy",
     .smoothing = Smoothing::one_half},
    {.type = LossType::categorical_cross_entropy,
     .name = "categorical_cross_entropy",
     .takes_class_indices = true,
     .weighs_by_labels = true},
    {.type = LossType::hinge, .name = "hinge"},
    {.type = LossType::huber, .name = "huber"},
    {.type = LossType::cosine_distance,
     .name = "cosine_distance",
     .one_weight_per_pixel = true,
     .pixel_constant = 1,
     .sums_only = true},
    {.type = LossType::log, .name = "log"},
    {.type = LossType::kullback_leibler_divergence, .name = "kullback_leibler_divergence"},
});

inline constexpr std::size_t kApplesLosses = [] {
  std::size_t count = 0;
  for (const LossInfo& loss : kLosses) count += loss.is_apples ? 1 : 0;
  return count;
}();

struct ReductionInfo {
  ReductionType type;
  const char* name;
  bool divides;                    // by a divisor of its own
  bool is_nan_of_nothing = false;  // else 0
  bool is_apples = true;           // of MPSCNNReductionType
};

inline constexpr auto kReductions = std::to_array<ReductionInfo>({
    {.type = ReductionType::none, .name = "none", .divides = false},
    {.type = ReductionType::sum, .name = "sum", .divides = false},
    {.type = ReductionType::mean, .name = "mean", .divides = true, .is_nan_of_nothing = true},
    {.type = ReductionType::sum_by_non_zero_weights,
     .name = "sum_by_non_zero_weights",
     .divides = true},
    {.type = ReductionType::mean_by_weights,
     .name = "mean_by_weights",
     .divides = true,
     .is_apples = false},
});

inline constexpr std::size_t kApplesReductions = [] {
  std::size_t count = 0;
  for (const ReductionInfo& reduction : kReductions) count += reduction.is_apples ? 1 : 0;
  return count;
}();

constexpr std::size_t row_of_raw(std::uint32_t raw, std::size_t apples) {
  return raw < kFirstBeyondApples ? raw : raw - kFirstBeyondApples + apples;
}
constexpr std::size_t row_of(LossType type) {
  return row_of_raw(static_cast<std::uint32_t>(type), kApplesLosses);
}
constexpr std::size_t row_of(ReductionType type) {
  return row_of_raw(static_cast<std::uint32_t>(type), kApplesReductions);
}
constexpr const LossInfo& info(LossType type) { return kLosses[row_of(type)]; }
constexpr const ReductionInfo& info(ReductionType type) { return kReductions[row_of(type)]; }

// Each row stands where its raw value is looked for.
static_assert([] {
  for (std::size_t i = 0; i < kLosses.size(); ++i) {
    if (row_of(kLosses[i].type) != i || kLosses[i].is_apples != (i < kApplesLosses)) return false;
  }
  for (std::size_t i = 0; i < kReductions.size(); ++i) {
    if (row_of(kReductions[i].type) != i || kReductions[i].is_apples != (i < kApplesReductions))
      return false;
  }
  return true;
}());

}  // namespace mpsnn_loss
