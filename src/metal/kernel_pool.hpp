// Kernel objects between one-call functions. For .mm files only.
#pragma once

#include <mutex>
#include <tuple>
#include <vector>

#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {

class KernelPool {
 public:
  /// Adopted for the caller, whose it is until given back.
  void* take(void* device, KernelKind kind, const LossDescriptor& descriptor) {
    {
      const std::lock_guard lock(mutex_);
      for (auto entry = idle_.begin(); entry != idle_.end(); ++entry) {
        if (entry->key != key(kind, descriptor)) continue;
        MPSKernel* const kernel = [entry->kernel.get() retain];
        idle_.erase(entry);
        return kernel;
      }
    }
    return new_kernel_object(device, kind, descriptor);
  }

  void give_back(KernelKind kind, const LossDescriptor& descriptor, void* kernel) {
    const std::lock_guard lock(mutex_);
    if (idle_.size() >= kMostIdle) idle_.erase(idle_.begin());
    idle_.push_back({key(kind, descriptor), objc_ptr<MPSKernel*>::adopted((MPSKernel*)kernel)});
  }

 private:
  /// What a kernel object cannot change.
  using Key = std::tuple<KernelKind, LossType, ReductionType, bool, std::int64_t>;
  struct Entry {
    Key key;
    objc_ptr<MPSKernel*> kernel;
  };
  static constexpr std::size_t kMostIdle = 32;

  static Key key(KernelKind kind, const LossDescriptor& d) {
    return {kind, d.loss_type, d.reduction_type, d.reduce_across_batch, d.number_of_classes};
  }

  std::mutex mutex_;
  std::vector<Entry> idle_;  // the longest unused first
};

}  // namespace mpsnn_loss::metal
