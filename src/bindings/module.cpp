#include "bindings/module.hpp"

#include <vector>

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

bool is_main_interpreter() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return true;
  PyErr_SetString(PyExc_ImportError,
                  "mpsnn_loss works in the main interpreter only, not in a subinterpreter (under "
                  "mod_wsgi, set WSGIApplicationGroup to %{GLOBAL})");
  return false;
}

int refuse_subinterpreters(PyObject* /*module*/) { return is_main_interpreter() ? 0 : -1; }

}  // namespace

// pybind11's entry point, which PyInit__core stands before.
PYBIND11_MODULE(_core_of_pybind11, m) {
  using namespace mpsnn_loss::bindings;
  guard_instance_base();
  pybind11::options options;
  options.disable_function_signatures();  // doc strings begin with their own (definitions.hpp)
  m.doc() = "The compiled part of mpsnn_loss.";
  m.attr("__version__") = MPSNN_LOSS_VERSION;
  register_errors(m);
  register_enumerations(m);
  register_devices(m);
  register_descriptors(m);
  register_images(m);
  register_command_buffers(m);
  register_states(m);
  register_kernels(m);
  register_functions(m);
  register_objc_pointers(m);
}

/// Asks for the main interpreter before pybind11 does anything: in a subinterpreter it would wait
/// for ever. Since 3.13 Python calls this in the main interpreter whoever imports, and only the
/// slots of the module run in the interpreter that does, so the question is the first slot too.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (!is_main_interpreter()) return nullptr;
  auto* const module = reinterpret_cast<PyModuleDef*>(PyInit__core_of_pybind11());
  static std::vector<PyModuleDef_Slot> slots;
  if (module != nullptr && slots.empty()) {
    slots.push_back({Py_mod_exec, reinterpret_cast<void*>(refuse_subinterpreters)});
    for (auto* slot = module->m_slots; slot->slot != 0; ++slot) slots.push_back(*slot);
    slots.push_back({0, nullptr});
    module->m_slots = slots.data();
  }
  return reinterpret_cast<PyObject*>(module);
}
