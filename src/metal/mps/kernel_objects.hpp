// Kernel objects of Apple's: making them, and reading and writing what changes between encodes. For
// .mm files only, after they have imported MetalPerformanceShaders.
#pragma once

#include "core/loss_descriptor.hpp"
#include "metal/mps/objc_ptr.hpp"
#include "objects/kernel_properties.hpp"

namespace mpsnn_loss::metal {

Class class_of(KernelKind kind);

/// A new kernel object. Throws StateError where Metal has none.
objc_ptr<MPSKernel*> new_kernel_object(id<MTLDevice> device, KernelKind kind,
                                       const LossDescriptor& descriptor);

/// What of a kernel object changes between encodes.
struct DynamicProperties {
  LossParameters parameters;
  bool compute_label_gradients = false;
};
DynamicProperties dynamic_properties(KernelKind kind, MPSKernel* kernel);
void set_dynamic_properties(KernelKind kind, MPSKernel* kernel,
                            const DynamicProperties& properties);

/// The descriptor that a kernel object follows.
LossDescriptor descriptor_of(KernelKind kind, MPSKernel* kernel);

}  // namespace mpsnn_loss::metal
