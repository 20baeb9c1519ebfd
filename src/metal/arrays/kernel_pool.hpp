// Kernel objects between calls of the functions. For .mm files only, after they have imported
// MetalPerformanceShaders.
#pragma once

#include <cstdint>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/loss_descriptor.hpp"
#include "metal/mps/objc_ptr.hpp"
#include "objects/kernel_properties.hpp"

namespace mpsnn_loss::metal {

class KernelPool {
 public:
  KernelPool() { idle_.reserve(kMostIdle); }
  /// A kernel object for `descriptor`, whose dynamic properties are still to be set.
  objc_ptr<MPSKernel*> take(id<MTLDevice> device, KernelKind kind,
                            const LossDescriptor& descriptor);
  void give_back(KernelKind kind, const LossDescriptor& descriptor,
                 objc_ptr<MPSKernel*> kernel) noexcept;

 private:
  /// What a kernel object cannot change.
  using Key = std::tuple<KernelKind, LossType, ReductionType, bool, std::int64_t>;
  struct Entry {
    Key key;
    objc_ptr<MPSKernel*> kernel;
  };

  static constexpr std::size_t kMostIdle = 32;

  static Key key(KernelKind kind, const LossDescriptor& descriptor);

  std::mutex mutex_;
  std::vector<Entry> idle_;  // the longest unused first
};

/// A kernel object of the pool while a call uses it.
class BorrowedKernel {
 public:
  BorrowedKernel(KernelPool& pool, id<MTLDevice> device, KernelKind kind,
                 const LossDescriptor& descriptor)
      : pool_(pool),
        kind_(kind),
        descriptor_(descriptor),
        object_(pool.take(device, kind, descriptor)) {}
  ~BorrowedKernel() { pool_.give_back(kind_, descriptor_, std::move(object_)); }
  BorrowedKernel(const BorrowedKernel&) = delete;
  BorrowedKernel& operator=(const BorrowedKernel&) = delete;
  MPSKernel* get() const { return object_.get(); }

 private:
  KernelPool& pool_;
  const KernelKind kind_;
  const LossDescriptor descriptor_;
  objc_ptr<MPSKernel*> object_;
};

}  // namespace mpsnn_loss::metal
