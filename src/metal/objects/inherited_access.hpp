// The inherited properties of a kernel object, row by row of objects/kernel_properties.hpp. For .mm
// files only, after they have imported MetalPerformanceShaders.
#pragma once

#include "objects/kernel.hpp"

namespace mpsnn_loss::metal {

InheritedValues get_inherited(KernelKind kind, MPSKernel* kernel);
/// Writes those that can be written and differ from what the object has.
void set_inherited(KernelKind kind, MPSKernel* kernel, const InheritedValues& values);

}  // namespace mpsnn_loss::metal
