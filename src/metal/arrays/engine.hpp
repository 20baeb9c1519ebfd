// The functions on arrays with Apple's kernels. For .mm files only, after they have imported
// MetalPerformanceShaders.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/engine.hpp"
#include "metal/arrays/kernel_pool.hpp"
#include "metal/mps/short_buffer.hpp"

namespace mpsnn_loss::metal {

class MetalEngine final : public Engine {
 public:
  explicit MetalEngine(std::shared_ptr<OwnQueue> queue);
  std::string name() const override { return name_; }
  std::string supports(const Need& need) const override;
  void compute(const Computation& computation, Waiting waiting) override;

  id<MTLDevice> device() const { return queue_->device(); }
  OwnQueue& queue() { return *queue_; }
  KernelPool& kernels() { return kernels_; }
  /// How much the images of one command buffer may take.
  std::int64_t most_bytes() const;

 private:
  const std::string name_;
  const std::shared_ptr<OwnQueue> queue_;
  KernelPool kernels_;
};

}  // namespace mpsnn_loss::metal
