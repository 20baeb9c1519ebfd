#include "objects/device.hpp"

#include "core/error.hpp"

namespace mpsnn_loss {

void Device::check_images(const char* argument, const BatchDescriptor& descriptor) const {
  if (const std::string why = engine().supports({.format = descriptor.format}); !why.empty())
    throw TypeError(refusal(argument, "have a dtype of the device", why));
  if (const std::string why = supports_images(descriptor.shape); !why.empty()) {
    throw ValueError(
        refusal(argument, "have a size of the device (" + why + ")", to_string(descriptor.shape)));
  }
}

std::shared_ptr<Kernel> Device::make_kernel(KernelKind kind, const LossDescriptor& descriptor) {
  if (kind != KernelKind::initial_gradient) {
    check(descriptor);
    if (const std::string why = engine().supports({.loss = descriptor}); !why.empty())
      throw StateError(refusal("device", "support the loss", why));
  }
  return new_kernel(kind, descriptor);
}

std::shared_ptr<Kernel> Device::copy_kernel(const Kernel& kernel) {
  const KernelProperties properties = kernel.properties();
  auto copy = make_kernel(kernel.kind(), kernel.initial_descriptor());
  copy->update([&](KernelProperties& p) { p = properties; });
  return copy;
}

}  // namespace mpsnn_loss
