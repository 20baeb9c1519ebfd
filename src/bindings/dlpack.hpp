// Tensors of other libraries in host memory, by the DLPack protocol.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "core/strided_array.hpp"

namespace mpsnn_loss::bindings {

struct Tensor {
  PyObject* owner;  // a new reference; the tensor is given back when it is dropped
  std::byte* data;
  ElementType type;
  bool writable;
  std::vector<std::int64_t> axes, strides;  // strides in bytes
};

/// Nothing where `value` does not speak DLPack, gives an array of NumPy itself, or does not lie on
/// the host. TypeError naming the argument where its elements are no real numbers or what it gives
/// is no tensor; exceptions of its own pass. Runs code of others.
std::optional<Tensor> borrow_tensor(const char* name, pybind11::handle value);

}  // namespace mpsnn_loss::bindings
