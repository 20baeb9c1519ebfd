// The functions on arrays, and their help.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "bindings/arguments.hpp"
#include "bindings/definitions.hpp"
#include "bindings/errors.hpp"
#include "bindings/functions/function_call.hpp"
#include "bindings/functions/parameters.hpp"
#include "bindings/module.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

struct FunctionHelp {
  const char *name, *summary, *returns;
};

constexpr FunctionHelp help_of(Function function) {
  switch (function) {
    case kLoss:
      return {
          "loss", "The loss of predictions against labels (MPSNNForwardLoss in one call).",
          R"(an array like predictions for reduction 'none', else a NumPy scalar, or an array [N] where
reduce_across_batch is False. Losses of predictions of 16 bits are float32.)"};
    case kGradient:
      return {"loss_gradient", "The gradient of the loss (MPSNNLossGradient in one call).",
              "an array of the shape and dtype of predictions."};
    case kBoth:
      return {"loss_and_gradient", "The loss and its gradient in one pass over the data.",
              "(loss, gradient), bit for bit what loss and loss_gradient return."};
    case kHessian:
      return {"loss_gradient_and_hessian",
              "The gradient by the predictions and the diagonal of the Hessian, as boosting needs "
              "them.",
              "(gradient, hessian), both of the shape and dtype of predictions."};
    default:
      return {
          "reduction_divisor",
          R"(What a reduction of these arrays over the whole batch divides by. Code that splits a batch sums what its
parts have, and passes the sum as divisor.)",
          "a float. ValueError where the reduction has no divisor."};
  }
}

template <Function function>
FunctionArguments sorted_arguments(PyObject* const* arguments, Py_ssize_t count,
                                   PyObject* keywords) {
  static constexpr auto& parameters = kTaken<function>;
  static auto signature = [] {
    const auto required = static_cast<std::size_t>(
        std::ranges::count(parameters, static_cast<const char*>(nullptr), &Parameter::initial));
    Signature<parameters.size()> made{help_of(function).name, {}, required, required};
    std::ranges::transform(parameters, made.names.begin(), &Parameter::name);
    return made;
  }();
  FunctionArguments call{};
  sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords,
                 [&](std::size_t i) -> PyObject*& { return call.*parameters[i].place; });
  return call;
}

template <Function function, Work work>
PyObject* compute_function(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                           PyObject* keywords) {
  return translated(
      [&] { return call_function(sorted_arguments<function>(arguments, count, keywords), work); });
}

PyObject* reduction_divisor(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* keywords) {
  return translated([&] {
    return call_reduction_divisor(sorted_arguments<kDivisor>(arguments, count, keywords));
  });
}

/// The signature as inspect reads it, and what help says.
template <Function function>
std::string docstring() {
  const FunctionHelp about = help_of(function);
  std::string signature, parameters;
  for (const Parameter& p : kTaken<function>) {
    const bool is_first_keyword = p.initial != nullptr && signature.find('*') == std::string::npos;
    signature += signature.empty() ? "" : is_first_keyword ? ", *, " : ", ";
    signature += p.name + (p.initial == nullptr ? "" : std::string("=") + p.initial);
    parameters += p.help;
  }
  return about.name + ("(" + signature) + ")\n--\n\n" + about.summary + "\n" + parameters +
         "\n\nReturns " + about.returns + R"(

Raises ValueError for a wrong shape, range or name, TypeError for a wrong type or dtype, before anything is
written. The formulas are those of docs/contract.md, sections 3 to 5, after MPSCNNLoss.h.
)";
}

template <Function function>
void add(py::module_& m, FastFunction call) {
  static const std::string help = docstring<function>();
  static PyMethodDef method{help_of(function).name, as_method(call), METH_FASTCALL | METH_KEYWORDS,
                            help.c_str()};
  add_function(m, method);
}

}  // namespace

void register_functions(py::module_& m) {
  add<kLoss>(m, compute_function<kLoss, Work::loss>);
  add<kGradient>(m, compute_function<kGradient, Work::gradient>);
  add<kBoth>(m, compute_function<kBoth, Work::loss_and_gradient>);
  add<kHessian>(m, compute_function<kHessian, Work::gradient_and_hessian>);
  add<kDivisor>(m, reduction_divisor);
}

}  // namespace mpsnn_loss::bindings
