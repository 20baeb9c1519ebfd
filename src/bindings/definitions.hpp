// Functions of the module and static methods, without pybind11: help shows of those of pybind11
// what they are kept in, and that has the name of a C++ ABI.
//
// Python reads what inspect.signature answers off a doc string that begins with
// "name(parameters)\n--\n\n", and help then leaves that line to it. All doc strings of the package
// begin so: those of methods that pybind11 defines with `self`, those of Python's own method
// descriptors with `$self`, those of classes with the parameters of the constructor, and none where
// there is no constructor.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"

namespace mpsnn_loss::bindings {

// Of methods that several classes have, and that need no words.
inline constexpr const char* kReprSignature = "__repr__(self)\n--\n\n";
inline constexpr const char* kEqSignature = "__eq__(self, other, /)\n--\n\n";
inline constexpr const char* kCopySignature = "__copy__(self)\n--\n\n";
inline constexpr const char* kDeepcopySignature = "__deepcopy__(self, memo, /)\n--\n\n";

/// The doc string of __init__, whose parameters that of the class has already.
std::string constructor_doc(pybind11::handle type, const char* doc);

/// Adds a function to the module, or a static method to a class. `method` must live for ever.
void add_function(pybind11::handle scope, PyMethodDef& method);

/// The parameters of a text signature that has neither defaults nor stars, as strings that live for
/// ever, the function's own name before them.
template <std::size_t N>
std::array<const char*, N + 1> names_in(std::string_view text) {
  std::array<const char*, N + 1> names{};
  std::size_t begin = 0;
  for (const char*& name : names) {
    const std::size_t end = text.find_first_of("(,)", begin);
    name = (new std::string(text.substr(begin, end - begin)))->c_str();
    begin = text.find_first_not_of("( ,", end);
  }
  return names;
}

/// A function of Python around `run`, which takes its arguments as handles, all of them required,
/// and returns what pybind11 can cast.
template <auto run>
struct PythonFunction {
  template <class Result, class... Arguments>
  static constexpr std::size_t arity(Result (*)(Arguments...)) {
    return sizeof...(Arguments);
  }
  static constexpr std::size_t kArity = arity(+run);

  static void add(pybind11::handle scope, const std::string& text) {
    const char* const doc = (new std::string(text))->c_str();
    const auto names = names_in<kArity>(text);
    if constexpr (kArity == 0) {
      method = {names[0], without_arguments, METH_NOARGS, doc};
    } else {
      signature = {names[0], {}, kArity, kArity, {}};
      std::copy(names.begin() + 1, names.end(), signature.names.begin());
      method = {names[0], as_method(with_arguments), METH_FASTCALL | METH_KEYWORDS, doc};
    }
    add_function(scope, method);
  }

 private:
  template <class Result>
  static PyObject* to_python(Result result) {
    if constexpr (std::is_base_of_v<pybind11::object, Result>)
      return result.release().ptr();
    else
      return pybind11::cast(std::move(result)).release().ptr();
  }
  static PyObject* with_arguments(PyObject*, PyObject* const* arguments, Py_ssize_t count,
                                  PyObject* keywords) {
    return translated([&] {
      const auto sorted =
          sort_arguments(signature, arguments, static_cast<std::size_t>(count), keywords);
      return std::apply([](auto... a) { return to_python(run(pybind11::handle(a)...)); }, sorted);
    });
  }
  static PyObject* without_arguments(PyObject*, PyObject*) {
    return translated([] { return to_python(run()); });
  }

  static inline Signature<kArity> signature{};
  static inline PyMethodDef method{};
};

/// The same as one call; `doc` begins with the text signature.
template <auto run>
void add_function(pybind11::handle scope, const std::string& doc) {
  PythonFunction<run>::add(scope, doc);
}

}  // namespace mpsnn_loss::bindings
