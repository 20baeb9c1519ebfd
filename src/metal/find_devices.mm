#import <CoreGraphics/CoreGraphics.h>
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "core/error.hpp"
#include "metal/arrays/engine.hpp"
#include "metal/device.hpp"
#include "metal/mps/objc_guard.hpp"
#include "metal/objects/device.hpp"

namespace mpsnn_loss::metal {
namespace {

/// The class exists since macOS 10.15.
bool has_loss_kernels() {
  if (@available(macOS 10.15, *)) return NSClassFromString(@"MPSNNLossGradient") != nil;
  return false;
}

/// MTLCreateSystemDefaultDevice returns nil to a command-line process without CoreGraphics. A
/// linker may drop a library of which nothing is used.
[[gnu::used]] const void* const core_graphics = &CGRectNull;

/// What the two calls of Metal answer: either may know a device that the other does not.
struct Answers {
  objc_ptr<id<MTLDevice>> preferred;
  objc_ptr<NSArray<id<MTLDevice>>*> all;

  Answers()
      : preferred(objc_ptr<id<MTLDevice>>::adopted(MTLCreateSystemDefaultDevice())),
        all(objc_ptr<NSArray<id<MTLDevice>>*>::adopted(MTLCopyAllDevices())) {}

  std::string text() const {
    return std::string("MTLCreateSystemDefaultDevice returned ") + (preferred ? "one" : "nil") +
           ", MTLCopyAllDevices " + std::to_string([all.get() count]);
  }
};

/// Throws StateError where Objective-C raises.
std::vector<std::shared_ptr<Device>> find_devices(std::string& reason) {
  std::vector<std::shared_ptr<Device>> devices;
  guarded("looking for Metal devices", [&] {
    if (!has_loss_kernels()) {
      reason = "MPSNNLossGradient needs macOS 10.15 or newer";
      return;
    }
    const Answers answers;
    std::string unsupported;
    const auto add = [&](id<MTLDevice> device) {
      if (MPSSupportsMTLDevice(device)) {
        auto queue = std::make_shared<OwnQueue>(objc_ptr<id<MTLDevice>>::retained(device));
        auto engine = std::make_shared<MetalEngine>(queue);
        devices.push_back(std::make_shared<MetalDevice>(std::move(queue), std::move(engine)));
      } else {
        unsupported += std::string("; MPS does not support ") + [[device name] UTF8String];
      }
    };
    const id<MTLDevice> preferred = answers.preferred.get();
    if (preferred != nil) add(preferred);
    for (id<MTLDevice> device in answers.all.get()) {
      if (preferred == nil || [device registryID] != [preferred registryID]) add(device);
    }
    if (devices.empty()) reason = answers.text() + unsupported;
  });
  return devices;
}

}  // namespace

std::vector<std::shared_ptr<Device>> make_devices(std::string& reason) {
  try {
    return find_devices(reason);
  } catch (const StateError& failure) {
    reason = failure.what();
    return {};
  }
}

}  // namespace mpsnn_loss::metal
