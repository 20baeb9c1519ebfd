// The arguments of a function that are no arrays.
#pragma once

#include "bindings/functions/function_call.hpp"
#include "core/computation.hpp"
#include "core/strided_array.hpp"

namespace mpsnn_loss::bindings {

// Each throws ValueError or TypeError that names the argument.
LossDescriptor read_descriptor(const FunctionArguments& arguments);
Wrt read_wrt(PyObject* wrt);
double to_divisor(PyObject* value);
/// As which predictions of that type are computed with.
Format format_of_predictions(ElementType type);

}  // namespace mpsnn_loss::bindings
