// Objects that somebody else made, as ours. For .mm files only, after they have imported Metal.
#pragma once

#include <memory>

#include "metal/foreign.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss::metal {

/// A command buffer that others may commit without our seeing it.
std::shared_ptr<CommandBuffer> adopt_command_buffer(std::shared_ptr<Device> device,
                                                    id<MTLCommandBuffer> given);
/// An MPSImage, with each image in it, or an array of them.
std::shared_ptr<ImageBatch> adopt_images(std::shared_ptr<Device> device, ForeignKind kind,
                                         id object);

}  // namespace mpsnn_loss::metal
