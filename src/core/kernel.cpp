#include "core/backend.hpp"

namespace mpsnn_loss {

LossDescriptor Kernel::descriptor() const {
  LossDescriptor descriptor = descriptor_;
  descriptor.parameters = properties().parameters;
  return descriptor;
}

KernelProperties Kernel::properties() const {
  const std::lock_guard lock(mutex_);
  load(properties_);
  return properties_;
}

KernelCapture Kernel::capture() const {
  const std::lock_guard lock(mutex_);
  load(properties_);
  check_encodable(kind_, properties_);
  KernelCapture captured{descriptor_, properties_.compute_label_gradients};
  captured.descriptor.parameters = properties_.parameters;
  return captured;
}

void Kernel::update(const std::function<void(KernelProperties&)>& change) {
  const std::lock_guard lock(mutex_);
  KernelProperties changed = properties_;
  load(changed);
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
