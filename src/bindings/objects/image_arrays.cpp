#include "bindings/objects/image_arrays.hpp"

#include <pybind11/numpy.h>

#include <array>
#include <span>
#include <string>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// All images of a batch as one array, or one image as an array of a rank less.
struct ArrayOfImages {
  BatchPointer batch;
  ImageRange images;
  bool is_one;

  explicit ArrayOfImages(const BatchPointer& all) : batch(all), images(all->all()), is_one(false) {}
  explicit ArrayOfImages(const Image& image)
      : batch(image.batch), images{image.index, 1}, is_one(true) {}

  const char* noun() const { return is_one ? "image" : "batch"; }
  const FormatInfo& format() const { return info(batch->descriptor().format); }
  std::vector<py::ssize_t> axes() const {
    const auto all = batch->shape().axes();
    return {all.begin() + (is_one ? 1 : 0), all.end()};
  }
  std::int64_t bytes() const { return images.count * batch->descriptor().image_bytes(); }
  void check_readable() const { batch->check_readable(images); }
  /// Null where they are not one array in host memory.
  std::byte* data() const {
    std::byte* const all = batch->data();
    return all == nullptr ? nullptr : all + images.first * batch->descriptor().image_bytes();
  }
  std::string not_in_memory() const {
    return is_one ? "the image is not in host memory"
                  : "the images of this batch are not one array in host memory";
  }
};

/// What a buffer view of images points to while it is exported.
struct ExportedShape {
  std::array<Py_ssize_t, 4> axes, strides;
  char format[2];
};

/// Refused until the images may be read, and off the host.
template <class Images>
int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  view->obj = nullptr;
  const auto refuse = [](const std::string& why) {
    PyErr_SetString(PyExc_BufferError, why.c_str());
    return -1;
  };
  try {
    const ArrayOfImages array(py::cast<Images>(py::handle(self)));
    array.check_readable();
    if (array.data() == nullptr) {
      return refuse(array.not_in_memory() +
                    (array.is_one ? "; use read_bytes()" : "; use to_array()"));
    }
    const std::string subject = std::string("the ") + array.noun();
    const bool is_writable = array.batch->writable();
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS)
      return refuse(subject + " is C-contiguous, not Fortran contiguous");
    if ((flags & PyBUF_WRITABLE) != 0 && !is_writable)
      return refuse(subject + " borrows read-only memory");
    const FormatInfo& format = array.format();
    auto* const exported = new ExportedShape{{}, {}, {format.code, '\0'}};
    Py_ssize_t stride = format.size;
    const auto axes = array.axes();
    for (std::size_t i = axes.size(); i-- > 0;) {
      exported->axes[i] = axes[i];
      exported->strides[i] = stride;
      stride *= axes[i];
    }
    *view = {};
    view->buf = array.data();
    view->obj = py::handle(self).inc_ref().ptr();
    view->len = array.bytes();
    view->itemsize = format.size;
    view->readonly = is_writable ? 0 : 1;
    view->ndim = static_cast<int>(axes.size());
    view->format = (flags & PyBUF_FORMAT) != 0 ? exported->format : nullptr;
    view->shape = (flags & PyBUF_ND) != 0 ? exported->axes.data() : nullptr;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? exported->strides.data() : nullptr;
    view->internal = exported;
    return 0;
  } catch (const std::exception& error) {
    return refuse(error.what());
  }
}

void release_buffer(PyObject*, Py_buffer* view) {
  delete static_cast<ExportedShape*>(view->internal);
}

/// NumPy's view, which keeps `images`; read-only where they are.
template <class Images>
py::array view_of(const ArrayOfImages& array, const Images& images) {
  py::array view(to_dtype(array.format().format), array.axes(), array.data(), py::cast(images));
  if (!array.batch->writable()) view.attr("setflags")(py::arg("write") = false);
  return view;
}

py::array copy_of(const ArrayOfImages& array) {
  const auto axes = array.axes();
  const std::vector<std::int64_t> extents(axes.begin(), axes.end());
  py::array fresh = make_array(extents, array.format().format);
  array.batch->download(array.images.first, array.images.count,
                        static_cast<std::byte*>(fresh.mutable_data()));
  return fresh;
}

/// Asks first whether it can be one at all: where __repr__ raises, NumPy's own refusal loses what
/// it raised on some versions of CPython 3.11.
py::dtype to_numpy_dtype(const py::object& value) {
  PyObject* const v = value.ptr();
  const bool may_be = is_numpy_dtype(value) || PyUnicode_Check(v) != 0 || PyBytes_Check(v) != 0 ||
                      PyType_Check(v) != 0 || PyTuple_Check(v) != 0 || PyList_Check(v) != 0 ||
                      PyDict_Check(v) != 0 || find_attribute(value, "dtype") ||
                      find_attribute(value, "__numpy_dtype__");
  if (!may_be) throw TypeError(refusal("dtype", "be a dtype of NumPy", describe(value)));
  return py::dtype::from_args(value);
}

/// NumPy's __array__: shares the memory where it can.
template <class Images>
py::object array_interface(const Images& images, py::object dtype, py::object copy) {
  const ArrayOfImages array(images);
  array.check_readable();
  const bool shared = array.data() != nullptr;
  if (!shared && copy.ptr() == Py_False) {
    throw ValueError(refusal("copy",
                             array.is_one
                                 ? "not be False where the image is not in host memory"
                                 : "not be False where the images are not one array in host memory",
                             "False"));
  }
  py::object result = shared ? view_of(array, images) : copy_of(array);
  const bool converts =
      !dtype.is_none() && !to_numpy_dtype(dtype).equal(to_dtype(array.format().format));
  if (converts && copy.ptr() == Py_False)
    throw ValueError(refusal("copy", "not be False where the dtype changes", "False"));
  if (converts) return result.attr("astype")(dtype);
  return copy.ptr() == Py_True && shared ? result.attr("copy")() : result;
}

/// DLPack, through NumPy's own export of the shared memory.
template <class Images>
py::object dlpack(const Images& images, py::kwargs options) {
  const ArrayOfImages array(images);
  try {
    array.check_readable();
  } catch (const std::exception& error) {
    throw py::buffer_error(error.what());
  }
  if (array.data() == nullptr) throw py::buffer_error(array.not_in_memory());
  // NumPy asks whether it is true, in words that do not name it.
  if (options.contains("copy") && !options["copy"].is_none())
    options["copy"] = py::bool_(to_bool("copy", options["copy"]));
  return view_of(array, images).attr("__dlpack__")(**options);
}

}  // namespace

template <class Images>
void set_buffer_protocol(PyHeapTypeObject* type) {
  type->ht_type.tp_as_buffer = &type->as_buffer;
  type->as_buffer.bf_getbuffer = get_buffer<Images>;
  type->as_buffer.bf_releasebuffer = release_buffer;
}

template <class Images, class Class>
void define_array_protocols(Class& type) {
  type.def("__array__", &array_interface<Images>, py::arg("dtype") = py::none(),
           py::arg("copy") = py::none(), "__array__(self, dtype=None, copy=None)\n--\n\n");
  type.def("__dlpack__", &dlpack<Images>,
           "__dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n");
  type.def(
      "__dlpack_device__", [](const Images&) { return py::make_tuple(1, 0); },
      "__dlpack_device__(self)\n--\n\n");
}

template void set_buffer_protocol<BatchPointer>(PyHeapTypeObject*);
template void set_buffer_protocol<Image>(PyHeapTypeObject*);
template void define_array_protocols<BatchPointer>(py::class_<ImageBatch, BatchPointer>&);
template void define_array_protocols<Image>(py::class_<Image>&);

}  // namespace mpsnn_loss::bindings
