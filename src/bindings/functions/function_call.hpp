// One call of loss, loss_gradient or loss_and_gradient: from arguments to an array.
#pragma once

#include <pybind11/pybind11.h>

#include "core/computation.hpp"

namespace mpsnn_loss::bindings {

/// The arguments of the three functions; each takes a part of them. Null where
/// absent.
struct FunctionArguments {
  PyObject *predictions, *labels, *loss_type, *reduction, *weights, *weight, *label_smoothing,
      *number_of_classes;
  PyObject *epsilon, *delta, *reduce_across_batch, *ignore_index, *source_gradient, *wrt, *out,
      *loss_out, *device;
};

/// What the function returns, as a new reference. Throws.
PyObject* call_function(const FunctionArguments& arguments, Work work);

}  // namespace mpsnn_loss::bindings
