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
  const auto read = [](const char* name, PyObject* value, double& property,
                       void (*check_property)(double)) {
    if (value == nullptr) return;
    property = to_real(name, value);
    check_property(property);
  };
  LossParameters& p = d.parameters;
  read("weight", a.weight, p.weight, check_weight);
  read("label_smoothing", a.label_smoothing, p.label_smoothing, check_label_smoothing);
  read("epsilon", a.epsilon, p.epsilon, check_epsilon);
  read("delta", a.delta, p.delta, check_delta);
  if (given(a.number_of_classes)) {
    d.number_of_classes = to_integer("number_of_classes", a.number_of_classes);
    check_number_of_classes(d.number_of_classes);
  }
  check_reduction(d, "reduction");
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
  throw_made([=] {
    return TypeError(refusal("predictions", "have dtype " + names_of_formats(), name_of(type)));
  });
}

}  // namespace mpsnn_loss::bindings
