#include "bindings/definitions.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {

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
