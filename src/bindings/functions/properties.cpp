#include "bindings/functions/properties.hpp"

#include <cmath>
#include <string_view>

#include "bindings/arguments.hpp"
#include "core/error.hpp"

namespace mpsnn_loss::bindings {

LossDescriptor read_descriptor(const FunctionArguments& a) {
  LossDescriptor d;
  d.loss_type = to_any_loss_type("loss_type", a.loss_type);
  d.reduction_type = a.reduction != nullptr ? to_any_reduction_type("reduction", a.reduction)
                                            : ReductionType::mean;
  d.reduce_across_batch =
      a.reduce_across_batch == nullptr || to_bool("reduce_across_batch", a.reduce_across_batch);
  if (a.weight != nullptr) d.parameters.weight = to_real("weight", a.weight);
  if (a.label_smoothing != nullptr)
    d.parameters.label_smoothing = to_real("label_smoothing", a.label_smoothing);
  if (a.epsilon != nullptr) d.parameters.epsilon = to_real("epsilon", a.epsilon);
  if (a.delta != nullptr) d.parameters.delta = to_real("delta", a.delta);
  if (given(a.number_of_classes))
    d.number_of_classes = to_integer("number_of_classes", a.number_of_classes);
  check(d, "reduction");
  check_smoothing_counts(d);
  return d;
}

Wrt read_wrt(PyObject* wrt) {
  if (wrt == nullptr) return Wrt::predictions;
  if (PyUnicode_Check(wrt) == 0)
    throw TypeError(refusal("wrt", "be 'predictions' or 'labels'", describe(wrt)));
  if (PyUnicode_CompareWithASCIIString(wrt, "predictions") == 0) return Wrt::predictions;
  if (PyUnicode_CompareWithASCIIString(wrt, "labels") == 0) return Wrt::labels;
  constexpr std::string_view kNames[] = {"predictions", "labels"};
  throw ValueError(refusal("wrt", "be 'predictions' or 'labels'", describe(wrt)) +
                   suggestion(wrt, kNames));
}

double to_divisor(PyObject* value) {
  const double divisor = to_real("divisor", value);
  if (!std::isfinite(divisor))
    throw ValueError(refusal("divisor", "be finite", number_text(divisor)));
  return divisor;
}

Format format_of_predictions(ElementType type) {
  if (is_integer(type) || type == ElementType::boolean) return Format::float64;
  if (const auto format = storage_format(type)) return *format;
  throw TypeError(refusal("predictions", "have dtype " + names_of_formats(), name_of(type)));
}

}  // namespace mpsnn_loss::bindings
