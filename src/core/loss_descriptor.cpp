#include "core/loss_descriptor.hpp"

#include <cmath>
#include <cstdio>
#include <string>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

ValueError out_of_range(const char* property, const std::string& expectation, double given) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", given);
  return ValueError(refusal(property, expectation, text));
}

void require(bool holds, const char* property, const char* expectation, double given) {
  if (!holds) throw_made([=] { return out_of_range(property, expectation, given); });
}

}  // namespace

void check_weight(double weight) { require(std::isfinite(weight), "weight", "be finite", weight); }

void check_label_smoothing(double label_smoothing) {
  require(label_smoothing >= 0 && label_smoothing <= 1, "label_smoothing", "be in [0, 1]",
          label_smoothing);
}

void check_epsilon(double epsilon) {
  require(std::isfinite(epsilon) && epsilon >= 0, "epsilon", "be finite and at least 0", epsilon);
}

void check_delta(double delta) {
  require(std::isfinite(delta) && delta > 0, "delta", "be finite and greater than 0", delta);
}

void check_number_of_classes(std::int64_t number_of_classes) {
  if (number_of_classes >= 1) return;
  throw ValueError(
      refusal("number_of_classes", "be at least 1", std::to_string(number_of_classes)));
}

void check(const LossParameters& parameters) {
  check_weight(parameters.weight);
  check_label_smoothing(parameters.label_smoothing);
  check_epsilon(parameters.epsilon);
  check_delta(parameters.delta);
}

void check_reduction(const LossDescriptor& descriptor, const char* name) {
  const LossInfo& loss = info(descriptor.loss_type);
  if (!loss.sums_only || descriptor.reduction_type == ReductionType::sum) return;
  throw_made([&] {
    return ValueError(refusal(name, std::string("be \"sum\" for ") + loss.name,
                              '"' + std::string(info(descriptor.reduction_type).name) + '"'));
  });
}

void check(const LossDescriptor& descriptor) {
  check(descriptor.parameters);
  check_number_of_classes(descriptor.number_of_classes);
  check_reduction(descriptor, "reduction_type");
}

void check_smoothing_counts(const LossDescriptor& descriptor) {
  const LossInfo& loss = info(descriptor.loss_type);
  const double smoothing = descriptor.parameters.label_smoothing;
  if (loss.smoothing != Smoothing::none || smoothing == 0) return;
  throw_made([&] {
    return out_of_range("label_smoothing",
                        std::string("be 0 for ") + loss.name + ", which smooths no labels",
                        smoothing);
  });
}

bool smooths_with_one_class(const LossDescriptor& descriptor) {
  return info(descriptor.loss_type).smoothing == Smoothing::one_over_classes &&
         descriptor.parameters.label_smoothing > 0 && descriptor.number_of_classes == 1;
}

}  // namespace mpsnn_loss
