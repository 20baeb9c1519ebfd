#include "bindings/arguments.hpp"

#include <algorithm>
#include <cctype>
#include <map>
#include <string_view>

#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// An enumeration of Python's enum module, and its members by name and value.
struct Enumeration {
  py::object type;
  std::map<std::string, std::uint64_t> values;  // by lower-case name
};

std::map<std::string, Enumeration>& enumerations() {
  static auto& all = *new std::map<std::string, Enumeration>;  // lives as long as the interpreter
  return all;
}

struct Member {
  const char* name;
  std::uint64_t value;
};

template <class Members>
void add_enumeration(py::module_& m, const char* base, const char* name, const char* doc,
                     const Members& members) {
  Enumeration& enumeration = enumerations()[name];
  py::list pairs;
  for (const auto& [member, value] : members) {
    std::string upper(member);
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    pairs.append(py::make_tuple(upper, static_cast<std::uint64_t>(value)));
    enumeration.values[member] = static_cast<std::uint64_t>(value);
  }
  enumeration.type =
      py::module_::import("enum").attr(base)(name, pairs, py::arg("module") = "mpsnn_loss");
  enumeration.type.attr("__doc__") = doc;
  m.attr(name) = enumeration.type;
}

/// The names of an enumeration as a message lists them.
std::string choices(const Enumeration& enumeration) {
  std::map<std::uint64_t, std::string> by_value;
  for (const auto& [name, value] : enumeration.values) by_value[value] = name;
  std::string text;
  for (const auto& [value, name] : by_value) text += (text.empty() ? "'" : ", '") + name + "'";
  return text;
}

bool is_integer(py::handle value) {
  return PyIndex_Check(value.ptr()) != 0 && !PyBool_Check(value.ptr());
}

}  // namespace

std::string describe(py::handle value) {
  if (value.is_none()) return "None";
  if (py::isinstance<py::str>(value) || py::isinstance<py::int_>(value) ||
      py::isinstance<py::float_>(value)) {
    return py::cast<std::string>(py::repr(value));
  }
  const std::string type = py::cast<std::string>(py::type::handle_of(value).attr("__name__"));
  if (py::hasattr(value, "shape") && py::hasattr(value, "dtype")) {
    return type + " of shape " + py::cast<std::string>(py::str(value.attr("shape"))) +
           " and dtype " + py::cast<std::string>(py::str(value.attr("dtype")));
  }
  return type;
}

void register_enumerations(py::module_& m) {
  std::vector<Member> losses, reductions;
  for (const LossInfo& row : kLosses)
    losses.push_back({row.name, static_cast<std::uint64_t>(row.type)});
  for (const ReductionInfo& row : kReductions)
    reductions.push_back({row.name, static_cast<std::uint64_t>(row.type)});
  add_enumeration(m, "IntEnum", "MPSCNNLossType", "The losses, with Apple's raw values.", losses);
  add_enumeration(
      m, "IntEnum", "MPSCNNReductionType",
      "What a forward loss does with its elements: leave them, or sum them per image and divide.",
      reductions);
  add_enumeration(m, "IntEnum", "CommandBufferStatus",
                  "How far a command buffer has come (MTLCommandBufferStatus).",
                  std::array<Member, 6>{{{"not_enqueued", 0},
                                         {"enqueued", 1},
                                         {"committed", 2},
                                         {"scheduled", 3},
                                         {"completed", 4},
                                         {"error", 5}}});
  add_enumeration(
      m, "IntEnum", "MPSImageEdgeMode", "What reads outside an image return.",
      std::array<Member, 5>{
          {{"zero", 0}, {"clamp", 1}, {"mirror", 2}, {"mirror_with_edge", 3}, {"constant", 4}}});
  add_enumeration(m, "IntEnum", "MPSDataLayout", "The order of elements in the bytes of an image.",
                  std::array<Member, 2>{{{"height_x_width_x_feature_channels", 0},
                                         {"feature_channels_x_height_x_width", 1}}});
  add_enumeration(m, "IntFlag", "MPSKernelOptions",
                  "Options of a kernel; the CPU engine ignores them.",
                  std::array<Member, 6>{{{"none", 0},
                                         {"skip_api_validation", 1},
                                         {"allow_reduced_precision", 2},
                                         {"disable_internal_tiling", 4},
                                         {"insert_debug_groups", 8},
                                         {"verbose", 16}}});
  add_enumeration(m, "IntFlag", "MPSNNPaddingMethod",
                  "How a kernel sizes the images it returns (bit field).",
                  std::array<Member, 13>{{{"align_centered", 0},
                                          {"align_top_left", 1},
                                          {"align_bottom_right", 2},
                                          {"add_remainder_to_top_right", 4},
                                          {"add_remainder_to_bottom_left", 8},
                                          {"add_remainder_to_bottom_right", 12},
                                          {"size_same", 16},
                                          {"size_full", 32},
                                          {"size_reserved", 48},
                                          {"size_mask", 0x7F0},
                                          {"custom_allow_for_node_fusion", 8192},
                                          {"custom", 16384},
                                          {"exclude_edges", 32768}}});
}

py::object member(const char* enumeration, std::uint64_t value) {
  return enumerations().at(enumeration).type(value);
}
py::object member(LossType type) {
  return member("MPSCNNLossType", static_cast<std::uint64_t>(type));
}
py::object member(ReductionType type) {
  return member("MPSCNNReductionType", static_cast<std::uint64_t>(type));
}
py::object member(CommandBufferStatus status) {
  return member("CommandBufferStatus", static_cast<std::uint64_t>(status));
}

std::uint64_t to_member_value(const char* enumeration, const char* name, py::handle value) {
  const Enumeration& e = enumerations().at(enumeration);
  const std::string expectation =
      std::string("be a member of ") + enumeration + ", its raw value or one of " + choices(e);
  if (PyUnicode_Check(value.ptr()) != 0) {
    const char* text = PyUnicode_AsUTF8(value.ptr());
    if (text == nullptr) throw py::error_already_set();
    const auto found = e.values.find(text);
    if (found != e.values.end()) return found->second;
    throw ValueError(refusal(name, expectation, describe(value)));
  }
  if (!is_integer(value)) throw TypeError(refusal(name, expectation, describe(value)));
  const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  const long long raw = PyLong_AsLongLong(integer.ptr());
  if (raw == -1 && PyErr_Occurred() != nullptr) PyErr_Clear();
  std::uint64_t known = 0;
  bool exact = false;
  for (const auto& [member_name, member_value] : e.values) {
    known |= member_value;
    exact = exact || (raw >= 0 && member_value == static_cast<std::uint64_t>(raw));
  }
  const bool is_flag =
      py::hasattr(e.type, "__or__") &&
      py::cast<bool>(py::module_::import("enum").attr("IntFlag").attr("__subclasscheck__")(e.type));
  if (raw >= 0 && (exact || (is_flag && (static_cast<std::uint64_t>(raw) & ~known) == 0)))
    return static_cast<std::uint64_t>(raw);
  throw ValueError(refusal(name, expectation, describe(value)));
}

LossType to_loss_type(const char* name, py::handle value) {
  return static_cast<LossType>(to_member_value("MPSCNNLossType", name, value));
}

ReductionType to_reduction_type(const char* name, py::handle value) {
  return static_cast<ReductionType>(to_member_value("MPSCNNReductionType", name, value));
}

Format to_format(const char* name, py::handle value) {
  if (PyUnicode_Check(value.ptr()) == 0) {
    throw TypeError(refusal(name, "be 'float16', 'float32' or 'float64'", describe(value)));
  }
  const std::string text = py::cast<std::string>(value);
  for (const FormatInfo& row : kFormats) {
    if (text == row.name) return row.format;
  }
  throw ValueError(refusal(name, "be 'float16', 'float32' or 'float64'", describe(value)));
}

bool is_scalar(py::handle value) {
  if (PyFloat_Check(value.ptr()) != 0 || PyLong_Check(value.ptr()) != 0) return true;
  return py::hasattr(value, "ndim") && py::object(value.attr("ndim")).equal(py::int_(0));
}

double to_real(const char* name, py::handle value) {
  if (PyFloat_CheckExact(value.ptr()) != 0) return PyFloat_AS_DOUBLE(value.ptr());
  const double real = PyFloat_AsDouble(value.ptr());
  if (real == -1.0 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw TypeError(refusal(name, "be a real number", describe(value)));
  }
  return real;
}

std::int64_t to_integer(const char* name, py::handle value) {
  if (!is_integer(value)) throw TypeError(refusal(name, "be an integer", describe(value)));
  const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  const long long result = PyLong_AsLongLong(integer.ptr());
  if (result == -1 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw ValueError(refusal(name, "fit in 64 bits", describe(value)));
  }
  return result;
}

std::uint64_t to_unsigned(const char* name, py::handle value) {
  if (!is_integer(value)) throw TypeError(refusal(name, "be an integer", describe(value)));
  const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  const unsigned long long result = PyLong_AsUnsignedLongLong(integer.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw ValueError(refusal(name, "be an integer in [0, 2**64)", describe(value)));
  }
  return result;
}

bool to_bool(const char* name, py::handle value) {
  if (value.ptr() == Py_True || value.ptr() == Py_False) return value.ptr() == Py_True;
  const char* const type = Py_TYPE(value.ptr())->tp_name;
  if (std::string_view(type) == "numpy.bool" || std::string_view(type) == "numpy.bool_") {
    return PyObject_IsTrue(value.ptr()) == 1;
  }
  throw TypeError(refusal(name, "be True or False", describe(value)));
}

std::optional<std::string> to_label(py::handle value) {
  if (value.is_none()) return std::nullopt;
  if (PyUnicode_Check(value.ptr()) == 0)
    throw TypeError(refusal("label", "be a string or None", describe(value)));
  return py::cast<std::string>(value);
}

const std::shared_ptr<Device>& to_device(const char* name, py::handle value) {
  if (!py::isinstance<Device>(value))
    throw TypeError(refusal(name, "be a Device", describe(value)));
  for (const auto& device : devices()) {
    if (device.get() == &py::cast<Device&>(value)) return device;
  }
  throw StateError(refusal(name, "be one of devices()", describe(value)));
}

void sort_arguments(const char* function, const char* const* names, PyObject** interned,
                    std::size_t count, std::size_t required, std::size_t positional,
                    PyObject* const* arguments, std::size_t given, PyObject* keywords,
                    PyObject** sorted) {
  if (interned[0] == nullptr) {
    for (std::size_t i = 0; i < count; ++i) interned[i] = PyUnicode_InternFromString(names[i]);
  }
  const std::string call = std::string(function) + "()";
  if (given > positional) {
    throw TypeError(call + " takes at most " + std::to_string(positional) +
                    " positional arguments, got " + std::to_string(given));
  }
  std::copy(arguments, arguments + given, sorted);
  const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* const keyword = PyTuple_GET_ITEM(keywords, k);
    std::size_t i = 0;
    while (i < count && interned[i] != keyword) ++i;
    if (i == count) {  // not the interned string itself
      for (i = 0; i < count && PyUnicode_Compare(interned[i], keyword) != 0;) ++i;
    }
    if (i == count)
      throw TypeError(call + " got an unexpected keyword argument " + describe(keyword));
    if (sorted[i] != nullptr)
      throw TypeError(call + " got multiple values for argument '" + names[i] + "'");
    sorted[i] = arguments[given + static_cast<std::size_t>(k)];
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (sorted[i] == nullptr)
      throw TypeError(call + " missing required argument '" + names[i] + "'");
  }
}

}  // namespace mpsnn_loss::bindings
