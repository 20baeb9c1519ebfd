// What the parts of the Metal engine know of each other. Plain C++: objects of Objective-C pass as
// void*, borrowed unless said otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/backend.hpp"
#include "core/loss_call.hpp"

namespace mpsnn_loss::metal {

// images.mm
/// Throws ValueError or TypeError where an image of this size or format cannot be an MPSImage.
void check_limits(const char* argument, const BatchDescriptor& descriptor);
std::shared_ptr<ImageBatch> make_images(std::shared_ptr<Device> device,
                                        const BatchDescriptor& descriptor, bool zero_filled);
/// A copy of host memory; results are copied back to it, so `owner` lives as long as the images.
std::shared_ptr<ImageBatch> upload_images(std::shared_ptr<Device> device,
                                          const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, std::shared_ptr<void> owner);
/// The images as NSArray<MPSImage*>*, autoreleased; a batch of one image stands for each of
/// `count`.
void* image_array(const ImageBatch& batch, std::int64_t count);

// kernels.mm
class MetalKernel : public Kernel {
 public:
  using Kernel::Kernel;
  /// Calls encode(kernel object) while nobody changes the kernel, with the call's captured
  /// properties on it.
  virtual void encode_with(const LossCall& call, const std::function<void(void*)>& encode) = 0;
};
std::shared_ptr<MetalKernel> make_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                         const LossDescriptor& descriptor);

// inherited_access.mm: the inherited properties of an MPSKernel, row by row of
// core/kernel_properties.hpp
/// Writes those that differ from what the object has.
void set_inherited(KernelKind kind, void* kernel, const KernelProperties& properties);
/// Reads all; `properties` keeps none where every one is at its default.
void get_inherited(KernelKind kind, void* kernel, KernelProperties& properties);

// encode.mm
/// Encodes a call whose operands are images onto an id<MTLCommandBuffer>; results are synchronised
/// for reading.
void encode_call(void* command_buffer, const LossCall& call);

// queue.mm
std::shared_ptr<Queue> make_queue(std::shared_ptr<Device> device, const std::string& label);

// array_calls.mm
/// Runs a call on host arrays and returns when it is done.
void compute(const std::shared_ptr<Device>& device, const LossCall& call);

}  // namespace mpsnn_loss::metal
