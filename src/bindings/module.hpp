// The parts of the extension module; each file registers one of them.
#pragma once

#include <pybind11/pybind11.h>

namespace mpsnn_loss::bindings {

void register_devices(pybind11::module_& m);
void register_command_buffers(pybind11::module_& m);
void register_states(pybind11::module_& m);
void register_descriptors(pybind11::module_& m);
void register_images(pybind11::module_& m);
void register_kernels(pybind11::module_& m);
void register_functions(pybind11::module_& m);
/// Onto classes that are registered already.
void register_objc_pointers(pybind11::module_& m);

}  // namespace mpsnn_loss::bindings
