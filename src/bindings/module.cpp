#include "bindings/module.hpp"

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"

namespace {

/// pybind11's own base class aborts the process when it is instantiated, which pickle does with the
/// protocols 0 and 1.
PyObject* new_instance(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
  if (reinterpret_cast<PyObject*>(type) != pybind11::detail::get_internals().instance_base)
    return pybind11::detail::pybind11_object_new(type, arguments, keywords);
  PyErr_Format(PyExc_TypeError, "cannot create '%.200s' instances", type->tp_name);
  return nullptr;
}

void guard_instance_base() {
  auto* const base = pybind11::detail::get_internals().instance_base;
  reinterpret_cast<PyTypeObject*>(base)->tp_new = new_instance;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  using namespace mpsnn_loss::bindings;
  guard_instance_base();
  m.doc() = "The compiled part of mpsnn_loss.";
  m.attr("__version__") = MPSNN_LOSS_VERSION;
  register_errors(m);
  register_enumerations(m);
  register_devices(m);
  register_descriptors(m);
  register_images(m);
  register_command_buffers(m);
  register_kernels(m);
  register_functions(m);
  register_objc_pointers(m);
}
