// Python properties for what the kernels inherit, from the rows of objects/kernel_properties.hpp.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings/arguments.hpp"
#include "bindings/objects/kernel_handles.hpp"
#include "core/error.hpp"
#include "objects/kernel_properties.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

constexpr const char* kAllocators[] = {"temporary_image", "image"};

py::tuple triple(const std::int64_t* words) { return py::make_tuple(words[0], words[1], words[2]); }

py::object to_python(PropertyForm form, const PropertyValue& value) {
  switch (form) {
    case PropertyForm::count: return py::int_(static_cast<std::uint64_t>(value[0]));
    case PropertyForm::flag: return py::bool_(value[0] != 0);
    case PropertyForm::offset: return triple(value.data());
    case PropertyForm::region:
      if (value == kNoClip) return py::none();
      return py::make_tuple(triple(value.data()), triple(value.data() + 3));
    case PropertyForm::edge_mode:
      return member(kImageEdgeMode, static_cast<std::uint64_t>(value[0]));
    case PropertyForm::padding: return member(kPaddingMethod, static_cast<std::uint64_t>(value[0]));
    case PropertyForm::allocator: return py::str(kAllocators[value[0]]);
  }
  return py::none();
}

/// Exactly `count` items, or TypeError/ValueError.
py::sequence items(const char* name, py::handle value, std::size_t count, const char* expectation) {
  const bool is_scalar_array =
      is_numpy_array(value) && py::detail::array_proxy(value.ptr())->nd == 0;
  if (PySequence_Check(value.ptr()) == 0 || PyUnicode_Check(value.ptr()) != 0 || is_scalar_array)
    throw TypeError(refusal(name, expectation, describe(value)));
  auto sequence = py::reinterpret_borrow<py::sequence>(value);
  if (sequence.size() != count)
    throw ValueError(refusal(name, expectation, std::to_string(sequence.size()) + " items"));
  return sequence;
}

void read_triple(const char* name, py::handle value, const char* expectation, bool is_signed,
                 std::int64_t* words) {
  const py::sequence three = items(name, value, 3, expectation);
  for (std::size_t i = 0; i < 3; ++i) {
    words[i] = to_integer(name, three[i]);
    if (!is_signed && words[i] < 0)
      throw ValueError(refusal(name, "hold no negative number", std::to_string(words[i])));
  }
}

PropertyValue from_python(const InheritedProperty& row, py::handle value) {
  PropertyValue result{};
  switch (row.form) {
    case PropertyForm::count:
      result[0] = static_cast<std::int64_t>(to_unsigned(row.name, value));
      break;
    case PropertyForm::flag: result[0] = to_bool(row.name, value) ? 1 : 0; break;
    case PropertyForm::offset:
      read_triple(row.name, value, "be (x, y, z)", true, result.data());
      break;
    case PropertyForm::region: {
      if (value.is_none()) return kNoClip;
      constexpr const char* kExpectation = "be None or ((x, y, z), (width, height, depth))";
      const py::sequence pair = items(row.name, value, 2, kExpectation);
      read_triple(row.name, pair[0], kExpectation, false, result.data());
      read_triple(row.name, pair[1], kExpectation, false, result.data() + 3);
      break;
    }
    case PropertyForm::edge_mode:
      result[0] = static_cast<std::int64_t>(to_member_value(kImageEdgeMode, row.name, value));
      break;
    case PropertyForm::padding:
      result[0] = static_cast<std::int64_t>(to_member_value(kPaddingMethod, row.name, value));
      break;
    case PropertyForm::allocator: {
      if (PyUnicode_Check(value.ptr()) == 0)
        throw TypeError(refusal(row.name, "be 'temporary_image' or 'image'", describe(value)));
      const auto is = [&](int i) {
        return PyUnicode_CompareWithASCIIString(value.ptr(), kAllocators[i]) == 0;
      };
      if (!is(0) && !is(1))
        throw ValueError(refusal(row.name, "be 'temporary_image' or 'image'", describe(value)));
      result[0] = is(1) ? 1 : 0;
      break;
    }
  }
  return result;
}

}  // namespace

void define_inherited_properties(py::handle type, KernelKind kind) {
  const auto rows = inherited_properties(kind);
  const py::object property = py::module_::import("builtins").attr("property");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const InheritedProperty& row = rows[i];
    const py::cpp_function getter(
        [i, &row](const KernelHandle& handle) {
          return to_python(row.form, handle.kernel->inherited(i));
        },
        py::is_method(type));
    py::object setter = py::none();
    if (!row.read_only) {
      setter = py::cpp_function(
          [i, &row](KernelHandle& handle, py::object value) {
            const PropertyValue words = from_python(row, value);
            handle.kernel->update([&](KernelProperties& p) { p.moved[i] = words; });
          },
          py::is_method(type));
    }
    const std::string doc =
        std::string("Inherited: ") + row.meaning + ". Default " +
        to_string(row.form, row.default_value) +
        (row.read_only
             ? "; read-only."
             : "; encoding with a value other than a new kernel's is refused (ValueError).");
    py::setattr(type, row.name, property(getter, setter, py::none(), doc));
  }
}

}  // namespace mpsnn_loss::bindings
