#include "metal/kernel_pool.hpp"

#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

constexpr std::size_t kMostIdle = 32;

}  // namespace

KernelPool::Key KernelPool::key(KernelKind kind, const LossDescriptor& d) {
  return {kind, d.loss_type, d.reduction_type, d.reduce_across_batch, d.number_of_classes};
}

void* KernelPool::take(void* device, KernelKind kind, const LossDescriptor& descriptor) {
  {
    const std::lock_guard lock(mutex_);
    for (auto entry = idle_.begin(); entry != idle_.end(); ++entry) {
      if (entry->key != key(kind, descriptor)) continue;
      MPSKernel* const kernel = [(MPSKernel*)entry->kernel.get() retain];
      idle_.erase(entry);
      return kernel;
    }
  }
  return new_kernel_object(device, kind, descriptor);
}

void KernelPool::give_back(KernelKind kind, const LossDescriptor& descriptor, void* kernel) {
  const std::lock_guard lock(mutex_);
  if (idle_.size() >= kMostIdle) idle_.erase(idle_.begin());
  idle_.push_back({key(kind, descriptor), {kernel, [](void* object) { release((id)object); }}});
}

}  // namespace mpsnn_loss::metal
