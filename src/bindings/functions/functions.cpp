// The functions on arrays: their arguments and their help.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>

#include "bindings/arguments.hpp"
#include "bindings/definitions.hpp"
#include "bindings/errors.hpp"
#include "bindings/functions/function_call.hpp"
#include "bindings/module.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// A parameter by its name, and where a call keeps its argument.
struct Parameter {
  const char* name;
  PyObject* FunctionArguments::* place;
};

#define PARAMETER(name) \
  Parameter { #name, &FunctionArguments::name }
#define COMMON_PARAMETERS                                                                \
  PARAMETER(predictions), PARAMETER(labels), PARAMETER(loss_type), PARAMETER(reduction), \
      PARAMETER(weights), PARAMETER(weight), PARAMETER(label_smoothing),                 \
      PARAMETER(number_of_classes), PARAMETER(epsilon), PARAMETER(delta),                \
      PARAMETER(reduce_across_batch), PARAMETER(ignore_index)
#define LATER_PARAMETERS                                                                 \
  PARAMETER(device), PARAMETER(axis), PARAMETER(sample_weight), PARAMETER(class_weight), \
      PARAMETER(divisor)

constexpr auto kOfLoss = std::to_array({COMMON_PARAMETERS, PARAMETER(out), LATER_PARAMETERS});
constexpr auto kOfGradient = std::to_array({COMMON_PARAMETERS, PARAMETER(source_gradient),
                                            PARAMETER(wrt), PARAMETER(out), LATER_PARAMETERS});
constexpr auto kOfBoth =
    std::to_array({COMMON_PARAMETERS, PARAMETER(source_gradient), PARAMETER(wrt), PARAMETER(out),
                   PARAMETER(loss_out), LATER_PARAMETERS});
constexpr auto kOfHessian =
    std::to_array({COMMON_PARAMETERS, PARAMETER(source_gradient), PARAMETER(out), LATER_PARAMETERS,
                   PARAMETER(hessian_out)});
constexpr auto kOfDivisor =
    std::to_array({PARAMETER(predictions), PARAMETER(labels), PARAMETER(loss_type),
                   PARAMETER(reduction), PARAMETER(weights), PARAMETER(sample_weight),
                   PARAMETER(class_weight), PARAMETER(ignore_index), PARAMETER(axis)});

#undef LATER_PARAMETERS
#undef COMMON_PARAMETERS
#undef PARAMETER

/// Predictions, labels and the loss, of which none has a default and all may be positional.
constexpr std::size_t kRequired = 3;

template <const auto& parameters, const char* name>
FunctionArguments sorted_arguments(PyObject* const* arguments, Py_ssize_t count,
                                   PyObject* keywords) {
  static auto signature = [] {
    Signature<parameters.size()> made{name, {}, kRequired, kRequired};
    std::ranges::transform(parameters, made.names.begin(), &Parameter::name);
    return made;
  }();
  FunctionArguments call{};
  sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords,
                 [&](std::size_t i) -> PyObject*& { return call.*parameters[i].place; });
  return call;
}

template <const auto& parameters, const char* name, Work work>
PyObject* function(PyObject*, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  return translated([&] {
    return call_function(sorted_arguments<parameters, name>(arguments, count, keywords), work);
  });
}

constexpr char kLossName[] = "loss", kGradientName[] = "loss_gradient",
               kBothName[] = "loss_and_gradient", kHessianName[] = "loss_gradient_and_hessian",
               kDivisorName[] = "reduction_divisor";

PyObject* reduction_divisor(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* keywords) {
  return translated([&] {
    return call_reduction_divisor(
        sorted_arguments<kOfDivisor, kDivisorName>(arguments, count, keywords));
  });
}

#define SHARED_PARAMETERS                                                                     \
  "reduction='mean', weights=None, weight=1.0, label_smoothing=0.0, number_of_classes=None, " \
  "epsilon=1e-07, delta=1.0, "                                                                \
  "reduce_across_batch=True, ignore_index=None, "
#define LATER_PARAMETERS "device=None, axis=-1, sample_weight=None, class_weight=None, divisor=None"
#define ARRAYS_DOC                                                                                \
  "predictions : array [C], [N, C] or [N, ..., C] of float16, bfloat16, float32 or float64 "      \
  "(integers and bools\n"                                                                         \
  "    become float64). bfloat16 is that of ml_dtypes or of a tensor of PyTorch.\n"               \
  "    `axis` holds the feature channels, the first of the others (from rank 2 on) the batch, "   \
  "all else are pixels.\n"                                                                        \
  "labels : array of the shape of predictions; or integers of that shape without `axis`, class "  \
  "indices in [0, C),\n"                                                                          \
  "    for softmax_cross_entropy and categorical_cross_entropy. Those of hinge and log are 0 or " \
  "1, not -1 or 1.\n"                                                                             \
  "    Labels, weights and source gradients that are wider than what is computed with (float32, " \
  "or float64 for\n"                                                                              \
  "    float64 predictions) are rounded to it first: pass float64 predictions where that "        \
  "matters.\n"                                                                                    \
  "loss_type : MPSCNNLossType, its lower-case name or its raw value.\n"                           \
  "reduction : MPSCNNReductionType, its lower-case name or its raw value; or "                    \
  "'mean_by_weights', which divides by\n"                                                         \
  "    the sum of the weights (softmax and categorical: of weights times labels).\n"              \
  "weights : array that broadcasts to predictions. An element of weight 0 contributes exactly "   \
  "0; a weight that\n"                                                                            \
  "    is not 0 never rounds to 0.\n"                                                             \
  "sample_weight, class_weight : arrays [N], or of the shape of predictions without `axis`; and " \
  "[C]. All three\n"                                                                              \
  "    multiply one another.\n"                                                                   \
  "ignore_index : class index whose pixels weigh nothing.\n"                                      \
  "axis : that of the channels; negative ones count from the end.\n"
#define SHARED_DOC                                                                        \
  ARRAYS_DOC                                                                              \
  "weight : finite factor ω of everything.\n"                                             \
  "label_smoothing : s in [0, 1], of the softmax and sigmoid losses alone.\n"             \
  "number_of_classes : K of the softmax smoothing; None means the extent of `axis`.\n"    \
  "epsilon, delta : constants of the log loss (>= 0) and of the Huber loss (> 0).\n"      \
  "reduce_across_batch : reduce over the batch too, instead of per image.\n"              \
  "divisor : finite number in place of the reduction's own divisor (of each image where " \
  "reduce_across_batch is\n"                                                              \
  "    False); 0 gives 0. See reduction_divisor.\n"
#define DEVICE_DOC                                                                \
  "device : Device, its name, 'cpu' or 'metal'; None is the CPU engine, or what " \
  "MPSNN_LOSS_DEVICE names.\n"
#define OUT_DOC                                                                                   \
  "out : destination, aligned and writable, of the shape of predictions and of their dtype (for " \
  "16 bits float32 too),\n"                                                                       \
  "    with any strides that do not overlap themselves. It may be the memory of predictions "     \
  "itself, and shares none\n"                                                                     \
  "    with anything else. The gradient of a mean underflows in float16: take a float32 out, or " \
  "scale it by\n"                                                                                 \
  "    source_gradient.\n"
#define SOURCE_GRADIENT_DOC                                                                      \
  "source_gradient : dL/d(loss), 1 where None: a scalar; or [N] where reduced per image; or an " \
  "array like\n"                                                                                 \
  "    predictions for reduction 'none'.\n"
#define SHARED_ERRORS                                                                         \
  "Raises ValueError for a wrong shape, range or name, TypeError for a wrong type or dtype, " \
  "before anything is\n"                                                                      \
  "written. The formulas are those of the table of losses in the README, after MPSCNNLoss.h.\n"

PyMethodDef methods[] = {
    {kLossName, as_method(function<kOfLoss, kLossName, Work::loss>), METH_FASTCALL | METH_KEYWORDS,
     "loss(predictions, labels, loss_type, *, " SHARED_PARAMETERS "out=None, " LATER_PARAMETERS
     ")\n--\n\n"
     "The loss of predictions against labels (MPSNNForwardLoss in one call).\n\n" SHARED_DOC
     "out : destination, aligned and writable, of exactly the shape and dtype of the "
     "result.\n" DEVICE_DOC
     "\nReturns an array like predictions for reduction 'none', else a NumPy scalar, or an array "
     "[N] where\n"
     "reduce_across_batch is False. Losses of predictions of 16 bits are "
     "float32.\n\n" SHARED_ERRORS},
    {kGradientName, as_method(function<kOfGradient, kGradientName, Work::gradient>),
     METH_FASTCALL | METH_KEYWORDS,
     "loss_gradient(predictions, labels, loss_type, *, " SHARED_PARAMETERS
     "source_gradient=None, wrt='predictions', out=None, " LATER_PARAMETERS ")\n--\n\n"
     "The gradient of the loss (MPSNNLossGradient in one call).\n\n" SHARED_DOC SOURCE_GRADIENT_DOC
     "wrt : 'predictions' or 'labels'.\n" OUT_DOC DEVICE_DOC
     "\nReturns an array of the shape and dtype of predictions.\n\n" SHARED_ERRORS},
    {kBothName, as_method(function<kOfBoth, kBothName, Work::loss_and_gradient>),
     METH_FASTCALL | METH_KEYWORDS,
     "loss_and_gradient(predictions, labels, loss_type, *, " SHARED_PARAMETERS
     "source_gradient=None, wrt='predictions', out=None, loss_out=None, " LATER_PARAMETERS
     ")\n--\n\n"
     "The loss and its gradient in one pass over the data.\n\n" SHARED_DOC SOURCE_GRADIENT_DOC
     "    The returned loss is not multiplied by it.\n"
     "wrt : 'predictions' or 'labels'.\n" OUT_DOC
     "loss_out : destination of the loss, of exactly its shape and dtype.\n" DEVICE_DOC
     "\nReturns (loss, gradient), bit for bit what loss and loss_gradient "
     "return.\n\n" SHARED_ERRORS},
    {kHessianName, as_method(function<kOfHessian, kHessianName, Work::gradient_and_hessian>),
     METH_FASTCALL | METH_KEYWORDS,
     "loss_gradient_and_hessian(predictions, labels, loss_type, *, " SHARED_PARAMETERS
     "source_gradient=None, out=None, " LATER_PARAMETERS ", hessian_out=None)\n--\n\n"
     "The gradient by the predictions and the diagonal of the Hessian, as boosting needs "
     "them.\n\n" SHARED_DOC SOURCE_GRADIENT_DOC OUT_DOC
     "hessian_out : destination of the diagonal, like out; it shares memory with "
     "nothing.\n" DEVICE_DOC "\nReturns (gradient, hessian), both of the shape and dtype of "
     "predictions.\n\n" SHARED_ERRORS},
    {kDivisorName, as_method(reduction_divisor), METH_FASTCALL | METH_KEYWORDS,
     "reduction_divisor(predictions, labels, loss_type, *, reduction='mean', weights=None, "
     "sample_weight=None, class_weight=None, ignore_index=None, axis=-1)\n--\n\n"
     "What a reduction of these arrays over the whole batch divides by. Code that splits a batch "
     "sums what its parts\n"
     "have, and passes the sum as divisor.\n\n" ARRAYS_DOC
     "\nReturns a float. ValueError where the reduction has no divisor.\n\n" SHARED_ERRORS}};

}  // namespace

void register_functions(py::module_& m) {
  for (PyMethodDef& method : methods) add_function(m, method);
}

}  // namespace mpsnn_loss::bindings
