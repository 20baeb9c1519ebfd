#include "bindings/module.hpp"

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace mpsnn_loss::bindings;
  m.doc() = "The compiled part of mpsnn_loss.";
  m.attr("__version__") = MPSNN_LOSS_VERSION;
  register_errors(m);
  register_enumerations(m);
  register_devices(m);
  register_descriptors(m);
  register_images(m);
  register_command_buffers(m);
  register_kernels(m);
  register_functions(m);
  register_objc_pointers(m);
}
