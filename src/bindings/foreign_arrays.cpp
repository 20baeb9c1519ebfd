#include "bindings/foreign_arrays.hpp"

#include <optional>

#include "bindings/arguments.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

constexpr int kDeepest = 64;  // NumPy has no more axes, and refuses deeper lists itself

bool is_text(py::handle value) {
  return PyUnicode_Check(value.ptr()) != 0 || PyBytes_Check(value.ptr()) != 0;
}

bool is_plain_number(py::handle value) {
  return PyFloat_CheckExact(value.ptr()) != 0 || PyLong_CheckExact(value.ptr()) != 0 ||
         PyBool_Check(value.ptr()) != 0;
}

bool is_list_or_tuple(py::handle value) {
  return PyList_Check(value.ptr()) != 0 || PyTuple_Check(value.ptr()) != 0;
}

py::array as_any_array(py::handle value) {
  const auto& convert =
      made_once<[] { return py::object(py::module_::import("numpy").attr("asanyarray")); }>();
  return py::reinterpret_steal<py::array>(checked(PyObject_CallOneArg(convert.ptr(), value.ptr())));
}

py::object without_hidden_items(const char* name, py::handle value, int depth);

/// The items one by one, converted where they are arrays in their own right. Gives the sequence
/// itself where it holds nothing but numbers and lists of them.
py::object items_without_hidden(const char* name, py::handle value, int depth) {
  const auto items = py::reinterpret_steal<py::list>(checked(PySequence_List(value.ptr())));
  bool changed = !is_list_or_tuple(value);
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.ptr()); ++i) {
    const auto item = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(items.ptr(), i));
    if (is_plain_number(item)) continue;
    const py::object plain = without_hidden_items(name, item, depth + 1);
    changed = changed || !plain.is(item);
    PyList_SetItem(items.ptr(), i, py::object(plain).release().ptr());
  }
  return changed ? py::object(items) : py::reinterpret_borrow<py::object>(value);
}

py::object without_hidden_items(const char* name, py::handle value, int depth) {
  const auto self = py::reinterpret_borrow<py::object>(value);
  if (is_plain_number(value) || is_text(value) || depth > kDeepest) return self;
  if (is_list_or_tuple(value)) return items_without_hidden(name, value, depth);
  if (gives_an_array(value)) {
    refuse_hidden(name, value);
    py::object array = as_any_array(value);
    refuse_hidden(name, array);
    return array;
  }
  if (PySequence_Check(value.ptr()) != 0 && PyDict_Check(value.ptr()) == 0 &&
      PyRange_Check(value.ptr()) == 0) {
    return items_without_hidden(name, value, depth);
  }
  refuse_hidden(name, value);
  return self;
}

/// The attribute; of objects that are no arrays only where their class has it, as some look up
/// names of their data.
py::object declared_attribute(py::handle value, const char* name) {
  const auto type =
      py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())));
  if (!is_numpy_array(value) && !find_attribute(type, name)) return {};
  return find_attribute(value, name);
}

bool is_unit(const py::object& value) {
  return value && !value.is_none() && PyUnicode_Check(value.ptr()) == 0 &&
         PyCallable_Check(value.ptr()) == 0;
}

}  // namespace

bool gives_an_array(py::handle value) {
  if (is_numpy_array(value) || PyObject_CheckBuffer(value.ptr()) != 0) return true;
  for (const char* name : {"__array__", "__array_interface__", "__array_struct__"}) {
    if (find_attribute(value, name)) return true;
  }
  return false;
}

void refuse_hidden(const char* name, py::handle value) {
  if (Py_TYPE(value.ptr()) == ndarray() || is_plain_number(value) || is_numpy_scalar(value)) return;
  if (is_numpy_array(value)) {
    const py::object mask = find_attribute(value, "mask");
    if (mask && !mask.is_none())
      throw TypeError(refusal(name, "be an array without a mask", describe(value)));
  }
  for (const char* const attribute : {"unit", "units"}) {
    if (is_unit(declared_attribute(value, attribute)))
      throw TypeError(refusal(name, "be an array without units", describe(value)));
  }
}

py::array to_numpy(const char* name, py::handle value) {
  const py::object plain = without_hidden_items(name, value, 0);
  try {
    return as_any_array(plain);
  } catch (py::error_already_set& error) {
    const bool is_value_error = error.matches(PyExc_ValueError);
    if (!is_list_or_tuple(plain) || !(is_value_error || error.matches(PyExc_TypeError))) throw;
    const std::string why =
        refusal(name, "be an array", describe(value) + ": " + to_text(py::str(error.value())));
    py::raise_from(error, is_value_error ? PyExc_ValueError : PyExc_TypeError, why.c_str());
    throw py::error_already_set();
  }
}

}  // namespace mpsnn_loss::bindings
