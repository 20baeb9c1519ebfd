#include "bindings/arrays.hpp"

#include <pybind11/stl.h>

#include <array>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/owners.hpp"
#include "core/element.hpp"
#include "core/error.hpp"
#include "core/gathered_images.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

static_assert(sizeof(Py_ssize_t) == sizeof(std::int64_t), "axes are passed on as they are");

/// The type code of a buffer in native order, or 0.
char native_code(const char* format) {
  if (format == nullptr) return 0;
  if (*format == '@' || *format == '=' || *format == '<')
    ++format;  // all supported hosts are little-endian
  return format[0] != '\0' && format[1] == '\0' ? format[0] : '\0';
}

std::optional<Format> format_of(char code) {
  for (const FormatInfo& row : kFormats) {
    if (row.code == code) return row.format;
  }
  return std::nullopt;
}

py::object numpy(const char* name) { return py::module_::import("numpy").attr(name); }

PyTypeObject* ndarray() {
  static auto* const type = reinterpret_cast<PyTypeObject*>(numpy("ndarray").release().ptr());
  return type;
}

bool is_numpy_array(PyObject* value) {
  return Py_TYPE(value) == ndarray() || PyType_IsSubtype(Py_TYPE(value), ndarray()) != 0;
}

void refuse_masked(const char* name, PyObject* value) {
  if (Py_TYPE(value) == ndarray() || !is_numpy_array(value)) return;
  if (!py::isinstance(value, py::module_::import("numpy.ma").attr("MaskedArray"))) return;
  throw TypeError(refusal(name, "be an array without a mask", describe(value)));
}

char kind_of(const py::array& array) { return array.dtype().kind(); }

py::array as_array(const char* name, py::handle value) {
  if (value.is_none()) throw TypeError(refusal(name, "be an array", "None"));
  py::array array = to_numpy(name, value);
  const char kind = kind_of(array);
  if (kind != 'f' && kind != 'i' && kind != 'u' && kind != 'b') {
    throw TypeError(refusal(name, "have a real dtype (float16, float32, float64, integer or bool)",
                            py::cast<std::string>(py::str(array.dtype()))));
  }
  return array;
}

/// What is odd about an array that cannot be taken as it is.
std::string layout_of(const py::array& array) {
  if (!py::cast<bool>(array.attr("flags").attr("aligned"))) return "memory that is not aligned";
  return "strides " + py::cast<std::string>(py::str(array.attr("strides")));
}

/// A C-contiguous, aligned, native copy or view, of the given dtype.
HostArray required(const char* name, const py::array& array, const py::dtype& dtype,
                   std::span<const std::int64_t> axes) {
  py::object source = array;
  if (!axes.empty())
    source = numpy("broadcast_to")(
        source, py::tuple(py::cast(std::vector<std::int64_t>(axes.begin(), axes.end()))));
  const py::object fitting = numpy("require")(source, dtype, "CA");
  HostArray result;
  if (!result.take(name, fitting.ptr()))
    throw TypeError(refusal(name, "be convertible to a plain array", describe(fitting)));
  result.set_origin(memory_of(array));
  return result;
}

/// Class indices that would wrap around in int64 are out of range, and say so as they came.
void check_fits_int64(const char* name, const py::array& array, std::int64_t classes) {
  const py::object beyond =
      numpy("argwhere")(py::object(array).attr("__gt__")(py::int_(0x7FFFFFFFFFFFFFFF)));
  if (py::len(beyond) == 0) return;
  const auto position = py::tuple(beyond[py::int_(0)].attr("tolist")());
  throw ValueError(name + py::cast<std::string>(py::str(py::list(position))) + " is " +
                   py::cast<std::string>(py::str(array[position])) +
                   ", but class indices must be in [0, " + std::to_string(classes) +
                   ") or equal to ignore_index");
}

}  // namespace

py::array to_numpy(const char* name, py::handle value) {
  try {
    return py::reinterpret_steal<py::array>(numpy("asarray")(value).release());
  } catch (const py::error_already_set& error) {
    const std::string given =
        describe(value) + ": " + py::cast<std::string>(py::str(error.value()));
    if (error.matches(PyExc_ValueError))  // a ragged list, for one
      throw ValueError(refusal(name, "be an array", given));
    if (error.matches(PyExc_TypeError)) throw TypeError(refusal(name, "be an array", given));
    throw;
  }
}

MemoryRange memory_of(py::handle value) {
  if (!is_numpy_array(value.ptr())) return {};
  const auto array = py::reinterpret_borrow<py::array>(value);
  auto begin = reinterpret_cast<std::uintptr_t>(array.data());
  std::uintptr_t end = begin + static_cast<std::uintptr_t>(array.itemsize());
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    if (array.shape(i) == 0) return {};
    const py::ssize_t reach = array.strides(i) * (array.shape(i) - 1);
    (reach < 0 ? begin : end) += static_cast<std::uintptr_t>(reach);
  }
  return {begin, end};
}

HostArray::HostArray(HostArray&& other) noexcept
    : buffer_(other.buffer_), format_(other.format_), origin_(other.origin_) {
  other.buffer_.obj = nullptr;
}

HostArray& HostArray::operator=(HostArray&& other) noexcept {
  if (this == &other) return *this;
  release();
  buffer_ = other.buffer_;
  format_ = other.format_;
  origin_ = other.origin_;
  other.buffer_.obj = nullptr;
  return *this;
}

HostArray::~HostArray() { release(); }

void HostArray::release() {
  if (buffer_.obj == nullptr) return;
  if (Py_TYPE(buffer_.obj) == ndarray()) {
    Py_DECREF(buffer_.obj);
  } else {
    PyBuffer_Release(&buffer_);
  }
  buffer_.obj = nullptr;
}

std::span<const std::int64_t> HostArray::axes() const {
  return {reinterpret_cast<const std::int64_t*>(buffer_.shape),
          static_cast<std::size_t>(buffer_.ndim)};
}

std::int64_t HostArray::count() const {
  return buffer_.itemsize == 0 ? 0 : buffer_.len / buffer_.itemsize;
}

bool HostArray::take_numpy(PyObject* value, char& code) {
  constexpr int kWanted =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const auto& array = *py::detail::array_proxy(value);
  const auto& type = *py::detail::array_descriptor_proxy(array.descr);
  if ((array.flags & kWanted) != kWanted || type.byteorder == '>') return false;
  code = type.type;
  const auto format = format_of(code);
  buffer_.buf = array.data;
  buffer_.ndim = array.nd;
  buffer_.shape = array.dimensions;
  buffer_.readonly = (array.flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) == 0 ? 1 : 0;
  buffer_.itemsize = format ? info(*format).size : sizeof(std::int64_t);
  buffer_.len = buffer_.itemsize;
  for (int i = 0; i < array.nd; ++i) buffer_.len *= array.dimensions[i];
  Py_INCREF(value);
  buffer_.obj = value;
  return format || code == 'l' || code == 'q';
}

bool HostArray::take_buffer(const char* name, PyObject* value, char& code) {
  release();
  if (Py_TYPE(value) == ndarray()) return take_numpy(value, code);
  if (PyObject_CheckBuffer(value) == 0) return false;
  refuse_masked(name, value);
  if (PyObject_GetBuffer(value, &buffer_, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
    PyErr_Clear();
    buffer_ = {};
    return false;
  }
  code = native_code(buffer_.format);
  const auto address = reinterpret_cast<std::uintptr_t>(buffer_.buf);
  return code != 0 && buffer_.itemsize > 0 &&
         address % static_cast<std::uintptr_t>(buffer_.itemsize) == 0;
}

bool HostArray::take(const char* name, PyObject* value) {
  char code = 0;
  if (take_buffer(name, value, code)) {
    if (const auto format = format_of(code)) {
      format_ = *format;
      return true;
    }
  }
  release();
  return false;
}

bool HostArray::take_int64(const char* name, PyObject* value) {
  char code = 0;
  if (take_buffer(name, value, code) && buffer_.itemsize == 8 && (code == 'l' || code == 'q'))
    return true;
  release();
  return false;
}

void HostArray::take_predictions(const char* name, py::handle value) {
  if (take(name, value.ptr())) return;
  const py::array array = as_array(name, value);
  const bool real = kind_of(array) == 'f';
  if (real && array.itemsize() > 8) {
    throw TypeError(refusal(name, "have dtype float16, float32 or float64",
                            py::cast<std::string>(py::str(array.dtype()))));
  }
  *this = required(name, array,
                   py::dtype(!real                   ? "float64"
                             : array.itemsize() == 2 ? "float16"
                             : array.itemsize() == 4 ? "float32"
                                                     : "float64"),
                   {});
}

void HostArray::take_operand(const char* name, py::handle value, Format predictions,
                             std::span<const std::int64_t> expand_to) {
  const bool wide = predictions == Format::float64;
  if (expand_to.empty() && take(name, value.ptr()) && (format_ == Format::float64) == wide) return;
  *this = required(name, as_array(name, value), py::dtype(wide ? "float64" : "float32"), expand_to);
}

void HostArray::take_destination(const char* name, py::handle value, Format format) {
  if (take(name, value.ptr())) {
    if (format_ != format) {
      throw TypeError(
          refusal(name, std::string("have dtype ") + info(format).name, info(format_).name));
    }
    if (!writable()) throw ValueError(refusal(name, "be writable", "read-only memory"));
    return;
  }
  if (PyObject_CheckBuffer(value.ptr()) == 0)
    throw TypeError(refusal(name, "be a writable array", describe(value)));
  const py::array array = as_array(name, value);
  if (!array.dtype().equal(to_dtype(format))) {
    throw TypeError(refusal(name, std::string("have dtype ") + info(format).name,
                            py::cast<std::string>(py::str(array.dtype()))));
  }
  throw ValueError(refusal(name, "be C-contiguous and aligned", layout_of(array)));
}

bool HostArray::take_class_indices(const char* name, py::handle value, std::size_t rank,
                                   std::int64_t classes) {
  if (take_int64(name, value.ptr())) {
    if (axes().size() == rank) return true;
    release();
    return false;
  }
  const bool is_real = take(name, value.ptr());
  release();
  if (is_real || value.is_none()) return false;
  const py::array array = to_numpy(name, value);
  const char kind = kind_of(array);
  if (static_cast<std::size_t>(array.ndim()) != rank || (kind != 'i' && kind != 'u' && kind != 'b'))
    return false;
  if (kind == 'b')
    throw TypeError(refusal(name, "hold integers where they are class indices", "bool"));
  if (kind == 'u' && array.itemsize() == 8) check_fits_int64(name, array, classes);
  const py::object fitting = numpy("require")(array, py::dtype("int64"), "CA");
  if (!take_int64(name, fitting.ptr()))
    throw TypeError(refusal(name, "hold integers", describe(value)));
  origin_ = memory_of(array);
  return true;
}

py::dtype to_dtype(Format format) {
  static const auto& dtypes = *new std::array<py::dtype, 3>{
      py::dtype("float16"), py::dtype("float32"), py::dtype("float64")};
  return dtypes[static_cast<std::size_t>(format)];
}

py::array make_array(std::span<const std::int64_t> axes, Format format) {
  return py::array(to_dtype(format), std::vector<py::ssize_t>(axes.begin(), axes.end()));
}

py::object make_scalar(double value, Format format) {
  // An element that is read is a scalar; to call its type takes four times as long.
  static const auto& arrays = *new std::array<py::array, 3>{make_array({}, Format::float16),
                                                            make_array({}, Format::float32),
                                                            make_array({}, Format::float64)};
  py::array array = arrays[static_cast<std::size_t>(format)];
  write_value(static_cast<std::byte*>(array.mutable_data()), format, value);
  return array[py::tuple()];
}

namespace {

std::shared_ptr<ImageBatch> wrap_array(const char* name, py::handle value,
                                       const std::shared_ptr<Device>& device) {
  auto held = std::make_unique<HostArray>();
  if (!held->take(name, value.ptr())) {
    const py::array array = as_array(name, value);
    if (kind_of(array) != 'f' || array.itemsize() > 8) {
      throw TypeError(refusal(name, "have dtype float16, float32 or float64",
                              py::cast<std::string>(py::str(array.dtype()))));
    }
    if (!py::cast<bool>(array.dtype().attr("isnative"))) {
      throw TypeError(refusal(name, "have a dtype in native byte order",
                              py::cast<std::string>(py::str(array.dtype()))));
    }
    throw ValueError(refusal(name, "be C-contiguous and aligned", layout_of(array)));
  }
  const auto axes = held->axes();
  if (axes.size() != 4 && axes.size() != 2) {
    throw ValueError(
        refusal(name, "have shape [N, H, W, C] or [N, C]", to_string(axes.data(), axes.size())));
  }
  const bool flat = axes.size() == 2;
  const BatchDescriptor descriptor{
      {axes[0], flat ? 1 : axes[1], flat ? 1 : axes[2], axes[flat ? 1 : 3]}, held->format()};
  check_extents(name, descriptor);
  if (const std::string reason = device->supports(held->format()); !reason.empty())
    throw TypeError(refusal(name, "have a dtype of the device", reason));
  if (const std::string reason = device->supports_images(descriptor.shape); !reason.empty())
    throw ValueError(
        refusal(name, "have a size of the device (" + reason + ")", to_string(descriptor.shape)));
  return borrow(*device, descriptor, std::move(held));
}

}  // namespace

std::shared_ptr<ImageBatch> to_images(const char* name, py::handle value,
                                      const std::shared_ptr<Device>& device) {
  if (is_instance<ImageBatch>(value)) return py::cast<std::shared_ptr<ImageBatch>>(value);
  if (PyObject_CheckBuffer(value.ptr()) != 0) return wrap_array(name, value, device);
  if (PySequence_Check(value.ptr()) != 0 && !py::isinstance<py::str>(value)) {
    std::vector<Image> images;
    for (const py::handle item : py::tuple(py::reinterpret_borrow<py::object>(value))) {
      images.push_back(to_object<Image>(
          (name + ("[" + std::to_string(images.size()) + "]")).c_str(), "an MPSImage", item));
    }
    return gather_images(name, std::move(images));
  }
  throw TypeError(
      refusal(name, "be an MPSImageBatch, a sequence of MPSImage or an array", describe(value)));
}

py::array view_of(const std::shared_ptr<ImageBatch>& batch) {
  const auto axes = batch->shape().axes();
  py::array view(to_dtype(batch->descriptor().format),
                 std::vector<py::ssize_t>(axes.begin(), axes.end()), batch->data(),
                 py::cast(batch));
  if (!batch->writable()) view.attr("setflags")(py::arg("write") = false);
  return view;
}

}  // namespace mpsnn_loss::bindings
