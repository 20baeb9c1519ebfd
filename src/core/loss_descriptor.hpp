// MPSCNNLossDescriptor: what a loss computes. Every range check of a property stands here.
#pragma once

#include <cstdint>

#include "core/loss_type.hpp"

namespace mpsnn_loss {

/// The properties that a forward encode captures in a state and that may change between encodes.
struct LossParameters {
  double weight = 1.0;           // ω, finite
  double label_smoothing = 0.0;  // s, in [0, 1]
  double epsilon = 1e-7;         // ε, at least 0
  double delta = 1.0;            // δ, greater than 0

  friend bool operator==(const LossParameters&, const LossParameters&) = default;
};

struct LossDescriptor {
  LossType loss_type = kLosses[0].type;
  ReductionType reduction_type = ReductionType::none;
  bool reduce_across_batch = false;
  std::int64_t number_of_classes = 1;  // K, at least 1
  LossParameters parameters;

  friend bool operator==(const LossDescriptor&, const LossDescriptor&) = default;

  bool reduces() const { return reduction_type != ReductionType::none; }
  bool reduces_across_batch() const { return reduces() && reduce_across_batch; }
};

// Each throws ValueError naming the property.
void check_weight(double weight);
void check_label_smoothing(double label_smoothing);
void check_epsilon(double epsilon);
void check_delta(double delta);

/// The parameters as data, in the order in which archives and descriptions have them.
struct LossParameterInfo {
  const char* name;
  double LossParameters::* field;
  void (*check)(double);
  const char* help;
};
inline constexpr LossParameterInfo kLossParameters[] = {
    {"weight", &LossParameters::weight, check_weight, "Finite factor of the loss"},
    {"label_smoothing", &LossParameters::label_smoothing, check_label_smoothing, "s in [0, 1]"},
    {"epsilon", &LossParameters::epsilon, check_epsilon, "Constant of the log loss, at least 0"},
    {"delta", &LossParameters::delta, check_delta, "Constant of the Huber loss, greater than 0"},
};

void check_number_of_classes(std::int64_t number_of_classes);
void check(const LossParameters& parameters);
void check(const LossDescriptor& descriptor);
/// Whether the loss accepts the reduction, an argument that callers know by this name.
void check_reduction(const LossDescriptor& descriptor, const char* name);

/// Throws ValueError where labels are to be smoothed of a loss that does not smooth them. Kernels
/// ignore that, as Apple's do.
void check_smoothing_counts(const LossDescriptor& descriptor);

/// True where smoothing would add the whole of s to every channel: Apple's default of one class.
bool smooths_with_one_class(const LossDescriptor& descriptor);

}  // namespace mpsnn_loss
