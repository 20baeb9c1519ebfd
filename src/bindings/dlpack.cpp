#include "bindings/dlpack.hpp"

#include <string>

#include "bindings/arguments.hpp"
#include "bindings/element_types.hpp"
#include "bindings/foreign_arrays.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

// The structures of DLPack 1 (dlpack.h of dmlc/dlpack, an ABI).

struct DLDevice {
  std::int32_t device_type, device_id;
};
struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t *shape, *strides;  // strides in elements; null: C-contiguous
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLManagedTensorVersioned {
  std::uint32_t major, minor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

constexpr std::int32_t kHost = 1;
constexpr std::uint64_t kReadOnly = 1;
constexpr std::int32_t kMostAxes = 64;

/// NumPy cannot make an array of them where they are bfloat16.
bool is_torch_tensor(py::handle value) {
  PyObject* const type = imported("torch", "Tensor");
  return type != nullptr && PyType_Check(type) != 0 &&
         PyType_IsSubtype(Py_TYPE(value.ptr()), reinterpret_cast<PyTypeObject*>(type)) != 0;
}

bool is_on_host(const char* name, py::handle value) {
  const py::object device = value.attr("__dlpack_device__")();
  if (PyTuple_Check(device.ptr()) == 0 || PyTuple_GET_SIZE(device.ptr()) != 2)
    throw TypeError(refusal(name, "give a pair as its __dlpack_device__", describe(device)));
  // Libraries use enumerations of their own, which are integers.
  return to_integer(name, PyTuple_GET_ITEM(device.ptr(), 0)) == kHost;
}

/// The capsule, in the newer form where its library knows that.
py::object export_tensor(py::handle value) {
  try {
    return value.attr("__dlpack__")(py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return value.attr("__dlpack__")();
}

/// Takes the tensor out of its capsule; the result gives it back when it is dropped.
template <class Managed>
PyObject* own(py::handle capsule, Managed* managed, const char* used) {
  PyObject* const owner = PyCapsule_New(managed, nullptr, [](PyObject* self) {
    auto* const held = static_cast<Managed*>(PyCapsule_GetPointer(self, nullptr));
    if (held->deleter != nullptr) held->deleter(held);
  });
  if (owner == nullptr) throw py::error_already_set();
  PyCapsule_SetName(capsule.ptr(), used);
  return owner;
}

Tensor read(const char* name, py::handle value, const DLTensor& tensor, bool writable) {
  Tensor result{nullptr,
                static_cast<std::byte*>(tensor.data) + tensor.byte_offset,
                ElementType::float32,
                writable,
                {},
                {}};
  const DLDataType& dtype = tensor.dtype;
  if (!dlpack_type_of(dtype.code, dtype.bits, dtype.lanes, result.type)) {
    throw TypeError(refusal(name, "have a real dtype (float16, float32, float64, integer or bool)",
                            describe(value)));
  }
  if (tensor.device.device_type != kHost || tensor.ndim < 0 || tensor.ndim > kMostAxes)
    throw TypeError(refusal(name, "be a tensor on the host", describe(value)));
  const std::int64_t size = size_of(result.type);
  const auto rank = static_cast<std::size_t>(tensor.ndim);
  result.axes.assign(tensor.shape, tensor.shape + rank);
  result.strides.resize(rank);
  if (tensor.strides == nullptr) {
    set_contiguous_strides(result.axes, size, result.strides.data());
  } else {
    for (std::size_t i = 0; i < rank; ++i) result.strides[i] = tensor.strides[i] * size;
  }
  return result;
}

}  // namespace

std::optional<Tensor> borrow_tensor(const char* name, py::handle value) {
  const auto type =
      py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())));
  if (!find_attribute(type, "__dlpack__") || !find_attribute(type, "__dlpack_device__") ||
      (gives_an_array(value) && !is_torch_tensor(value)) || !is_on_host(name, value)) {
    return std::nullopt;
  }
  refuse_hidden(name, value);
  const py::object capsule = export_tensor(value);
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    auto* const managed = static_cast<DLManagedTensorVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->major != 1)
      throw TypeError(refusal(name, "speak version 1 of DLPack", std::to_string(managed->major)));
    Tensor tensor = read(name, value, managed->dl_tensor, (managed->flags & kReadOnly) == 0);
    tensor.owner = own(capsule, managed, "used_dltensor_versioned");
    return tensor;
  }
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
    auto* const managed =
        static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    // The older form does not say whether it may be written; PyTorch's may.
    Tensor tensor = read(name, value, managed->dl_tensor, is_torch_tensor(value));
    tensor.owner = own(capsule, managed, "used_dltensor");
    return tensor;
  }
  throw TypeError(refusal(name, "give a capsule of DLPack", describe(capsule)));
}

}  // namespace mpsnn_loss::bindings
