#include "core/backend.hpp"

namespace mpsnn_loss {

LossDescriptor Kernel::descriptor() const {
  const std::lock_guard lock(mutex_);
  LossDescriptor descriptor = descriptor_;
  descriptor.parameters = properties_.parameters;
  return descriptor;
}

KernelProperties Kernel::properties() const {
  const std::lock_guard lock(mutex_);
  return properties_;
}

void Kernel::update(const std::function<void(KernelProperties&)>& change) {
  const std::lock_guard lock(mutex_);
  KernelProperties changed = properties_;
  change(changed);
  store(changed);
  properties_ = std::move(changed);
}

std::shared_ptr<Kernel> Kernel::copy(const std::shared_ptr<Device>& device) const {
  const KernelProperties properties = this->properties();
  auto kernel = device->make_kernel(kind_, descriptor_);
  kernel->update([&](KernelProperties& p) { p = properties; });
  return kernel;
}

}  // namespace mpsnn_loss
