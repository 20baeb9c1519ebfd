// What passes between this package and other users of Metal in the process: pointers to its
// objects, and archives of Apple's keyed archiver. Plain C++: pointers are the objects themselves,
// borrowed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "../objects/device.hpp"  // beside this folder, not in it

namespace mpsnn_loss::metal {

/// What an object from outside is said to be.
enum class ForeignKind : std::uint8_t { device, queue, command_buffer, image, image_batch };

/// One table of functions, so that there may be none where there is no Metal. Devices are Metal
/// devices; what else is asked for a pointer or an archive may be of any device.
struct Foreign {
  /// Whether the object is this device or belongs to it. TypeError where it is not of the kind.
  bool (*owns)(const Device& device, ForeignKind kind, void* object);
  // An object that the device owns, retained. StateError or ValueError where it cannot be worked
  // with.
  std::shared_ptr<Queue> (*adopt_queue)(std::shared_ptr<Device> device, void* object);
  std::shared_ptr<CommandBuffer> (*adopt_command_buffer)(std::shared_ptr<Device> device,
                                                         void* object);
  std::shared_ptr<ImageBatch> (*adopt_images)(std::shared_ptr<Device> device, ForeignKind kind,
                                              void* object);
  // Pointers; null for what is of no Metal device.
  void* (*device_pointer)(const Device& device);
  void* (*queue_pointer)(const Queue& queue);
  void* (*command_buffer_pointer)(const CommandBuffer& buffer);
  void* (*kernel_pointer)(const Kernel& kernel);
  void* (*image_pointer)(const Image& image);
  /// The archive of a kernel of a Metal device, for MPSKeyedUnarchiver.
  std::string (*archived_data)(const Kernel& kernel);
  /// A kernel from one. ValueError for anything else.
  std::shared_ptr<Kernel> (*unarchive_kernel)(std::shared_ptr<Device> device, KernelKind kind,
                                              std::string_view data);
};

extern const Foreign kForeign;

}  // namespace mpsnn_loss::metal
