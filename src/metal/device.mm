#include "metal/device.hpp"

#import <CoreGraphics/CoreGraphics.h>
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <mutex>
#include <utility>

#include "core/error.hpp"
#include "metal/channel_format.hpp"
#include "metal/kernel_pool.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

class Workshop final : public ArrayWorkshop {
 public:
  explicit Workshop(objc_ptr<id<MTLDevice>> device) : device_(std::move(device)) {}

  void* queue() override {
    const std::lock_guard lock(mutex_);
    if (!queue_) {
      queue_ = objc_ptr<id<MTLCommandQueue>>::adopted(
          not_nil([device_.get() newCommandQueue], "MTLCommandQueue"));
    }
    return queue_.get();
  }
  void* take_kernel(KernelKind kind, const LossDescriptor& descriptor) override {
    return pool_.take(device_.get(), kind, descriptor);
  }
  void give_back(KernelKind kind, const LossDescriptor& descriptor, void* kernel) override {
    pool_.give_back(kind, descriptor, kernel);
  }
  /// A quarter of what Metal recommends: the images of the buffer before may still be there.
  std::int64_t most_bytes() const override {
    constexpr std::uint64_t kUnknown = std::uint64_t{1} << 30, kShare = 4;
    const std::uint64_t whole = [device_.get() recommendedMaxWorkingSetSize];
    return static_cast<std::int64_t>((whole == 0 ? kUnknown : whole) / kShare);
  }

 private:
  const objc_ptr<id<MTLDevice>> device_;
  std::mutex mutex_;
  objc_ptr<id<MTLCommandQueue>> queue_;
  KernelPool pool_;
};

/// What an object from outside is, in words, and the device that it belongs to; nil where it is of
/// another kind.
struct Foreign {
  const char* expectation;
  id<MTLDevice> device;
};

bool is_image_array(id object) {
  if (![object isKindOfClass:[NSArray class]] || [(NSArray*)object count] == 0) return false;
  for (const id item in (NSArray*)object) {
    if (![item isKindOfClass:[MPSImage class]]) return false;
  }
  return true;
}

Foreign look_at(ForeignKind kind, id object) {
  switch (kind) {
    case ForeignKind::device:
      return {
        "an id<MTLDevice>",
            [object conformsToProtocol:@protocol(MTLDevice)] ? (id<MTLDevice>)object : nil
      };
    case ForeignKind::queue:
      return {
        "an id<MTLCommandQueue>", [object conformsToProtocol:@protocol(MTLCommandQueue)]
                                      ? [(id<MTLCommandQueue>)object device]
                                      : nil
      };
    case ForeignKind::command_buffer:
      return {
        "an id<MTLCommandBuffer>", [object conformsToProtocol:@protocol(MTLCommandBuffer)]
                                       ? [(id<MTLCommandBuffer>)object device]
                                       : nil
      };
    case ForeignKind::image:
      return {"an MPSImage",
              [object isKindOfClass:[MPSImage class]] ? [(MPSImage*)object device] : nil};
    case ForeignKind::image_batch:
      if ([object isKindOfClass:[MPSImage class]]) return {"", [(MPSImage*)object device]};
      return {
          "an MPSImage or a non-empty NSArray of MPSImage",
          is_image_array(object) ? [(MPSImage*)[(NSArray*)object objectAtIndex:0] device] : nil};
  }
  return {"", nil};
}

class MetalDevice final : public Device {
 public:
  explicit MetalDevice(id<MTLDevice> device)
      : device_(objc_ptr<id<MTLDevice>>::retained(device)),
        name_([[device name] UTF8String]),
        workshop_(device_) {}

  std::string name() const override { return name_; }
  std::string kind() const override { return "metal"; }
  std::string supports(Format format) const override {
    if (has_channel_format(format)) return {};
    return std::string("metal: ") + info(format).name +
           " is not a storage format of Metal images; float16 and float32 are";
  }
  std::string supports(const LossDescriptor& descriptor) const override {
    const LossInfo& loss = info(descriptor.loss_type);
    if (!loss.is_apples) return std::string("metal: ") + loss.name + " is not a loss of Apple's";
    if (@available(macOS 11.0, *)) return {};
    return descriptor.reduces_across_batch() ? "metal: reduce_across_batch needs macOS 11 or newer"
                                             : "";
  }
  std::string supports_images(const Shape& shape) const override { return unsupported_size(shape); }
  std::string supports_arrays(const LossDescriptor& descriptor, const Shape& shape) const override {
    const bool as_one = info(descriptor.loss_type).keeps_channels_together();
    return as_one ? unsupported_size({1, 1, 1, shape.channels}) : "";
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
  std::shared_ptr<Kernel> copy_kernel(const Kernel& kernel) override {
    if (kernel.device()->kind() != kind()) return Device::copy_kernel(kernel);
    return metal::copy_kernel(shared_from_this(), kernel);
  }
  std::shared_ptr<Kernel> unarchive_kernel(KernelKind kind, std::string_view data) override {
    return metal::unarchive_kernel(shared_from_this(), kind, data);
  }
  std::shared_ptr<Queue> make_queue(const std::string& label) override {
    return metal::make_queue(shared_from_this(), label);
  }
  void compute(const LossCall& call, Waiting waiting) override {
    metal::compute(shared_from_this(), workshop_, call, waiting);
  }
  void* native_handle() const override { return device_.get(); }

  bool owns(ForeignKind kind, void* object) const override {
    bool ours = false;
    guarded("looking at an object", [&] {
      const Foreign foreign = look_at(kind, (id)object);
      if (foreign.device == nil) {
        throw TypeError(refusal("pointer", std::string("be of ") + foreign.expectation,
                                std::string("an object of class ") +
                                    [NSStringFromClass([(id)object class]) UTF8String]));
      }
      ours = foreign.device == device_.get() ||
             [foreign.device registryID] == [device_.get() registryID];
    });
    return ours;
  }
  std::shared_ptr<Queue> adopt_queue(void* object) override {
    return metal::adopt_queue(shared_from_this(), object);
  }
  std::shared_ptr<CommandBuffer> adopt_command_buffer(void* object) override {
    return metal::adopt_command_buffer(shared_from_this(), object);
  }
  std::shared_ptr<ImageBatch> adopt_images(ForeignKind kind, void* object) override {
    return metal::adopt_images(shared_from_this(), kind, object);
  }

 private:
  const objc_ptr<id<MTLDevice>> device_;
  const std::string name_;
  Workshop workshop_;
};

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

/// Throws what Objective-C raises.
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
        devices.push_back(std::make_shared<MetalDevice>(device));
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
