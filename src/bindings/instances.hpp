// Objects that cls.__new__(cls) made without contents: pybind11 would give them uninitialised
// memory at their first use.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>

namespace mpsnn_loss::bindings {

/// A size of its own, by which Python sees that no instance may be turned into one of another
/// class, whose contents would be taken for what they are not (`image.__class__ = Device`).
inline void set_apart(PyHeapTypeObject* heap) {
  heap->ht_type.tp_basicsize =
      heap->ht_type.tp_base->tp_basicsize + static_cast<Py_ssize_t>(sizeof(void*));
}

/// For classes without a constructor: __new__ itself is refused.
inline PyObject* refuse_new(PyTypeObject* type, PyObject*, PyObject*) {
  PyErr_Format(PyExc_TypeError, "cannot create '%.200s' instances directly", type->tp_name);
  return nullptr;
}
inline void refuse_new_instances(PyHeapTypeObject* heap) {
  set_apart(heap);
  heap->ht_type.tp_new = refuse_new;
}

/// The C++ object of an instance that is known to have type T, without pybind11's look-up where it
/// holds but one; null where it has no contents.
template <class T>
T* contents(PyObject* self) {
  auto* const instance = reinterpret_cast<pybind11::detail::instance*>(self);
  if (instance->simple_layout) return static_cast<T*>(instance->simple_value_holder[0]);
  if (instance->nonsimple.values_and_holders == nullptr) return nullptr;
  return instance->get_value_and_holder(pybind11::detail::get_type_info(typeid(T)))
      .template value_ptr<T>();
}

/// For classes with a constructor: every use before __init__ is a TypeError.
inline void refuse_empty_instances(pybind11::handle type) {
  auto* const info = pybind11::detail::get_type_info(reinterpret_cast<PyTypeObject*>(type.ptr()));
  info->operator_new = [](std::size_t) -> void* {
    throw pybind11::type_error(
        "the object must be made by calling its class: __init__ did not run");
  };
}

}  // namespace mpsnn_loss::bindings
