// Functions of the module, methods and constructors, by their text signatures: pybind11 would
// answer a wrong call with C++ types, and help would show what it keeps functions in.
//
// A text signature is what inspect.signature reads off a doc string that begins with
// "name(parameters)\n--\n\n", and what help shows. All doc strings of the package begin so: those
// of methods that pybind11 defines with `self`, those of Python's own method descriptors with
// `$self`, those of classes with the parameters of the constructor, and none where there is no
// constructor.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"

namespace mpsnn_loss::bindings {

// Of methods that several classes have, and that need no words.
inline constexpr const char* kReprSignature = "__repr__(self)\n--\n\n";
inline constexpr const char* kEqSignature = "__eq__(self, other, /)\n--\n\n";
inline constexpr const char* kCopySignature = "__copy__(self)\n--\n\n";
inline constexpr const char* kDeepcopySignature = "__deepcopy__(self, memo, /)\n--\n\n";

/// The arguments of a call as the fast calling convention has them: values in a row, those of
/// keywords last.
class KeywordsApart {
 public:
  /// Of a tuple and a dictionary, which may be null.
  KeywordsApart(pybind11::handle arguments, pybind11::handle named);
  PyObject* const* values() const { return values_.data(); }
  /// How many are positional.
  std::size_t given() const { return given_; }
  PyObject* names() const { return names_.ptr(); }

 private:
  std::vector<PyObject*> values_;
  std::size_t given_;
  pybind11::object names_;
};

/// The doc string of __init__, whose parameters that of the class has already.
std::string constructor_doc(pybind11::handle type, const char* doc);

/// Adds a function to the module, or a static method to a class. `method` must live for ever.
void add_function(pybind11::handle scope, PyMethodDef& method);

/// What a text signature lists, "name(self, a, b=None, *, c=1)", without `self`.
struct TextSignature {
  std::string function;
  std::vector<std::string> names, initial;  // a default as Python writes it; empty: none
  std::size_t positional;                   // the first so many may be positional
};
TextSignature read_signature(std::string_view text);
/// The object that a default is.
PyObject* make_default(const std::string& initial);

/// The parameters of a text signature, of which there are N, and their defaults. Lives for ever.
template <std::size_t N>
class Parameters {
 public:
  void read(std::string_view text) {
    const auto& own = *new TextSignature(read_signature(text));
    signature_ = {own.function.c_str(), {}, 0, own.positional, {}};
    for (std::size_t i = 0; i < N; ++i) {
      signature_.names[i] = own.names.at(i).c_str();
      defaults_[i] = own.initial[i].empty() ? nullptr : make_default(own.initial[i]);
    }
  }
  const char* function() const { return signature_.function; }
  /// The arguments of one call, in the order of the parameters.
  std::array<PyObject*, N> sort(PyObject* const* arguments, std::size_t given, PyObject* keywords) {
    auto sorted = sort_arguments(signature_, arguments, given, keywords);
    for (std::size_t i = 0; i < N; ++i) {
      if (sorted[i] == nullptr) sorted[i] = defaults_[i];
      if (sorted[i] == nullptr) refuse_missing(signature_.function, signature_.names[i]);
    }
    return sorted;
  }

 private:
  Signature<N> signature_{};
  std::array<PyObject*, N> defaults_{};
};

/// How many arguments a function takes, and the first of them.
template <class Function>
struct Taken;
template <class Result, class... Arguments>
struct Taken<Result (*)(Arguments...)> {
  static constexpr std::size_t count = sizeof...(Arguments);
};
template <class Result, class Self, class... Arguments>
struct Taken<Result (*)(Self, Arguments...)> {
  using First = Self;
  static constexpr std::size_t count = 1 + sizeof...(Arguments);
};

/// What a call returns, as an object of Python; None for nothing.
template <class Call>
PyObject* to_python(Call call) {
  using Result = decltype(call());
  if constexpr (std::is_void_v<Result>)
    return call(), pybind11::none().release().ptr();
  else if constexpr (std::is_base_of_v<pybind11::object, Result>)
    return call().release().ptr();
  else
    return pybind11::cast(call()).release().ptr();
}

/// A function of Python around `run`, which takes its arguments as handles and returns what
/// pybind11 can cast; of a method (`kIsMethod`), with its object before them.
template <auto run, bool kIsMethod>
struct PythonFunction {
  static constexpr std::size_t kArity = Taken<decltype(+run)>::count - (kIsMethod ? 1 : 0);

  static PyMethodDef& define(const std::string& text) {
    parameters.read(text);
    const char* const doc = (new std::string(text))->c_str();
    method = {parameters.function(), as_method(call), METH_FASTCALL | METH_KEYWORDS, doc};
    return method;
  }

 private:
  static PyObject* call(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                        PyObject* keywords) {
    return translated([&] {
      const auto sorted = parameters.sort(arguments, static_cast<std::size_t>(count), keywords);
      return std::apply(
          [&](auto... a) {
            if constexpr (kIsMethod) {
              using Self = typename Taken<decltype(+run)>::First;
              pybind11::detail::make_caster<Self> object;
              object.load(self, false);  // Python has seen to the type
              return to_python([&] {
                return run(pybind11::detail::cast_op<Self>(object), pybind11::handle(a)...);
              });
            } else {
              return to_python([&] { return run(pybind11::handle(a)...); });
            }
          },
          sorted);
    });
  }

  static inline Parameters<kArity> parameters;
  static inline PyMethodDef method{};
};

/// Adds such a function to a module or, as a static method, to a class; `doc` begins with the text
/// signature.
template <auto run>
void add_function(pybind11::handle scope, const std::string& doc) {
  add_function(scope, PythonFunction<run, false>::define(doc));
}
/// Adds such a method to a class.
template <auto run>
void add_method(pybind11::handle type, const std::string& doc) {
  add_method(type, PythonFunction<run, true>::define(doc));
}

/// Adds the constructor, whose parameters are those of the text signature of the class: `make`
/// takes them as handles and returns the object.
template <auto make, class Class>
void add_constructor(Class& type, const char* doc) {
  static Parameters<Taken<decltype(+make)>::count> parameters;
  parameters.read(reinterpret_cast<PyTypeObject*>(type.ptr())->tp_doc);
  type.def(pybind11::init([](const pybind11::args& arguments, const pybind11::kwargs& named) {
             const KeywordsApart call(arguments, named);
             const auto sorted = parameters.sort(call.values(), call.given(), call.names());
             return std::apply([](auto... a) { return make(pybind11::handle(a)...); }, sorted);
           }),
           constructor_doc(type, doc).c_str());
}

}  // namespace mpsnn_loss::bindings
