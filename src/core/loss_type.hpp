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

/// MPSCNNReductionType (MPSCNNTypes.h).
enum class ReductionType : std::int32_t {
  none = 0,
  sum = 1,
  mean = 2,
  sum_by_non_zero_weights = 3,
};

/// Whether one channel's result depends on that channel alone or on its whole pixel.
enum class Family { element, channel };

struct LossInfo {
  LossType type;
  const char* name;
  Family family;
  bool smooths_labels;        // reads label_smoothing
  bool takes_class_indices;   // labels may be integers, one per pixel
  bool sums_only;             // accepts no reduction but sum
  bool one_weight_per_pixel;  // its loss is per pixel, so is its weight
};

inline constexpr std::array<LossInfo, 10> kLosses{{
    {LossType::mean_absolute_error, "mean_absolute_error", Family::element, false, false, false,
     false},
    {LossType::mean_squared_error, "mean_squared_error", Family::element, false, false, false,
     false},
    {LossType::softmax_cross_entropy, "softmax_cross_entropy", Family::channel, true, true, false,
     false},
    {LossType::sigmoid_cross_entropy, "sigmoid_cross_entropy", Family::element, true, false, false,
     false},
    {LossType::categorical_cross_entropy, "categorical_cross_entropy", Family::element, false, true,
     false, false},
    {LossType::hinge, "hinge", Family::element, false, false, false, false},
    {LossType::huber, "huber", Family::element, false, false, false, false},
    {LossType::cosine_distance, "cosine_distance", Family::element, false, false, true, true},
    {LossType::log, "log", Family::element, false, false, false, false},
    {LossType::kullback_leibler_divergence, "kullback_leibler_divergence", Family::element, false,
     false, false, false},
}};

struct ReductionInfo {
  ReductionType type;
  const char* name;
};

inline constexpr std::array<ReductionInfo, 4> kReductions{{
    {ReductionType::none, "none"},
    {ReductionType::sum, "sum"},
    {ReductionType::mean, "mean"},
    {ReductionType::sum_by_non_zero_weights, "sum_by_non_zero_weights"},
}};

constexpr const LossInfo& info(LossType type) { return kLosses[static_cast<std::size_t>(type)]; }
constexpr const ReductionInfo& info(ReductionType type) {
  return kReductions[static_cast<std::size_t>(type)];
}

// Rows stand at the index of their raw value.
static_assert([] {
  for (std::size_t i = 0; i < kLosses.size(); ++i) {
    if (kLosses[i].type != static_cast<LossType>(i)) return false;
  }
  for (std::size_t i = 0; i < kReductions.size(); ++i) {
    if (kReductions[i].type != static_cast<ReductionType>(i)) return false;
  }
  return true;
}());

}  // namespace mpsnn_loss
