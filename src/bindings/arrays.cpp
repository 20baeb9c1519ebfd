#include "bindings/arrays.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/foreign_arrays.hpp"
#include "bindings/instances.hpp"
#include "core/error.hpp"
#include "objects/image_batch.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

static_assert(sizeof(Py_ssize_t) == sizeof(std::int64_t), "axes are copied as they are");

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

bool numpy_type_of(PyObject* dtype, ElementType& type) {
  const auto& descriptor = *py::detail::array_descriptor_proxy(dtype);
  const auto number = static_cast<std::size_t>(descriptor.type_num);
  if (number >= kNumpyTypes.size()) return false;
  const NumpyType& row = kNumpyTypes[number];
  type = row.type;
  return descriptor.kind == row.kind && item_size(dtype) == row.size;
}

/// The element type of a buffer: the code of the struct module, and the size it has there.
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

bool is_released(py::handle value) {
  return PyMemoryView_Check(value.ptr()) != 0 &&
         (reinterpret_cast<PyMemoryViewObject*>(value.ptr())->flags & _Py_MEMORYVIEW_RELEASED) != 0;
}

}  // namespace

bool HostArray::Look::operator==(const Look& other) const {
  return data == other.data && type == other.type && swapped == other.swapped &&
         in_place == other.in_place && writable == other.writable && rank == other.rank &&
         std::equal(axes.begin(), axes.begin() + rank, other.axes.begin()) &&
         std::equal(strides.begin(), strides.begin() + rank, other.strides.begin());
}

bool HostArray::look_at(PyObject* value, Look& look) {
  using Api = py::detail::npy_api;
  constexpr int kInPlace = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_;
  const auto& array = *py::detail::array_proxy(value);
  if (!numpy_type_of(array.descr, look.type)) return false;
  look.data = reinterpret_cast<std::byte*>(array.data);
  look.swapped = py::detail::array_descriptor_proxy(array.descr)->byteorder == '>';
  look.in_place = (array.flags & kInPlace) == kInPlace && !look.swapped;
  look.writable = (array.flags & Api::NPY_ARRAY_WRITEABLE_) != 0;
  look.rank = static_cast<std::size_t>(array.nd);
  for (std::size_t i = 0; i < look.rank; ++i) {
    look.axes[i] = array.dimensions[i];
    look.strides[i] = array.strides[i];
  }
  return true;
}

bool HostArray::look_at(const Py_buffer& buffer) {
  if (!buffer_type_of(buffer, look_.type, look_.swapped)) return false;
  look_.data = static_cast<std::byte*>(buffer.buf);
  look_.writable = buffer.readonly == 0;
  look_.rank = static_cast<std::size_t>(buffer.ndim);
  for (std::size_t i = 0; i < look_.rank; ++i) {
    look_.axes[i] = buffer.shape[i];
    look_.strides[i] = buffer.strides[i];
  }
  const auto address = reinterpret_cast<std::uintptr_t>(buffer.buf);
  look_.in_place = !look_.swapped && PyBuffer_IsContiguous(&buffer, 'C') != 0 &&
                   address % static_cast<std::uintptr_t>(buffer.itemsize) == 0;
  return true;
}

void HostArray::refuse_type(py::handle value) const {
  throw TypeError(refusal(name_, "have a real dtype (float16, float32, float64, integer or bool)",
                          describe(value)));
}

void HostArray::hold(py::handle array) {
  if (!look_at(array.ptr(), look_)) refuse_type(array);
  held_.array = py::reinterpret_borrow<py::object>(array);
}

bool HostArray::take_memory(const char* name, py::handle value) {
  name_ = name;
  if (Py_TYPE(value.ptr()) == ndarray()) return hold(value), true;
  may_have_run_code_ = true;
  if (is_numpy_array(value)) {
    refuse_hidden(name, value);
    return hold(value), true;
  }
  if (PyObject_CheckBuffer(value.ptr()) == 0 || PyBytes_Check(value.ptr()) != 0 ||
      is_numpy_scalar(value)) {
    return false;
  }
  if (is_released(value)) throw ValueError(refusal(name, "be an array", "a released memoryview"));
  refuse_hidden(name, value);
  auto buffer = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(value.ptr(), buffer.get(), PyBUF_RECORDS_RO) != 0) {
    // A batch that is not one array on the host, or not finished, says so through __array__.
    if (!is_instance<ImageBatch>(value) || PyErr_ExceptionMatches(PyExc_BufferError) == 0)
      throw py::error_already_set();
    PyErr_Clear();
    return false;
  }
  held_.exported.reset(buffer.release());
  if (!look_at(*held_.exported)) refuse_type(value);
  return true;
}

void HostArray::take(const char* name, py::handle value) {
  if (take_memory(name, value)) return;
  if (value.is_none()) throw TypeError(refusal(name, "be an array", "None"));
  hold(to_numpy(name, value));
}

void HostArray::take_destination(const char* name, py::handle value) {
  if (!take_memory(name, value))
    throw TypeError(refusal(name, "be a writable array", describe(value)));
}

void HostArray::check_unchanged() const {
  if (!held_.array) return;  // an exported buffer does not move
  Look now;
  if (look_at(held_.array.ptr(), now) && now == look_) return;
  throw StateError(std::string(name_) + " must not change while other arguments are read");
}

Format HostArray::require_in_place() const {
  const auto format = storage_format(look_.type);
  if (!format)
    throw TypeError(refusal(name_, "have dtype " + names_of_formats(), name_of(look_.type)));
  if (look_.swapped)
    throw TypeError(refusal(name_, "have a dtype in native byte order",
                            std::string(name_of(look_.type)) + " in the other"));
  if (look_.in_place) return *format;
  bool aligned = reinterpret_cast<std::uintptr_t>(look_.data) % alignof(double) == 0;
  for (std::size_t i = 0; i < look_.rank; ++i)
    aligned = aligned && look_.strides[i] % size_of(look_.type) == 0;
  const std::string strides = "strides " + to_string(look_.strides.data(), look_.rank);
  throw ValueError(refusal(name_, "be C-contiguous and aligned",
                           aligned ? strides : "memory that is not aligned"));
}

void HostArray::require_destination(Format format) const {
  if (look_.type != element_type(format))
    throw TypeError(
        refusal(name_, std::string("have dtype ") + info(format).name, name_of(look_.type)));
  require_in_place();
  if (!look_.writable) throw ValueError(refusal(name_, "be writable", "read-only memory"));
}

std::byte* HostArray::converted(Format format, std::span<const std::int64_t> axes,
                                Underflow underflow) {
  StridedArray source = strided();
  std::array<std::int64_t, kMostAxes> strides{};
  const std::size_t missing = axes.size() - source.axes.size();
  std::int64_t bytes = info(format).size;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const bool broadcasts = i < missing || (source.axes[i - missing] == 1 && axes[i] != 1);
    strides[i] = broadcasts ? 0 : source.strides[i - missing];
    if (__builtin_mul_overflow(bytes, axes[i], &bytes)) throw std::bad_alloc();
  }
  source.axes = axes;
  source.strides = {strides.data(), axes.size()};
  held_.converted.reset(new std::byte[static_cast<std::size_t>(bytes)]);
  convert(source, format, underflow, held_.converted.get());
  return held_.converted.get();
}

const std::int64_t* HostArray::as_int64(std::int64_t classes) {
  if (look_.in_place && look_.type == ElementType::int64)
    return reinterpret_cast<const std::int64_t*>(look_.data);
  std::int64_t count = 1;
  for (const std::int64_t axis : axes()) count *= axis;
  held_.converted.reset(new std::byte[static_cast<std::size_t>(count) * sizeof(std::int64_t)]);
  auto* const indices = reinterpret_cast<std::int64_t*>(held_.converted.get());
  if (const auto beyond = convert_to_int64(strided(), indices)) {
    const auto as_it_came = static_cast<std::uint64_t>(indices[*beyond]);
    refuse_class_index(view(), *beyond, std::to_string(as_it_came), classes);
  }
  return indices;
}

py::dtype to_dtype(Format format) {
  const auto& dtypes = made_once<[] {
    std::array<py::dtype, kFormats.size()> made;
    std::ranges::transform(kFormats, made.begin(), [](auto& row) { return py::dtype(row.name); });
    return made;
  }>();
  return dtypes[static_cast<std::size_t>(format)];
}

std::optional<Format> storage_format_of(py::handle dtype) {
  ElementType type = ElementType::float32;
  const bool is_native = py::detail::array_descriptor_proxy(dtype.ptr())->byteorder != '>';
  return is_native && numpy_type_of(dtype.ptr(), type) ? storage_format(type) : std::nullopt;
}

py::array make_array(std::span<const std::int64_t> axes, Format format) {
  return py::array(to_dtype(format), std::vector<py::ssize_t>(axes.begin(), axes.end()));
}

py::object make_scalar(const void* value, Format format) {
  // An element that is read is a scalar; to call its type takes four times as long.
  const auto& arrays = made_once<[] {
    std::array<py::array, kFormats.size()> made;
    std::ranges::transform(kFormats, made.begin(),
                           [](auto& r) { return make_array({}, r.format); });
    return made;
  }>();
  py::array array = arrays[static_cast<std::size_t>(format)];
  std::memcpy(array.mutable_data(), value, static_cast<std::size_t>(info(format).size));
  return array[py::tuple()];
}

MemoryRange memory_of_scalar(py::handle value) {
  if (!is_numpy_array(value)) return {};
  const auto begin = reinterpret_cast<std::uintptr_t>(py::detail::array_proxy(value.ptr())->data);
  const auto array = py::reinterpret_borrow<py::array>(value);
  return {begin, begin + static_cast<std::uintptr_t>(array.itemsize())};
}

}  // namespace mpsnn_loss::bindings
