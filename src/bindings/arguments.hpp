// Reading Python arguments: enumerations by member, name or raw value, numbers, devices, keywords.
#pragma once

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "bindings/instances.hpp"
#include "core/error.hpp"
#include "core/loss_descriptor.hpp"
#include "core/loss_type.hpp"
#include "core/shape.hpp"
#include "objects/device.hpp"
#include "objects/enumerations.hpp"

namespace mpsnn_loss::bindings {

template <class T>
inline constexpr bool kIsInterface =
    std::is_same_v<T, Device> || std::is_same_v<T, Queue> || std::is_same_v<T, CommandBuffer> ||
    std::is_same_v<T, ImageBatch> || std::is_same_v<T, State>;

/// Whether an optional argument has a value.
inline bool given(pybind11::handle argument) {
  return argument.ptr() != nullptr && !argument.is_none();
}

/// As Python writes it.
std::string number_text(double value);

/// "'abc'", "7", "None", and "an array of shape (2, 3)" for arrays: how a refused value reads.
std::string describe(pybind11::handle value);
/// The name of its type, without that of the module.
std::string type_name(pybind11::handle value);
/// A string of Python as UTF-8; lone surrogates as escapes.
std::string to_text(pybind11::handle string);

/// What `make` returns, made at the first need; `make` may run Python. A static of C++ must not: it
/// would be locked while Python gives the GIL away, and a thread that has the GIL would wait for it
/// for ever.
template <auto make>
const auto& made_once() {
  PYBIND11_CONSTINIT static pybind11::gil_safe_call_once_and_store<decltype(make())> made;
  return made.call_once_and_store_result(make).get_stored();
}

/// Throws the Python error that is set where there is no result.
PyObject* checked(PyObject* result);
/// value.name, or null where there is none. Whatever else that raises is thrown.
pybind11::object find_attribute(pybind11::handle value, const char* name);
// Of NumPy, subclasses included.
PyTypeObject* ndarray();
bool is_numpy_array(pybind11::handle value);
bool is_numpy_scalar(pybind11::handle value);
bool is_numpy_dtype(pybind11::handle value);

/// The enumerations of the package, made from their tables.
void register_enumerations(pybind11::module_& m);
pybind11::object member(LossType type);
pybind11::object member(ReductionType type);
pybind11::object member(CommandBufferStatus status);
pybind11::object member(const Enumeration& rows, std::uint64_t value);

// Each throws TypeError or ValueError naming the argument.
LossType to_loss_type(const char* name, pybind11::handle value);
/// Losses that Apple does not have too, by their names.
LossType to_any_loss_type(const char* name, pybind11::handle value);
ReductionType to_reduction_type(const char* name, pybind11::handle value);
/// Reductions that Apple does not have too, by their names.
ReductionType to_any_reduction_type(const char* name, pybind11::handle value);
Format to_format(const char* name, pybind11::handle value);
/// The raw value, from a member, an integer or a lower-case name. Members of other enumerations are
/// a TypeError.
std::uint64_t to_member_value(const Enumeration& rows, const char* name, pybind11::handle value);
/// A number of Python or NumPy, an array of rank 0, or an object that is a number and no array.
bool is_scalar(pybind11::handle value);
double to_real(const char* name, pybind11::handle value);
/// A value that a parameter of losses may have.
inline double to_parameter(const LossParameterInfo& parameter, pybind11::handle value) {
  const double real = to_real(parameter.name, value);
  parameter.check(real);
  return real;
}
std::int64_t to_integer(const char* name, pybind11::handle value);
std::uint64_t to_unsigned(const char* name, pybind11::handle value);
bool to_bool(const char* name, pybind11::handle value);
/// Calls f(item, name of the item, as in "labels[2]") for each item of a sequence that is no text
/// and no array, as far as f does not throw. `expectation` completes "must be ...".
template <class F>
void for_each_item(const char* name, const char* expectation, pybind11::handle value, F f) {
  if (PySequence_Check(value.ptr()) == 0 || PyUnicode_Check(value.ptr()) != 0 ||
      PyObject_CheckBuffer(value.ptr()) != 0) {
    throw TypeError(refusal(name, std::string("be ") + expectation, describe(value)));
  }
  std::size_t i = 0;
  for (const pybind11::handle item : pybind11::iter(value))
    f(item, std::string(name) + "[" + std::to_string(i++) + "]");
}
/// Bytes of another object, which cannot change while this lives.
class HeldBytes {
 public:
  /// TypeError unless `value` has a buffer, ValueError unless that is C-contiguous.
  HeldBytes(const char* name, pybind11::handle value);
  HeldBytes(const HeldBytes&) = delete;
  HeldBytes& operator=(const HeldBytes&) = delete;
  ~HeldBytes() { PyBuffer_Release(&buffer_); }
  std::string_view get() const {
    return {static_cast<const char*>(buffer_.buf), static_cast<std::size_t>(buffer_.len)};
  }

 private:
  Py_buffer buffer_{};
};

/// A label: a string, or None for none.
std::optional<std::string> to_label(pybind11::handle value);
std::shared_ptr<Device> to_device(const char* name, pybind11::handle value);
/// The same from a kind or a name too.
std::shared_ptr<Device> to_named_device(const char* name, pybind11::handle value);
/// "; did you mean 'mean'?" for a string that is close to one of these, else nothing.
std::string suggestion(pybind11::handle given, std::span<const std::string_view> names);

/// pybind11::isinstance of a class of the package, without its look-up.
template <class T>
bool is_instance(pybind11::handle value) {
  static auto* const type =
      reinterpret_cast<PyTypeObject*>(pybind11::detail::get_type_handle(typeid(T), true).ptr());
  return Py_TYPE(value.ptr()) == type || PyType_IsSubtype(Py_TYPE(value.ptr()), type) != 0;
}

/// The C++ object inside `value`; `expectation` completes "must be ...".
template <class T>
T& to_object(const char* name, const char* expectation, pybind11::handle value) {
  if (!is_instance<T>(value))
    throw TypeError(refusal(name, std::string("be ") + expectation, describe(value)));
  if (T* const object = contents<T>(value.ptr())) return *object;
  return pybind11::cast<T&>(value);  // refuses what has no contents
}

/// A function with the fast calling convention, as a PyMethodDef keeps it.
using FastFunction = PyObject* (*)(PyObject* self, PyObject* const* arguments, Py_ssize_t given,
                                   PyObject* keywords);
inline PyCFunction as_method(FastFunction function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

/// Adds a method to a class of the package. `method` must live for ever.
void add_method(pybind11::handle type, PyMethodDef& method);

/// The arguments of a function with the fast calling convention, and which of them a call gave.
template <std::size_t N>
struct Signature {
  const char* function;
  std::array<const char*, N> names;
  std::size_t required;                 // the first so many must be given
  std::size_t positional;               // the first so many may be positional
  std::array<PyObject*, N> interned{};  // the names as Python strings, made at the first call

  /// Which parameter that is; N for none.
  std::size_t find(PyObject* keyword) {
    if (interned[0] == nullptr)
      std::ranges::transform(names, interned.begin(), PyUnicode_InternFromString);
    auto found = std::ranges::find(interned, keyword);
    if (found == interned.end()) {  // not the interned string itself
      found = std::ranges::find_if(
          interned, [&](PyObject* own) { return PyUnicode_Compare(own, keyword) == 0; });
    }
    return static_cast<std::size_t>(found - interned.begin());
  }
};

/// Throws a TypeError worded as Python's own.
[[noreturn]] void refuse_missing(const char* function, const char* parameter);

/// Puts the arguments of one call where they belong, as borrowed references: that of parameter i
/// into slot(i), which is null where it is absent. Throws TypeErrors worded as Python's own.
template <std::size_t N, class Slot>
void sort_arguments(Signature<N>& signature, PyObject* const* arguments, std::size_t given,
                    PyObject* keywords, Slot slot) {
  const auto refuse = [&](const std::string& why) {
    throw TypeError(std::string(signature.function) + "() " + why);
  };
  if (given > signature.positional) {
    refuse("takes at most " + std::to_string(signature.positional) + " positional argument" +
           (signature.positional == 1 ? "" : "s") + ", got " + std::to_string(given));
  }
  for (std::size_t i = 0; i < given; ++i) slot(i) = arguments[i];
  const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* const keyword = PyTuple_GET_ITEM(keywords, k);
    const std::size_t i = signature.find(keyword);
    if (i == N) {
      const std::vector<std::string_view> names(signature.names.begin(), signature.names.end());
      refuse("got an unexpected keyword argument " + describe(keyword) +
             suggestion(keyword, names));
    }
    if (slot(i) != nullptr)
      refuse(std::string("got multiple values for argument '") + signature.names[i] + "'");
    slot(i) = arguments[given + static_cast<std::size_t>(k)];
  }
  for (std::size_t i = 0; i < signature.required; ++i) {
    if (slot(i) == nullptr) refuse_missing(signature.function, signature.names[i]);
  }
}

/// The same into an array of them all.
template <std::size_t N>
std::array<PyObject*, N> sort_arguments(Signature<N>& signature, PyObject* const* arguments,
                                        std::size_t given, PyObject* keywords) {
  std::array<PyObject*, N> sorted{};
  sort_arguments(signature, arguments, given, keywords,
                 [&](std::size_t i) -> PyObject*& { return sorted[i]; });
  return sorted;
}

}  // namespace mpsnn_loss::bindings

namespace pybind11 {

/// Python knows these by their interfaces: no class of a device is looked for behind them.
template <class T>
struct polymorphic_type_hook<T, std::enable_if_t<mpsnn_loss::bindings::kIsInterface<T>>> {
  static const void* get(const T* object, const std::type_info*&) { return object; }
};

}  // namespace pybind11
