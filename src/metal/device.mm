#include "metal/device.hpp"

#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "core/error.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

class MetalDevice final : public Device {
 public:
  explicit MetalDevice(id<MTLDevice> device)
      : device_(objc_ptr<id<MTLDevice>>::retained(device)), name_([[device name] UTF8String]) {}

  std::string name() const override { return name_; }
  std::string kind() const override { return "metal"; }
  std::string supports(Format format) const override {
    if (format != Format::float64) return {};
    return "metal: float64 is not a storage format of Metal images; float16 and float32 are";
  }
  std::string supports(const LossDescriptor& descriptor) const override {
    if (@available(macOS 11.0, *)) return {};
    return descriptor.reduces_across_batch() ? "metal: reduce_across_batch needs macOS 11 or newer"
                                             : "";
  }

  std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) override {
    return metal::make_images(shared_from_this(), descriptor, true);
  }
  std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, std::shared_ptr<void> owner) override {
    return upload_images(shared_from_this(), descriptor, data, writable, std::move(owner));
  }
  std::shared_ptr<Kernel> make_kernel(KernelKind kind, const LossDescriptor& descriptor) override {
    if (kind != KernelKind::initial_gradient) check(descriptor);
    return metal::make_kernel(shared_from_this(), kind, descriptor);
  }
  std::shared_ptr<Queue> make_queue(const std::string& label) override {
    return metal::make_queue(shared_from_this(), label);
  }
  void compute(const LossCall& call) override { metal::compute(shared_from_this(), call); }
  void* native_handle() const override { return device_.get(); }

 private:
  const objc_ptr<id<MTLDevice>> device_;
  const std::string name_;
};

/// The class exists since macOS 10.15.
bool has_loss_kernels() {
  if (@available(macOS 10.15, *)) return NSClassFromString(@"MPSNNLossGradient") != nil;
  return false;
}

}  // namespace

std::vector<std::shared_ptr<Device>> make_devices(std::string& reason) {
  std::vector<std::shared_ptr<Device>> devices;
  guarded("looking for Metal devices", [&] {
    if (!has_loss_kernels()) {
      reason = "MPSNNLossGradient needs macOS 10.15 or newer";
      return;
    }
    const auto preferred = objc_ptr<id<MTLDevice>>::adopted(MTLCreateSystemDefaultDevice());
    if (!preferred) {
      reason = "this machine has no Metal device";
      return;
    }
    const auto all = objc_ptr<NSArray<id<MTLDevice>>*>::adopted(MTLCopyAllDevices());
    const auto add = [&](id<MTLDevice> device) {
      if (MPSSupportsMTLDevice(device)) {
        devices.push_back(std::make_shared<MetalDevice>(device));
      } else {
        reason = std::string(reason.empty() ? "" : reason + "; ") + "MPS does not support " +
                 [[device name] UTF8String];
      }
    };
    add(preferred.get());
    for (id<MTLDevice> device in all.get()) {
      if ([device registryID] != [preferred.get() registryID]) add(device);
    }
  });
  return devices;
}

}  // namespace mpsnn_loss::metal
