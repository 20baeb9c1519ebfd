// What the garbage collector sees of Python objects that C++ holds: arrays whose memory images
// borrow.
//
// Images hold the lender of their memory, an object of Python that holds the array, and so does
// each Python object that stands for the images or has them encoded. The collector counts
// references: one that C++ holds looks to it like one from outside, so the lender shows it to the
// collector as its own where nobody but such Python objects holds the images. What is in flight,
// and what else holds images, keeps the array.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/arrays.hpp"
#include "bindings/instances.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss::bindings {

/// Images on `data`, the memory of an array or what was made of it, which they keep until any
/// thread lets go of them.
std::shared_ptr<ImageBatch> borrow(Device& device, const BatchDescriptor& descriptor,
                                   std::byte* data, bool writable, HeldMemory memory);

/// For the set-up of classes whose instances hold images.
void collect_images(PyHeapTypeObject* heap);
/// The instance holds these from here on.
void attach_images(PyObject* self, const ImageBatch& images);
inline void attach_images(PyObject* self, const Image& image) { attach_images(self, *image.batch); }

/// Attaches what each new instance of such a class, whose C++ object is a T, is made with.
template <class T>
void attach_when_made(pybind11::handle type) {
  auto* const info = pybind11::detail::get_type_info(reinterpret_cast<PyTypeObject*>(type.ptr()));
  static const auto make = info->init_instance;
  info->init_instance = [](pybind11::detail::instance* self, const void* holder) {
    make(self, holder);
    auto* const object = reinterpret_cast<PyObject*>(self);
    attach_images(object, *contents<T>(object));
  };
}

// The calls of an open command buffer hold images too.
/// Whether there is anything to attach.
bool lends_memory();
/// After the encode.
void attach_call(PyObject* buffer, const Encode& call) noexcept;
/// Before the commit, or before the buffer is discarded: from then on other threads drop the
/// images.
void detach_calls(PyObject* buffer) noexcept;
int traverse_calls(PyObject* buffer, visitproc visit, void* arg);

}  // namespace mpsnn_loss::bindings
