// A Metal device. For .mm files only, after they have imported MetalPerformanceShaders.
#pragma once

#include <memory>
#include <string>

#include "metal/mps/short_buffer.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss::metal {

class MetalDevice final : public Device {
 public:
  MetalDevice(std::shared_ptr<OwnQueue> queue, std::shared_ptr<Engine> engine)
      : Device(std::move(engine), "metal"), queue_(std::move(queue)) {}

  std::string supports_images(const Shape& shape) const override;
  std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) override;
  std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, MemoryOwner owner) override;
  std::shared_ptr<Kernel> copy_kernel(const Kernel& kernel) override;
  std::shared_ptr<Queue> make_queue(const std::string& label) override;

  id<MTLDevice> object() const { return queue_->device(); }
  /// For kernels that are called directly.
  OwnQueue& own_queue() { return *queue_; }

 private:
  std::shared_ptr<Kernel> new_kernel(KernelKind kind, const LossDescriptor& descriptor) override;

  const std::shared_ptr<OwnQueue> queue_;
};

/// Of a device that is one of Metal.
inline MetalDevice& as_metal(Device& device) { return static_cast<MetalDevice&>(device); }
inline id<MTLDevice> metal_device(const Device& device) {
  return static_cast<const MetalDevice&>(device).object();
}

}  // namespace mpsnn_loss::metal
