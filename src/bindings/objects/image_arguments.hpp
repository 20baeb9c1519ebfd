// Image arguments: batches, sequences of images, and arrays, which are wrapped without a copy where
// the device allows.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/arrays.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss::bindings {

/// An MPSImageBatch, a sequence of MPSImage, or a C-contiguous array of rank 4 or 2. Taken first,
/// while code of others may run, and made into images once all arguments of a call are taken.
class ImageArgument {
 public:
  /// Throws TypeError for anything else, and what is wrong with an array.
  ImageArgument(const char* name, pybind11::handle value);
  /// Whether taking it may have run code of others.
  bool may_have_run_code() const { return may_have_run_code_; }
  /// RuntimeError where an array has changed since.
  void check_unchanged() const;
  /// ValueError or TypeError where the device cannot have such images.
  std::shared_ptr<ImageBatch> images(const std::shared_ptr<Device>& device);

 private:
  const char* name_;
  bool may_have_run_code_ = false;
  std::optional<HostArray> array_;  // and what images on it are, or
  BatchDescriptor descriptor_;
  std::shared_ptr<ImageBatch> images_;
};

/// The same in one step.
std::shared_ptr<ImageBatch> to_images(const char* name, pybind11::handle value,
                                      const std::shared_ptr<Device>& device);
/// Images from an array of a storage format in any layout; wrapped where it is C-contiguous, else
/// copied.
std::shared_ptr<ImageBatch> images_of_array(const char* name, pybind11::handle value,
                                            const std::shared_ptr<Device>& device);

/// The axes [N, H, W, C] or [N, C] as images. ValueError for others, and for empty ones.
BatchDescriptor to_batch(const char* name, std::span<const std::int64_t> axes, Format format);

}  // namespace mpsnn_loss::bindings
