#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "core/error.hpp"
#include "metal/foreign.hpp"
#include "metal/mps/objc_guard.hpp"
#include "metal/objects/command_buffer.hpp"
#include "metal/objects/device.hpp"
#include "metal/objects/foreign_objects.hpp"
#include "metal/objects/kernels.hpp"
#include "metal/objects/queue.hpp"

namespace mpsnn_loss::metal {
namespace {

/// What an object from outside is, in words, and the device that it belongs to; nil where it is of
/// another kind.
struct Described {
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

Described look_at(ForeignKind kind, id object) {
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

bool owns(const Device& device, ForeignKind kind, void* object) {
  bool ours = false;
  guarded("looking at an object", [&] {
    const Described described = look_at(kind, (id)object);
    if (described.device == nil) {
      throw TypeError(refusal(
          "pointer", std::string("be of ") + described.expectation,
          std::string("an object of class ") + [NSStringFromClass([(id)object class]) UTF8String]));
    }
    const id<MTLDevice> own = metal_device(device);
    ours = described.device == own || [described.device registryID] == [own registryID];
  });
  return ours;
}

bool is_metal(const Device& device) { return dynamic_cast<const MetalDevice*>(&device) != nullptr; }

void* device_pointer(const Device& device) {
  return is_metal(device) ? metal_device(device) : nullptr;
}
void* queue_pointer(const Queue& queue) {
  return is_metal(*queue.device()) ? queue_object(queue) : nullptr;
}
void* command_buffer_pointer(const CommandBuffer& buffer) {
  if (!is_metal(*buffer.device())) return nullptr;
  return static_cast<const MetalCommandBuffer&>(buffer).object();
}
void* kernel_pointer(const Kernel& kernel) {
  if (!is_metal(*kernel.device())) return nullptr;
  return static_cast<const MetalKernel&>(kernel).object();
}
void* image_pointer(const Image& image) {
  if (!is_metal(*image.batch->device())) return nullptr;
  const auto [storage, place] = metal_storage(*image.batch, image.index);
  return storage->image(place);
}

}  // namespace

const Foreign kForeign{
    .owns = owns,
    .adopt_queue =
        [](std::shared_ptr<Device> device, void* object) {
          return adopt_queue(std::move(device), (id<MTLCommandQueue>)object);
        },
    .adopt_command_buffer =
        [](std::shared_ptr<Device> device, void* object) {
          return adopt_command_buffer(std::move(device), (id<MTLCommandBuffer>)object);
        },
    .adopt_images = [](std::shared_ptr<Device> device, ForeignKind kind,
                       void* object) { return adopt_images(std::move(device), kind, (id)object); },
    .device_pointer = device_pointer,
    .queue_pointer = queue_pointer,
    .command_buffer_pointer = command_buffer_pointer,
    .kernel_pointer = kernel_pointer,
    .image_pointer = image_pointer,
    .archived_data =
        [](const Kernel& kernel) {
          return static_cast<const MetalKernel&>(kernel).archived_data();
        },
    .unarchive_kernel = unarchive_kernel,
};

}  // namespace mpsnn_loss::metal
