// Images as arrays of Python: the buffer protocol, __array__ and DLPack, which share the memory of
// images on the host.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "objects/device.hpp"

namespace mpsnn_loss::bindings {

using BatchPointer = std::shared_ptr<ImageBatch>;

// Of the class whose instances hold an `Images`: BatchPointer, an array [N, H, W, C], or Image, an
// array [H, W, C].
/// For the set-up of the class.
template <class Images>
void set_buffer_protocol(PyHeapTypeObject* type);
/// Adds __array__, __dlpack__ and __dlpack_device__.
template <class Images, class Class>
void define_array_protocols(Class& type);

}  // namespace mpsnn_loss::bindings
