// What the descriptors share with the images and kernels made from them.
#pragma once

#include "core/loss_descriptor.hpp"
#include "core/shape.hpp"

namespace mpsnn_loss::bindings {

/// MPSImageDescriptor: one image.
struct ImageDescriptor {
  BatchDescriptor batch;
};

/// A UserWarning where smoothing would add all of s to every channel (Apple's default of one
/// class).
void warn_of_one_class(const LossDescriptor& descriptor);

}  // namespace mpsnn_loss::bindings
