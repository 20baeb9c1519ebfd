#include "objects/kernel.hpp"

#include <utility>

#include "core/error.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss {
namespace {

Work work_of(KernelKind kind) {
  switch (kind) {
    case KernelKind::forward_loss: return Work::loss;
    case KernelKind::loss_gradient: return Work::gradient;
    case KernelKind::initial_gradient: return Work::initial_gradient;
  }
  return Work::loss;
}

}  // namespace

Kernel::Kernel(std::shared_ptr<Device> device, KernelKind kind, const LossDescriptor& descriptor,
               InheritedValues fresh)
    : device_(std::move(device)), kind_(kind), descriptor_(descriptor), fresh_(std::move(fresh)) {
  properties_.parameters = descriptor.parameters;
}

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
  return moved != now.moved.end() ? moved->second : fresh_[row];
}

void Kernel::fill(Request& request) const {
  const std::lock_guard lock(mutex_);
  load(properties_);
  if (!properties_.moved.empty()) {
    const auto& [row, value] = *properties_.moved.begin();
    const InheritedProperty& property = inherited_properties(kind_)[row];
    throw ValueError(refusal(property.name,
                             "be " + to_string(property.form, fresh_[row]) + " when encoding",
                             to_string(property.form, value)));
  }
  request.work = work_of(kind_);
  request.wrt = properties_.compute_label_gradients ? Wrt::labels : Wrt::predictions;
  request.descriptor = descriptor_;
  request.descriptor.parameters = properties_.parameters;
}

void Kernel::update(const std::function<void(KernelProperties&)>& change) {
  const std::lock_guard lock(mutex_);
  KernelProperties changed = properties_;
  load(changed);
  change(changed);
  std::erase_if(changed.moved, [this](const auto& row) { return row.second == fresh_[row.first]; });
  store(changed);
  properties_ = std::move(changed);
}

std::shared_ptr<Kernel> Kernel::copy(const std::shared_ptr<Device>& device) const {
  return device->copy_kernel(*this);
}

}  // namespace mpsnn_loss
