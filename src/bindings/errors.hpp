// From C++ exceptions to Python's.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

namespace mpsnn_loss::bindings {

/// Creates mpsnn_loss.DeviceError and makes pybind11 translate the errors of core/error.hpp.
void register_errors(pybind11::module_& m);

/// Sets the Python error for the exception being handled: for functions that pybind11 does not
/// wrap.
void set_python_error();

/// Calls `run` where C++ exceptions must become Python errors.
template <class Run>
PyObject* translated(Run run) {
  try {
    return run();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

/// The Python exception object for an error of a command buffer, or None.
pybind11::object python_exception(const std::exception_ptr& error);

}  // namespace mpsnn_loss::bindings
