// The Python classes of kernels, mirroring Apple's hierarchy, as handles on one kernel.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "objects/device.hpp"

namespace mpsnn_loss::bindings {

struct KernelHandle {  // MPSKernel
  std::shared_ptr<Kernel> kernel;
};
struct CNNKernel : KernelHandle {};
struct CNNBinaryKernel : KernelHandle {};
struct ForwardLoss : CNNKernel {
  static constexpr KernelKind kind = KernelKind::forward_loss;
};
struct LossGradient : CNNBinaryKernel {
  static constexpr KernelKind kind = KernelKind::loss_gradient;
};
struct InitialGradient : CNNKernel {
  static constexpr KernelKind kind = KernelKind::initial_gradient;
};

/// None for an empty label.
inline pybind11::object to_optional(const std::string& label) {
  if (label.empty()) return pybind11::none();
  return pybind11::str(label);
}

/// Adds a read-write (or read-only) Python property for each inherited row.
void define_inherited_properties(pybind11::handle type, KernelKind kind);

/// Adds encode_batch to the three classes.
void add_encode_methods(pybind11::module_& m);

/// kernel(...): the vector calls of the forward loss and of the gradient.
PyObject* call_forward_loss(PyObject* self, PyObject* const* arguments, std::size_t given,
                            PyObject* keywords);
PyObject* call_loss_gradient(PyObject* self, PyObject* const* arguments, std::size_t given,
                             PyObject* keywords);

}  // namespace mpsnn_loss::bindings
