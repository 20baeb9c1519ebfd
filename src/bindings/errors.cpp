#include "bindings/errors.hpp"

#include <new>

#include "bindings/gil.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

PyObject* device_error = nullptr;

/// Sets the Python error where `error` is one of ours.
bool set_own_error(const std::exception_ptr& error) {
  const auto set = [](PyObject* type, const std::exception& e) {
    PyErr_SetString(type, e.what());
    return true;
  };
  try {
    std::rethrow_exception(error);
  } catch (const ValueError& e) {
    return set(PyExc_ValueError, e);
  } catch (const TypeError& e) {
    return set(PyExc_TypeError, e);
  } catch (const DeviceError& e) {
    return set(device_error, e);
  } catch (const StateError& e) {
    return set(PyExc_RuntimeError, e);
  } catch (const MemoryError& e) {
    return set(PyExc_MemoryError, e);
  } catch (const TimeoutError& e) {
    return set(PyExc_TimeoutError, e);
  } catch (...) {
    return false;
  }
}

}  // namespace

void register_errors(py::module_& m) {
  constexpr const char* kDoc =
      R"(Work that was committed failed on its device.

Raised by CommandBuffer.wait_until_completed and by reading results of that buffer; CommandBuffer.error keeps it.)";
  const std::string with_signature = std::string("DeviceError(*args)\n--\n\n") + kDoc;
  device_error = PyErr_NewExceptionWithDoc("mpsnn_loss.DeviceError", with_signature.c_str(),
                                           PyExc_RuntimeError, nullptr);
  // A class that is made like one in Python keeps the signature in what help shows, too.
  py::handle(device_error).attr("__doc__") = kDoc;
  m.attr("DeviceError") = py::handle(device_error);
  py::register_exception_translator([](std::exception_ptr error) {
    if (!set_own_error(error)) std::rethrow_exception(error);
  });
}

void set_python_error() {
  sleep_if_thread_ends();
  if (set_own_error(std::current_exception())) return;
  try {
    throw;
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const py::builtin_exception& e) {
    e.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
}

py::object python_exception(const std::exception_ptr& error) {
  if (!error) return py::none();
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return py::reinterpret_borrow<py::object>(device_error)(e.what());
  }
}

}  // namespace mpsnn_loss::bindings
