#include "bindings/definitions.hpp"

#include <algorithm>

#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {

TextSignature read_signature(std::string_view text) {
  TextSignature signature{std::string(text.substr(0, text.find('('))), {}, {}, 0};
  const std::size_t first = signature.function.size() + 1;
  std::string_view rest = text.substr(first, text.find(")\n") - first);
  bool only_by_name = false;
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), one.size() + 2));  // ", "
    if (one == "*") only_by_name = true;
    if (one == "*" || one == "/" || one == "self" || one == "$self") continue;
    const std::size_t end = std::min(one.find('='), one.size());
    signature.names.emplace_back(one.substr(0, end));
    signature.initial.emplace_back(one.substr(std::min(one.size(), end + 1)));
    if (!only_by_name) ++signature.positional;
  }
  return signature;
}

PyObject* make_default(const std::string& initial) {
  return py::module_::import("ast").attr("literal_eval")(initial).release().ptr();
}

KeywordsApart::KeywordsApart(py::handle arguments, py::handle named)
    : given_(static_cast<std::size_t>(PyTuple_GET_SIZE(arguments.ptr()))) {
  PyObject* const* const first = &PyTuple_GET_ITEM(arguments.ptr(), 0);
  values_.assign(first, first + given_);
  if (!named) return;
  py::list names;
  for (const auto& [name, value] : py::reinterpret_borrow<py::dict>(named)) {
    names.append(name);
    values_.push_back(value.ptr());
  }
  names_ = py::tuple(names);
}

std::string constructor_doc(py::handle type, const char* doc) {
  constexpr std::string_view kEnd = ")\n--\n\n";
  const std::string_view of_class = reinterpret_cast<PyTypeObject*>(type.ptr())->tp_doc;
  const std::size_t begin = of_class.find('(') + 1;
  const std::string parameters(of_class.substr(begin, of_class.find(kEnd) - begin));
  return "__init__(self, " + parameters + std::string(kEnd) + doc;
}

void add_function(py::handle scope, PyMethodDef& method) {
  auto function = py::reinterpret_steal<py::object>(
      checked(PyCFunction_NewEx(&method, nullptr, py::str("mpsnn_loss").ptr())));
  if (PyType_Check(scope.ptr()) != 0)
    function = py::reinterpret_steal<py::object>(checked(PyStaticMethod_New(function.ptr())));
  scope.attr(method.ml_name) = function;
}

}  // namespace mpsnn_loss::bindings
