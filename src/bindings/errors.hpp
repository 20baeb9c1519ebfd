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

/// The Python exception object for an error of a command buffer, or None.
pybind11::object python_exception(const std::exception_ptr& error);

/// The GIL-safe way to hold a Python object in something that C++ may destroy on any thread.
std::shared_ptr<void> hold(pybind11::object object);

/// From set_exiting on, other threads must not call into the interpreter any more.
bool is_exiting();
void set_exiting();

}  // namespace mpsnn_loss::bindings
