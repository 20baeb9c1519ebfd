#include "bindings/arrays.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/dlpack.hpp"
#include "bindings/element_types.hpp"
#include "bindings/foreign_arrays.hpp"
#include "bindings/instances.hpp"
#include "core/error.hpp"
#include "core/overlap.hpp"
#include "objects/image_batch.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

static_assert(sizeof(Py_ssize_t) == sizeof(std::int64_t), "axes are copied as they are");

bool is_released(py::handle value) {
  return PyMemoryView_Check(value.ptr()) != 0 &&
         (reinterpret_cast<PyMemoryViewObject*>(value.ptr())->flags & _Py_MEMORYVIEW_RELEASED) != 0;
}

}  // namespace

bool HostArray::Look::operator==(const Look& other) const {
  return data == other.data && type == other.type && swapped == other.swapped &&
         in_place == other.in_place && whole_strides == other.whole_strides &&
         writable == other.writable && rank == other.rank &&
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
  look.whole_strides = (array.flags & Api::NPY_ARRAY_ALIGNED_) != 0 && !look.swapped;
  if (look.in_place) return true;
  const std::int64_t size = size_of(look.type);
  for (std::size_t i = 0; i < look.rank; ++i) {
    // Of types as large as they are aligned, which all but long double are.
    look.whole_strides =
        look.whole_strides && (look.axes[i] == 1 || (look.strides[i] & (size - 1)) == 0);
  }
  return true;
}

bool HostArray::look_at(const Py_buffer& buffer) {
  if (!buffer_type_of(buffer, look_.type, look_.swapped)) return false;
  look_.data = static_cast<std::byte*>(buffer.buf);
  look_.writable = buffer.readonly == 0;
  look_.rank = static_cast<std::size_t>(buffer.ndim);
  const auto address = reinterpret_cast<std::uintptr_t>(buffer.buf);
  look_.whole_strides =
      !look_.swapped && address % static_cast<std::uintptr_t>(buffer.itemsize) == 0;
  look_.in_place = look_.whole_strides && PyBuffer_IsContiguous(&buffer, 'C') != 0;
  for (std::size_t i = 0; i < look_.rank; ++i) {
    look_.axes[i] = buffer.shape[i];
    look_.strides[i] = buffer.strides[i];
    look_.whole_strides =
        look_.whole_strides && (buffer.shape[i] == 1 || buffer.strides[i] % buffer.itemsize == 0);
  }
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
  if (Py_TYPE(value.ptr()) != ndarray()) return take_other_memory(value);
  hold(value);
  return true;
}

bool HostArray::take_other_memory(py::handle value) {
  const char* const name = name_;
  may_have_run_code_ = true;
  if (is_numpy_array(value)) {
    refuse_hidden(name, value);
    return hold(value), true;
  }
  if (PyBytes_Check(value.ptr()) != 0 || is_numpy_scalar(value)) return false;
  if (PyObject_CheckBuffer(value.ptr()) == 0) return take_tensor(value);
  if (is_released(value)) throw ValueError(refusal(name, "be an array", "a released memoryview"));
  refuse_hidden(name, value);
  auto buffer = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(value.ptr(), buffer.get(), PyBUF_RECORDS_RO) != 0) {
    // A batch that is not one array on the host, or not finished, says so through __array__.
    const bool is_ours = is_instance<ImageBatch>(value) || is_instance<Image>(value);
    if (!is_ours || PyErr_ExceptionMatches(PyExc_BufferError) == 0) throw py::error_already_set();
    PyErr_Clear();
    return false;
  }
  held_.exported.reset(buffer.release());
  if (!look_at(*held_.exported)) refuse_type(value);
  return true;
}

bool HostArray::take_tensor(py::handle value) {
  const std::optional<Tensor> tensor = borrow_tensor(name_, value);
  if (!tensor) return false;
  held_.tensor = py::reinterpret_steal<py::object>(tensor->owner);
  look_.data = tensor->data;
  look_.type = tensor->type;
  look_.swapped = false;
  look_.writable = tensor->writable;
  look_.rank = tensor->axes.size();
  std::ranges::copy(tensor->axes, look_.axes.begin());
  std::ranges::copy(tensor->strides, look_.strides.begin());
  const StridedArray array = strided();
  look_.whole_strides = reinterpret_cast<std::uintptr_t>(look_.data) %
                            static_cast<std::uintptr_t>(size_of(look_.type)) ==
                        0;
  look_.in_place = look_.whole_strides && is_contiguous(array);
  return true;
}

void HostArray::take(const char* name, py::handle value) {
  if (!take_memory(name, value)) take_converted(value);
}

void HostArray::take_converted(py::handle value) {
  if (value.is_none()) throw TypeError(refusal(name_, "be an array", "None"));
  hold(to_numpy(name_, value));
}

void HostArray::take_destination(const char* name, py::handle value) {
  if (take_memory(name, value)) return;
  throw_made([=] { return TypeError(refusal(name, "be a writable array", describe(value))); });
}

void HostArray::check_unchanged() const {
  if (!held_.array) return;  // what is exported does not move
  Look now;
  if (look_at(held_.array.ptr(), now) && now == look_) return;
  throw StateError(std::string(name_) + " must not change while other arguments are read");
}

void HostArray::refuse_strides(const char* expectation) const {
  bool aligned = reinterpret_cast<std::uintptr_t>(look_.data) % alignof(double) == 0;
  for (std::size_t i = 0; i < look_.rank; ++i)
    aligned = aligned && look_.strides[i] % size_of(look_.type) == 0;
  const std::string strides = "strides " + to_string(look_.strides.data(), look_.rank);
  throw ValueError(refusal(name_, expectation, aligned ? strides : "memory that is not aligned"));
}

void HostArray::refuse_read_only() const {
  throw ValueError(refusal(name_, "be writable", "read-only memory"));
}

void HostArray::require_native() const {
  if (!look_.swapped) return;
  throw_made([&] {
    return TypeError(refusal(name_, "have a dtype in native byte order",
                             std::string(name_of(look_.type)) + " in the other"));
  });
}

Format HostArray::require_in_place() const {
  const auto format = storage_format(look_.type);
  if (!format || !info(*format).is_of_images)
    throw TypeError(refusal(name_, "have dtype " + names_of_image_formats(), name_of(look_.type)));
  require_native();
  if (!look_.in_place) refuse_strides("be C-contiguous and aligned");
  return *format;
}

void HostArray::require_destination(Format format) const {
  if (look_.type != element_type(format))
    throw TypeError(
        refusal(name_, std::string("have dtype ") + info(format).name, name_of(look_.type)));
  require_in_place();
  if (!look_.writable) refuse_read_only();
}

Format HostArray::require_strided_destination(Format format, Format wide) const {
  const auto own = storage_format(look_.type);
  if (own != format && own != wide) {
    throw_made([&] {
      const std::string also = format == wide ? "" : std::string(" or ") + info(wide).name;
      return TypeError(refusal(name_, std::string("have dtype ") + info(format).name + also,
                               name_of(look_.type)));
    });
  }
  require_native();
  if (!look_.whole_strides) refuse_strides("be aligned");
  if (!look_.writable) refuse_read_only();
  if (!look_.in_place && self_overlap(strided()) != Overlap::none)
    refuse_strides("have no two elements in the same memory");
  return *own;
}

std::byte* HostArray::converted(Format format, const StridedArray& seen, Underflow underflow) {
  std::int64_t bytes = info(format).size;
  for (const std::int64_t axis : seen.axes) {
    if (__builtin_mul_overflow(bytes, axis, &bytes)) throw std::bad_alloc();
  }
  held_.converted.reset(new std::byte[static_cast<std::size_t>(bytes)]);
  convert(seen, format, underflow, held_.converted.get());
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

py::array make_array(std::span<const std::int64_t> axes, Format format) {
  return py::array(to_dtype(format), std::vector<py::ssize_t>(axes.begin(), axes.end()));
}

py::object make_scalar(const void* value, Format format) {
  // An element that is read is a scalar; to call its type takes four times as long.
  const auto& arrays = made_once<[] {
    std::array<py::array, kFormats.size()> made;
    std::ranges::transform(kFormats, made.begin(), [](auto& row) {
      return make_array({}, row.of_losses);  // others are never asked for
    });
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
