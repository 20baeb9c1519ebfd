// The functions on arrays: their arguments and their help.
#include <pybind11/pybind11.h>

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"
#include "bindings/functions/function_call.hpp"
#include "bindings/module.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

PyObject* loss(PyObject*, PyObject* const* arguments, Py_ssize_t count, PyObject* keywords) {
  static Signature<14> signature{"loss",
                                 {"predictions", "labels", "loss_type", "reduction", "weights",
                                  "weight", "label_smoothing", "number_of_classes", "epsilon",
                                  "delta", "reduce_across_batch", "ignore_index", "out", "device"},
                                 3,
                                 3};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    return call_function({a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                          nullptr, nullptr, a[12], nullptr, a[13]},
                         Work::loss);
  });
}

PyObject* loss_gradient(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                        PyObject* keywords) {
  static Signature<16> signature{
      "loss_gradient",
      {"predictions", "labels", "loss_type", "reduction", "weights", "weight", "label_smoothing",
       "number_of_classes", "epsilon", "delta", "reduce_across_batch", "ignore_index",
       "source_gradient", "wrt", "out", "device"},
      3,
      3};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    return call_function({a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                          a[12], a[13], a[14], nullptr, a[15]},
                         Work::gradient);
  });
}

PyObject* loss_and_gradient(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* keywords) {
  static Signature<17> signature{
      "loss_and_gradient",
      {"predictions", "labels", "loss_type", "reduction", "weights", "weight", "label_smoothing",
       "number_of_classes", "epsilon", "delta", "reduce_across_batch", "ignore_index",
       "source_gradient", "wrt", "out", "loss_out", "device"},
      3,
      3};
  return translated([&] {
    const auto a = sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
    return call_function({a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                          a[12], a[13], a[14], a[15], a[16]},
                         Work::loss_and_gradient);
  });
}

#define SHARED_PARAMETERS                                                                     \
  "reduction='mean', weights=None, weight=1.0, label_smoothing=0.0, number_of_classes=None, " \
  "epsilon=1e-07, delta=1.0, "                                                                \
  "reduce_across_batch=True, ignore_index=None, "
#define SHARED_DOC                                                                                \
  "predictions : array [C], [N, C] or [N, ..., C] of float16, float32 or float64 (integers and "  \
  "bools become float64).\n"                                                                      \
  "    The last axis is the feature channels, the first (from rank 2 on) the batch, all between " \
  "are pixels.\n"                                                                                 \
  "labels : array of the shape of predictions; or integers of shape predictions.shape[:-1], "     \
  "class indices in [0, C),\n"                                                                    \
  "    for softmax_cross_entropy and categorical_cross_entropy. Those of hinge and log are 0 or " \
  "1, not -1 or 1.\n"                                                                             \
  "    Labels, weights and source gradients that are wider than what is computed with (float32, " \
  "or float64 for\n"                                                                              \
  "    float64 predictions) are rounded to it first: pass float64 predictions where that "        \
  "matters.\n"                                                                                    \
  "loss_type : MPSCNNLossType, its lower-case name or its raw value.\n"                           \
  "reduction : MPSCNNReductionType, its lower-case name or its raw value.\n"                      \
  "weights : array that broadcasts to predictions. An element of weight 0 contributes exactly "   \
  "0; a weight that\n"                                                                            \
  "    is not 0 never rounds to 0.\n"                                                             \
  "weight : finite factor ω of everything.\n"                                                     \
  "label_smoothing : s in [0, 1], of the softmax and sigmoid losses.\n"                           \
  "number_of_classes : K of the softmax smoothing; None means the size of the last axis.\n"       \
  "epsilon, delta : constants of the log loss (>= 0) and of the Huber loss (> 0).\n"              \
  "reduce_across_batch : reduce over the batch too, instead of per image.\n"                      \
  "ignore_index : class index whose pixels weigh nothing.\n"
#define SHARED_ERRORS                                                                         \
  "Raises ValueError for a wrong shape, range or name, TypeError for a wrong type or dtype, " \
  "before anything is\n"                                                                      \
  "written. The formulas are those of the table of losses in the README, after MPSCNNLoss.h.\n"

PyMethodDef methods[] = {
    {"loss", as_method(loss), METH_FASTCALL | METH_KEYWORDS,
     "loss(predictions, labels, loss_type, *, " SHARED_PARAMETERS "out=None, device=None)\n--\n\n"
     "The loss of predictions against labels (MPSNNForwardLoss in one call).\n\n" SHARED_DOC
     "out : destination, C-contiguous and writable, of exactly the shape and dtype of the result.\n"
     "device : Device; None is the CPU engine, or what MPSNN_LOSS_DEVICE names.\n\n"
     "Returns an array like predictions for reduction 'none', else a NumPy scalar, or an array [N] "
     "where\n"
     "reduce_across_batch is False. Losses of float16 are float32.\n\n" SHARED_ERRORS},
    {"loss_gradient", as_method(loss_gradient), METH_FASTCALL | METH_KEYWORDS,
     "loss_gradient(predictions, labels, loss_type, *, " SHARED_PARAMETERS
     "source_gradient=None, wrt='predictions', out=None, device=None)\n--\n\n"
     "The gradient of the loss (MPSNNLossGradient in one call).\n\n" SHARED_DOC
     "source_gradient : dL/d(loss), 1 where None: a scalar; or [N] where reduced per image; or an "
     "array like\n"
     "    predictions for reduction 'none'.\n"
     "wrt : 'predictions' or 'labels'.\n"
     "out : destination, C-contiguous and writable, of the shape and dtype of predictions.\n"
     "device : Device; None is the CPU engine, or what MPSNN_LOSS_DEVICE names.\n\n"
     "Returns an array of the shape and dtype of predictions.\n\n" SHARED_ERRORS},
    {"loss_and_gradient", as_method(loss_and_gradient), METH_FASTCALL | METH_KEYWORDS,
     "loss_and_gradient(predictions, labels, loss_type, *, " SHARED_PARAMETERS
     "source_gradient=None, wrt='predictions', out=None, loss_out=None, device=None)\n--\n\n"
     "The loss and its gradient in one pass over the data.\n\n" SHARED_DOC
     "source_gradient : dL/d(loss), 1 where None, as for loss_gradient; the returned loss is not "
     "multiplied by it.\n"
     "wrt : 'predictions' or 'labels'.\n"
     "out, loss_out : destinations of the gradient and of the loss.\n"
     "device : Device; None is the CPU engine, or what MPSNN_LOSS_DEVICE names.\n\n"
     "Returns (loss, gradient), bit for bit what loss and loss_gradient return.\n\n" SHARED_ERRORS},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void register_functions(py::module_& m) {
  for (PyMethodDef* method = methods; method->ml_name != nullptr; ++method) {
    PyObject* const function =
        PyCFunction_NewEx(method, nullptr, py::str("mpsnn_loss").release().ptr());
    if (function == nullptr) throw py::error_already_set();
    m.attr(method->ml_name) = py::reinterpret_steal<py::object>(function);
  }
}

}  // namespace mpsnn_loss::bindings
