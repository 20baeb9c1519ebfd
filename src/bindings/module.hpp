// The parts of the extension module; each file registers one of them.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "core/loss_call.hpp"

namespace mpsnn_loss::bindings {

/// Calls on at least so many elements release the GIL: below, that costs more than the call.
inline constexpr std::int64_t kLongCall = 8192;

/// Runs a call, without the GIL where it is long.
void compute(Device& device, const LossCall& call);

void register_devices(pybind11::module_& m);
void register_command_buffers(pybind11::module_& m);
void register_descriptors(pybind11::module_& m);
void register_images(pybind11::module_& m);
void register_kernels(pybind11::module_& m);
void register_functions(pybind11::module_& m);
/// Onto classes that are registered already.
void register_objc_pointers(pybind11::module_& m);

}  // namespace mpsnn_loss::bindings
