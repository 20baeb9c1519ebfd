#include "bindings/element_types.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "bindings/arguments.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// An element type as others write it. All of a row has to agree.
struct NumpyType {
  char kind;
  std::int64_t size;
  ElementType type;
};

constexpr ElementType integer_of(bool is_signed, std::size_t size) {
  const auto step = static_cast<std::uint8_t>(size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3);
  const ElementType first = is_signed ? ElementType::int8 : ElementType::uint8;
  return static_cast<ElementType>(static_cast<std::uint8_t>(first) + step);
}

template <class T>
constexpr NumpyType integer_row() {
  const bool is_signed = static_cast<T>(-1) < 0;
  return {is_signed ? 'i' : 'u', sizeof(T), integer_of(is_signed, sizeof(T))};
}

/// By NumPy's type number; of kind 0 where it is of no use here. Numbers of types that others
/// register lie far above.
constexpr std::size_t kNumpyHalf = 23;
constexpr auto kNumpyTypes = [] {
  std::array<NumpyType, kNumpyHalf + 1> rows{{
      {'b', 1, ElementType::boolean},
      integer_row<signed char>(),
      integer_row<unsigned char>(),
      integer_row<short>(),
      integer_row<unsigned short>(),
      integer_row<int>(),
      integer_row<unsigned int>(),
      integer_row<long>(),
      integer_row<unsigned long>(),
      integer_row<long long>(),
      integer_row<unsigned long long>(),
      {'f', 4, ElementType::float32},
      {'f', 8, ElementType::float64},
      {'f', sizeof(long double), ElementType::long_double},
  }};
  rows[kNumpyHalf] = {'f', 2, ElementType::float16};
  return rows;
}();

std::int64_t item_size(const PyObject* dtype) {
  const bool is_numpy_2 =
      made_once<[] { return py::detail::npy_api::get().PyArray_RUNTIME_VERSION_ >= 0x12; }>();
  if (is_numpy_2) return py::detail::array_descriptor2_proxy(dtype)->elsize;
  return py::detail::array_descriptor1_proxy(dtype)->elsize;
}

/// NumPy's type number of ml_dtypes' bfloat16 is any, so it is known by its type. Nobody has an
/// array of it who has not imported that.
bool is_bfloat16(PyObject* dtype) {
  static PyObject* type = nullptr;
  if (type == nullptr) type = imported("ml_dtypes", "bfloat16");
  const auto& descriptor = *py::detail::array_descriptor_proxy(dtype);
  return type != nullptr && descriptor.typeobj == type && item_size(dtype) == 2;
}

/// The dtypes of NumPy's own.
py::dtype numpy_dtype(Format format) {
  const auto& dtypes = made_once<[] {
    std::array<py::object, kFormats.size()> made;
    std::ranges::transform(kFormats, made.begin(), [](auto& row) {
      return row.is_of_images ? py::object(py::dtype(row.name)) : py::object();
    });
    return made;
  }>();
  return dtypes[static_cast<std::size_t>(format)];
}

py::dtype bfloat16_dtype() {
  const auto& found = made_once<[] {
    try {
      return py::object(py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16")));
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_ImportError)) throw;
      throw TypeError(
          "out must be given for bfloat16 where ml_dtypes is not installed, as NumPy "
          "has no such dtype of its own");
    }
  }>();
  return found;
}

/// NumPy has one object for each of its own types, which nearly all arrays share. One that was
/// found right stays so, and is kept, so that no other can come to lie where it does.
std::array<PyObject*, kNumpyTypes.size()> known_dtypes{};

[[gnu::noinline]] bool look_up(PyObject* dtype, ElementType& type) {
  const auto& descriptor = *py::detail::array_descriptor_proxy(dtype);
  const auto number = static_cast<std::size_t>(descriptor.type_num);
  if (number >= kNumpyTypes.size()) {
    type = ElementType::bfloat16;
    return is_bfloat16(dtype);
  }
  const NumpyType& row = kNumpyTypes[number];
  type = row.type;
  if (descriptor.kind != row.kind || item_size(dtype) != row.size) return false;
  if (known_dtypes[number] == nullptr) known_dtypes[number] = Py_NewRef(dtype);
  return true;
}

}  // namespace

bool numpy_type_of(PyObject* dtype, ElementType& type) {
  const auto number = static_cast<std::size_t>(py::detail::array_descriptor_proxy(dtype)->type_num);
  if (number >= kNumpyTypes.size() || dtype != known_dtypes[number]) return look_up(dtype, type);
  type = kNumpyTypes[number].type;
  return true;
}

PyObject* imported(const char* module, const char* name) {
  PyObject* const found = PyDict_GetItemString(PyImport_GetModuleDict(), module);
  if (found == nullptr || PyModule_Check(found) == 0) return nullptr;
  return PyDict_GetItemString(PyModule_GetDict(found), name);
}

bool buffer_type_of(const Py_buffer& buffer, ElementType& type, bool& swapped) {
  std::string_view code = buffer.format == nullptr ? "B" : buffer.format;
  swapped = !code.empty() && (code[0] == '>' || code[0] == '!');
  const bool standard = !code.empty() && std::string_view("=<>!").find(code[0]) != code.npos;
  if (standard || (!code.empty() && (code[0] == '@' || code[0] == '^'))) code.remove_prefix(1);
  if (code.size() != 1) return false;
  const auto size = static_cast<std::size_t>(buffer.itemsize);
  const auto is = [&](ElementType found, bool fits) {
    type = found;
    return fits;
  };
  switch (code[0]) {
    case '?': return is(ElementType::boolean, size == 1);
    case 'e': return is(ElementType::float16, size == 2);
    case 'f': return is(ElementType::float32, size == 4);
    case 'd': return is(ElementType::float64, size == 8);
    case 'g': return is(ElementType::long_double, size == sizeof(long double));
    case 'b': return is(ElementType::int8, size == 1);
    case 'B': return is(ElementType::uint8, size == 1);
    case 'h': return is(ElementType::int16, size == 2);
    case 'H': return is(ElementType::uint16, size == 2);
    case 'i': return is(ElementType::int32, size == 4);
    case 'I': return is(ElementType::uint32, size == 4);
    // Of standard size 4, but ctypes writes it for its own long too.
    case 'l': return is(integer_of(true, size), size == 4 || size == sizeof(long));
    case 'L': return is(integer_of(false, size), size == 4 || size == sizeof(long));
    case 'q': return is(ElementType::int64, size == 8);
    case 'Q': return is(ElementType::uint64, size == 8);
    case 'n': return is(ElementType::int64, size == 8 && !standard);
    case 'N': return is(ElementType::uint64, size == 8 && !standard);
    default: return false;
  }
}

bool dlpack_type_of(int code, int bits, int lanes, ElementType& type) {
  enum { signed_integer = 0, unsigned_integer = 1, real = 2, brain_real = 4, boolean = 6 };
  const bool is_whole = bits == 8 || bits == 16 || bits == 32 || bits == 64;
  const auto is = [&](ElementType found, bool fits) {
    type = found;
    return fits && lanes == 1;
  };
  const auto size = static_cast<std::size_t>(bits) / 8;
  switch (code) {
    case signed_integer: return is(integer_of(true, size), is_whole);
    case unsigned_integer: return is(integer_of(false, size), is_whole);
    case real:
      return is(bits == 16   ? ElementType::float16
                : bits == 32 ? ElementType::float32
                             : ElementType::float64,
                bits == 16 || bits == 32 || bits == 64);
    case brain_real: return is(ElementType::bfloat16, bits == 16);
    case boolean: return is(ElementType::boolean, bits == 8);
    default: return false;
  }
}

py::dtype to_dtype(Format format) {
  return info(format).is_of_images ? numpy_dtype(format) : bfloat16_dtype();
}

std::optional<Format> storage_format_of(py::handle dtype) {
  ElementType type = ElementType::float32;
  const bool is_native = py::detail::array_descriptor_proxy(dtype.ptr())->byteorder != '>';
  return is_native && numpy_type_of(dtype.ptr(), type) ? storage_format(type) : std::nullopt;
}

}  // namespace mpsnn_loss::bindings
