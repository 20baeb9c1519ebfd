#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "metal/arrays/kernel_pool.hpp"
#include "metal/mps/kernel_objects.hpp"

namespace mpsnn_loss::metal {

KernelPool::Key KernelPool::key(KernelKind kind, const LossDescriptor& d) {
  return {kind, d.loss_type, d.reduction_type, d.reduce_across_batch, d.number_of_classes};
}

objc_ptr<MPSKernel*> KernelPool::take(id<MTLDevice> device, KernelKind kind,
                                      const LossDescriptor& descriptor) {
  {
    const std::lock_guard lock(mutex_);
    for (auto entry = idle_.begin(); entry != idle_.end(); ++entry) {
      if (entry->key != key(kind, descriptor)) continue;
      objc_ptr<MPSKernel*> kernel = std::move(entry->kernel);
      idle_.erase(entry);
      return kernel;
    }
  }
  return new_kernel_object(device, kind, descriptor);
}

void KernelPool::give_back(KernelKind kind, const LossDescriptor& descriptor,
                           objc_ptr<MPSKernel*> kernel) noexcept {
  const std::lock_guard lock(mutex_);
  if (idle_.size() >= kMostIdle) idle_.erase(idle_.begin());
  idle_.push_back({key(kind, descriptor), std::move(kernel)});
}

}  // namespace mpsnn_loss::metal
