// One call of one of the functions on arrays: from arguments to what it returns.
#pragma once

#include <pybind11/pybind11.h>

#include "core/computation.hpp"

namespace mpsnn_loss::bindings {

/// The arguments of the functions; each takes a part of them. Null where absent.
struct FunctionArguments {
  PyObject *predictions, *labels, *loss_type, *reduction, *weights, *weight, *label_smoothing,
      *number_of_classes, *epsilon, *delta, *reduce_across_batch, *ignore_index, *source_gradient,
      *wrt, *out, *loss_out, *hessian_out, *device, *axis, *sample_weight, *class_weight, *divisor;
};

/// What the function returns, as a new reference. Throws.
PyObject* call_function(const FunctionArguments& arguments, Work work);
/// The divisor that the reduction of such a call has, over the whole batch.
PyObject* call_reduction_divisor(const FunctionArguments& arguments);

}  // namespace mpsnn_loss::bindings
