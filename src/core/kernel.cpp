#include "core/backend.hpp"
#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

[[noreturn]] void refuse_without_metal(const Device& device) {
  throw StateError("this needs a Metal device, and the device is " + device.name());
}

}  // namespace

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

PropertyValue Kernel::inherited(std::size_t row) const {
  const KernelProperties now = properties();
  const auto moved = now.moved.find(row);
  return moved != now.moved.end() ? moved->second : fresh_value(row);
}

KernelCapture Kernel::capture() const {
  const std::lock_guard lock(mutex_);
  load(properties_);
  if (!properties_.moved.empty()) {
    const auto& [row, value] = *properties_.moved.begin();
    const InheritedProperty& property = inherited_properties(kind_)[row];
    throw ValueError(refusal(property.name,
                             "be " + to_string(property.form, fresh_value(row)) + " when encoding",
                             to_string(property.form, value)));
  }
  KernelCapture captured{descriptor_, properties_.compute_label_gradients};
  captured.descriptor.parameters = properties_.parameters;
  return captured;
}

void Kernel::update(const std::function<void(KernelProperties&)>& change) {
  const std::lock_guard lock(mutex_);
  KernelProperties changed = properties_;
  load(changed);
  change(changed);
  std::erase_if(changed.moved,
                [this](const auto& row) { return row.second == fresh_value(row.first); });
  store(changed);
  properties_ = std::move(changed);
}

std::shared_ptr<Kernel> Kernel::copy(const std::shared_ptr<Device>& device) const {
  return device->copy_kernel(*this);
}

std::string Kernel::archived_data() const { refuse_without_metal(*device_); }

std::shared_ptr<Kernel> Device::copy_kernel(const Kernel& kernel) {
  const KernelProperties properties = kernel.properties();
  auto copy = make_kernel(kernel.kind(), kernel.initial_descriptor());
  copy->update([&](KernelProperties& p) { p = properties; });
  return copy;
}

// What only an engine of Objective-C objects can do.

std::shared_ptr<Kernel> Device::unarchive_kernel(KernelKind, std::string_view) {
  refuse_without_metal(*this);
}
std::shared_ptr<Queue> Device::adopt_queue(void*) { refuse_without_metal(*this); }
std::shared_ptr<CommandBuffer> Device::adopt_command_buffer(void*) { refuse_without_metal(*this); }
std::shared_ptr<ImageBatch> Device::adopt_images(ForeignKind, void*) {
  refuse_without_metal(*this);
}

}  // namespace mpsnn_loss
