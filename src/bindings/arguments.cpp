#include "bindings/arguments.hpp"

#include <pybind11/numpy.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "bindings/foreign_arrays.hpp"
#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// An enumeration of Python's enum module, its members, and their names as interned strings.
struct PythonEnumeration {
  const Enumeration* rows;
  py::object type;
  std::vector<PyObject*> members, names;
};

std::vector<PythonEnumeration>& enumerations() {
  static auto& all = *new std::vector<PythonEnumeration>;  // lives as long as the interpreter
  return all;
}

const PythonEnumeration& python(const Enumeration& rows) {
  return *std::ranges::find(enumerations(), &rows, &PythonEnumeration::rows);
}

void add_enumeration(py::module_& m, const Enumeration& rows) {
  PythonEnumeration enumeration{&rows, {}, {}, {}};
  py::list pairs;
  for (const auto& [name, value] : rows.members) {
    PyObject* const interned = PyUnicode_InternFromString(std::string(name).c_str());
    enumeration.names.push_back(interned);
    pairs.append(py::make_tuple(py::handle(interned).attr("upper")(), value));
  }
  enumeration.type = py::module_::import("enum").attr(rows.is_bit_field ? "IntFlag" : "IntEnum")(
      rows.name, pairs, py::arg("module") = "mpsnn_loss");
  enumeration.type.attr("__doc__") = rows.meaning;
  m.attr(rows.name) = enumeration.type;
  for (const EnumerationMember& row : rows.members)
    enumeration.members.push_back(enumeration.type(row.value).release().ptr());
  enumerations().push_back(std::move(enumeration));
}

/// The text of a string, or nothing where it is not ASCII.
std::string_view ascii(py::handle text) {
  if (PyUnicode_IS_ASCII(text.ptr()) == 0) return {};
  return {static_cast<const char*>(PyUnicode_DATA(text.ptr())),
          static_cast<std::size_t>(PyUnicode_GET_LENGTH(text.ptr()))};
}

std::vector<std::string_view> names_of(std::span<const EnumerationMember> members) {
  std::vector<std::string_view> names;
  for (const EnumerationMember& member : members) names.push_back(member.name);
  return names;
}

/// What a message expects of a value of an enumeration, or of a name that functions know too.
std::string expectation(const Enumeration& rows, std::span<const EnumerationMember> members) {
  std::string text = std::string("be a member of ") + rows.name + ", its raw value or one of ";
  for (const EnumerationMember& member : members)
    text += (&member == members.data() ? "'" : ", '") + std::string(member.name) + "'";
  return text;
}

/// The type numpy.<name>, which lives as long as the interpreter.
PyTypeObject* numpy_type(const char* name) {
  const py::object type = py::module_::import("numpy").attr(name);
  return reinterpret_cast<PyTypeObject*>(py::object(type).release().ptr());
}
PyTypeObject* numpy_bool() {
  return made_once<[] { return numpy_type("bool_"); }>();
}

/// 'f', 'i', 'u', 'b' and the like, of what is a NumPy scalar or array.
char kind_of_numpy(py::handle value) {
  if (is_numpy_array(value))
    return py::detail::array_descriptor_proxy(py::detail::array_proxy(value.ptr())->descr)->kind;
  const py::object kind = value.attr("dtype").attr("kind");
  return static_cast<char>(PyUnicode_READ_CHAR(kind.ptr(), 0));
}

/// False for NumPy's arrays that have axes and for its scalars of other kinds than these.
bool is_number_of(const char* kinds, py::handle value) {
  if (!is_numpy_array(value) && !is_numpy_scalar(value)) return true;
  if (is_numpy_array(value) && py::detail::array_proxy(value.ptr())->nd != 0) return false;
  return std::string_view(kinds).find(kind_of_numpy(value)) != std::string_view::npos;
}

/// An integer that is no bool; members of enumerations are integers.
bool is_integer(py::handle value) {
  return PyIndex_Check(value.ptr()) != 0 && PyBool_Check(value.ptr()) == 0 &&
         is_number_of("iu", value);
}

bool is_member_of_another(const PythonEnumeration& enumeration, py::handle value) {
  if (PyLong_CheckExact(value.ptr()) != 0 || py::type::handle_of(value).is(enumeration.type))
    return false;
  return py::isinstance(value, py::module_::import("enum").attr("Enum"));
}

/// value.__index__(), whose own exceptions pass unchanged; TypeError for what has none.
py::object to_index(const char* name, py::handle value) {
  if (!is_integer(value)) throw TypeError(refusal(name, "be an integer", describe(value)));
  return py::reinterpret_steal<py::object>(checked(PyNumber_Index(value.ptr())));
}

std::string represent(py::handle value) {
  constexpr Py_ssize_t kLongest = 80;
  PyObject* const text = PyLong_Check(value.ptr()) != 0 ? PyLong_Type.tp_repr(value.ptr())
                                                        : PyObject_Repr(value.ptr());
  if (text == nullptr && PyLong_Check(value.ptr()) != 0 &&
      PyErr_ExceptionMatches(PyExc_ValueError) != 0) {
    PyErr_Clear();
    return "an integer of more digits than Python writes";
  }
  const auto whole = py::reinterpret_steal<py::object>(checked(text));
  if (PyUnicode_GET_LENGTH(whole.ptr()) <= kLongest) return to_text(whole);
  return to_text(py::reinterpret_steal<py::object>(
             checked(PyUnicode_Substring(whole.ptr(), 0, kLongest)))) +
         "...";
}

}  // namespace

PyObject* checked(PyObject* result) {
  if (result == nullptr) throw py::error_already_set();
  return result;
}

std::string to_text(py::handle string) {
  Py_ssize_t size = 0;
  if (const char* const text = PyUnicode_AsUTF8AndSize(string.ptr(), &size))
    return {text, static_cast<std::size_t>(size)};
  PyErr_Clear();  // of lone surrogates, which are written as escapes then
  const auto escaped = py::reinterpret_steal<py::object>(
      checked(PyUnicode_AsEncodedString(string.ptr(), "utf-8", "backslashreplace")));
  return {PyBytes_AS_STRING(escaped.ptr()),
          static_cast<std::size_t>(PyBytes_GET_SIZE(escaped.ptr()))};
}

py::object find_attribute(py::handle value, const char* name) {
  auto found = py::reinterpret_steal<py::object>(PyObject_GetAttrString(value.ptr(), name));
  if (!found) {
    if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) throw py::error_already_set();
    PyErr_Clear();
  }
  return found;
}

std::string number_text(double value) { return to_text(py::repr(py::float_(value))); }

std::string type_name(py::handle value) {
  const std::string_view name = Py_TYPE(value.ptr())->tp_name;
  return std::string(name.substr(name.rfind('.') + 1));
}

bool is_numpy_array(py::handle value) {
  PyTypeObject* const type = ndarray();
  return Py_TYPE(value.ptr()) == type || PyType_IsSubtype(Py_TYPE(value.ptr()), type) != 0;
}
PyTypeObject* ndarray() {
  return made_once<[] { return numpy_type("ndarray"); }>();
}
bool is_numpy_dtype(py::handle value) {
  PyTypeObject* const type = made_once<[] { return numpy_type("dtype"); }>();
  return PyType_IsSubtype(Py_TYPE(value.ptr()), type) != 0;
}
bool is_numpy_scalar(py::handle value) {
  PyTypeObject* const type = made_once<[] { return numpy_type("generic"); }>();
  return PyType_IsSubtype(Py_TYPE(value.ptr()), type) != 0;
}

std::string describe(py::handle value) {
  if (value.is_none()) return "None";
  if (PyUnicode_Check(value.ptr()) != 0 || PyLong_Check(value.ptr()) != 0 ||
      PyFloat_Check(value.ptr()) != 0) {
    return represent(value);
  }
  const py::object shape = find_attribute(value, "shape");
  const py::object dtype = shape ? find_attribute(value, "dtype") : py::object();
  if (!dtype) return type_name(value);
  return type_name(value) + " of shape " + to_text(py::str(shape)) + " and dtype " +
         to_text(py::str(dtype));
}

void refuse_missing(const char* function, const char* parameter) {
  throw TypeError(std::string(function) + "() missing required argument '" + parameter + "'");
}

void add_method(py::handle type, PyMethodDef& method) {
  auto* const descriptor =
      checked(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &method));
  type.attr(method.ml_name) = py::reinterpret_steal<py::object>(descriptor);
}

void register_enumerations(py::module_& m) {
  for (const Enumeration* rows : {&kLossType, &kReductionType, &kCommandBufferStatus,
                                  &kImageEdgeMode, &kDataLayout, &kKernelOptions, &kPaddingMethod})
    add_enumeration(m, *rows);
}

py::object member(const Enumeration& rows, std::uint64_t value) { return python(rows).type(value); }
py::object member(LossType type) { return member(kLossType, static_cast<std::uint64_t>(type)); }
py::object member(ReductionType type) {
  return member(kReductionType, static_cast<std::uint64_t>(type));
}
py::object member(CommandBufferStatus status) {
  return member(kCommandBufferStatus, static_cast<std::uint64_t>(status));
}

namespace {

/// `members`: those of the enumeration, and perhaps names that functions know beside them.
std::uint64_t to_value(const Enumeration& rows, std::span<const EnumerationMember> members,
                       const char* name, py::handle value) {
  const PythonEnumeration& enumeration = python(rows);
  for (std::size_t i = 0; i < rows.members.size(); ++i) {  // the usual objects themselves
    if (value.ptr() == enumeration.members[i] || value.ptr() == enumeration.names[i])
      return rows.members[i].value;
  }
  if (PyUnicode_Check(value.ptr()) != 0) {
    const std::string_view text = ascii(value);
    for (const EnumerationMember& member : members) {
      if (text == member.name) return member.value;
    }
    throw ValueError(refusal(name, expectation(rows, members), describe(value)) +
                     suggestion(value, names_of(members)));
  }
  if (!is_integer(value) || is_member_of_another(enumeration, value))
    throw TypeError(refusal(name, expectation(rows, members), describe(value)));
  const unsigned long long raw = PyLong_AsUnsignedLongLong(to_index(name, value).ptr());
  const bool fits = PyErr_Occurred() == nullptr;
  PyErr_Clear();
  if (fits && rows.has(raw)) return raw;
  throw ValueError(refusal(name, expectation(rows, members), describe(value)));
}

}  // namespace

std::uint64_t to_member_value(const Enumeration& rows, const char* name, py::handle value) {
  return to_value(rows, rows.members, name, value);
}

LossType to_loss_type(const char* name, py::handle value) {
  return static_cast<LossType>(to_member_value(kLossType, name, value));
}

LossType to_any_loss_type(const char* name, py::handle value) {
  return static_cast<LossType>(
      to_value(kLossType, enumeration_members::kEveryLossType, name, value));
}

ReductionType to_reduction_type(const char* name, py::handle value) {
  return static_cast<ReductionType>(to_member_value(kReductionType, name, value));
}

ReductionType to_any_reduction_type(const char* name, py::handle value) {
  return static_cast<ReductionType>(
      to_value(kReductionType, enumeration_members::kEveryReductionType, name, value));
}

Format to_format(const char* name, py::handle value) {
  const auto expectation = [] { return "be " + names_of_image_formats("'"); };
  if (PyUnicode_Check(value.ptr()) == 0)
    throw TypeError(refusal(name, expectation(), describe(value)));
  for (const FormatInfo& row : kFormats) {
    if (row.is_of_images && PyUnicode_CompareWithASCIIString(value.ptr(), row.name) == 0)
      return row.format;
  }
  throw ValueError(refusal(name, expectation(), describe(value)));
}

bool is_scalar(py::handle value) {
  if (PyFloat_Check(value.ptr()) != 0 || PyLong_Check(value.ptr()) != 0) return true;
  if (is_numpy_array(value)) return py::detail::array_proxy(value.ptr())->nd == 0;
  if (is_numpy_scalar(value)) return true;
  if (PyMemoryView_Check(value.ptr()) != 0) return false;  // a released one has no rank to ask for
  if (const py::object rank = find_attribute(value, "ndim"))
    return PyLong_Check(rank.ptr()) != 0 && rank.equal(py::int_(0));
  const PyNumberMethods* const number = Py_TYPE(value.ptr())->tp_as_number;
  return number != nullptr && number->nb_float != nullptr && PySequence_Check(value.ptr()) == 0 &&
         PyObject_CheckBuffer(value.ptr()) == 0 && !find_attribute(value, "__array__");
}

double to_real(const char* name, py::handle value) {
  if (PyFloat_Check(value.ptr()) != 0) return PyFloat_AS_DOUBLE(value.ptr());
  if (PyLong_Check(value.ptr()) != 0) {
    const double real = PyLong_AsDouble(value.ptr());
    if (real != -1.0 || PyErr_Occurred() == nullptr) return real;
    PyErr_Clear();
    throw ValueError(refusal(name, "be in the range of float64", describe(value)));
  }
  const PyNumberMethods* const number = Py_TYPE(value.ptr())->tp_as_number;
  const bool is_real = number != nullptr && number->nb_float != nullptr;
  if ((!is_real && PyIndex_Check(value.ptr()) == 0) || PyComplex_Check(value.ptr()) != 0 ||
      !is_number_of("fiub", value)) {
    throw TypeError(refusal(name, "be a real number", describe(value)));
  }
  refuse_hidden(name, value);
  if (!is_real) return to_real(name, to_index(name, value));
  const double real = PyFloat_AsDouble(value.ptr());
  if (real == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return real;
}

std::int64_t to_integer(const char* name, py::handle value) {
  const py::object integer = to_index(name, value);
  const long long result = PyLong_AsLongLong(integer.ptr());
  if (result == -1 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw ValueError(refusal(name, "fit in 64 bits", describe(value)));
  }
  return result;
}

std::uint64_t to_unsigned(const char* name, py::handle value) {
  const py::object integer = to_index(name, value);
  const unsigned long long result = PyLong_AsUnsignedLongLong(integer.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw ValueError(refusal(name, "be an integer in [0, 2**64)", describe(value)));
  }
  return result;
}

bool to_bool(const char* name, py::handle value) {
  if (value.ptr() == Py_True || value.ptr() == Py_False) return value.ptr() == Py_True;
  if (Py_TYPE(value.ptr()) == numpy_bool()) return PyObject_IsTrue(value.ptr()) == 1;
  throw TypeError(refusal(name, "be True or False", describe(value)));
}

HeldBytes::HeldBytes(const char* name, py::handle value) {
  if (PyObject_CheckBuffer(value.ptr()) == 0)
    throw TypeError(refusal(name, "be bytes or another C-contiguous buffer", describe(value)));
  if (PyObject_GetBuffer(value.ptr(), &buffer_, PyBUF_CONTIG_RO) == 0 &&
      PyBuffer_IsContiguous(&buffer_, 'C') != 0) {
    return;
  }
  PyBuffer_Release(&buffer_);
  // NumPy says ValueError, others BufferError, of what is not contiguous.
  const bool is_layout = PyErr_Occurred() == nullptr || is_numpy_array(value) ||
                         PyErr_ExceptionMatches(PyExc_BufferError) != 0;
  if (!is_layout) throw py::error_already_set();
  PyErr_Clear();
  throw ValueError(refusal(name, "be C-contiguous", describe(value)));
}

std::optional<std::string> to_label(py::handle value) {
  if (value.is_none()) return std::nullopt;
  if (PyUnicode_Check(value.ptr()) == 0)
    throw TypeError(refusal("label", "be a string or None", describe(value)));
  Py_ssize_t size = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (text != nullptr) return std::string(text, static_cast<std::size_t>(size));
  PyErr_Clear();
  throw ValueError(refusal("label", "be text that UTF-8 can hold", describe(value)));
}

std::string suggestion(py::handle given, std::span<const std::string_view> names) {
  if (PyUnicode_Check(given.ptr()) == 0) return {};
  py::list words;
  for (const std::string_view name : names) words.append(py::str(name.data(), name.size()));
  const py::list close = py::module_::import("difflib").attr("get_close_matches")(
      py::str(given).attr("lower")(), words, 1);
  return close.empty() ? std::string() : "; did you mean '" + to_text(close[0]) + "'?";
}

std::shared_ptr<Device> to_named_device(const char* name, py::handle value) {
  if (PyUnicode_Check(value.ptr()) != 0) return device_named(name, to_text(value));
  if (!is_instance<Device>(value)) {
    throw TypeError(refusal(name, "be a Device, 'cpu', 'metal' or the name of one of devices()",
                            describe(value)));
  }
  return to_device(name, value);
}

std::shared_ptr<Device> to_device(const char* name, py::handle value) {
  if (!is_instance<Device>(value)) throw TypeError(refusal(name, "be a Device", describe(value)));
  if (cpu_device().get() == &py::cast<Device&>(value)) return cpu_device();  // looks for no other
  for (const auto& device : devices()) {
    if (device.get() == &py::cast<Device&>(value)) return device;
  }
  throw StateError(refusal(name, "be one of devices()", describe(value)));
}

}  // namespace mpsnn_loss::bindings
