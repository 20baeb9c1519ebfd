#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "metal/mps/limits.hpp"
#include "metal/objects/device.hpp"
#include "metal/objects/images.hpp"
#include "metal/objects/kernels.hpp"
#include "metal/objects/queue.hpp"

namespace mpsnn_loss::metal {

std::string MetalDevice::supports_images(const Shape& shape) const {
  return unsupported_size(shape);
}

std::shared_ptr<ImageBatch> MetalDevice::make_images(const BatchDescriptor& descriptor) {
  check_images("images", descriptor);  // MPS would abort
  const auto images = metal::make_images(shared_from_this(), descriptor);
  images->fill_with_zeros();
  return images;
}

std::shared_ptr<ImageBatch> MetalDevice::wrap_images(const BatchDescriptor& descriptor,
                                                     std::byte* data, bool writable,
                                                     MemoryOwner owner) {
  check_images("array", descriptor);
  return upload_images(shared_from_this(), descriptor, data, writable, std::move(owner));
}

std::shared_ptr<Kernel> MetalDevice::new_kernel(KernelKind kind, const LossDescriptor& descriptor) {
  return metal::make_kernel(shared_from_this(), kind, descriptor);
}

std::shared_ptr<Kernel> MetalDevice::copy_kernel(const Kernel& kernel) {
  const auto* const ours = dynamic_cast<const MetalKernel*>(&kernel);
  if (ours == nullptr) return Device::copy_kernel(kernel);
  return metal::copy_kernel(shared_from_this(), *ours);
}

std::shared_ptr<Queue> MetalDevice::make_queue(const std::string& label) {
  return metal::make_queue(shared_from_this(), label);
}

}  // namespace mpsnn_loss::metal
