// Kernel objects between one-call functions.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/kernel_properties.hpp"
#include "core/loss_descriptor.hpp"

namespace mpsnn_loss::metal {

class KernelPool {
 public:
  /// Adopted for the caller, whose it is until given back.
  void* take(void* device, KernelKind kind, const LossDescriptor& descriptor);
  void give_back(KernelKind kind, const LossDescriptor& descriptor, void* kernel);

 private:
  /// What a kernel object cannot change.
  using Key = std::tuple<KernelKind, LossType, ReductionType, bool, std::int64_t>;
  struct Entry {
    Key key;
    std::shared_ptr<void> kernel;
  };

  static Key key(KernelKind kind, const LossDescriptor& descriptor);

  std::mutex mutex_;
  std::vector<Entry> idle_;  // the longest unused first
};

}  // namespace mpsnn_loss::metal
