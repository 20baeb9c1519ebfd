// Command queues of Metal. For .mm files only, after they have imported Metal.
#pragma once

#include <memory>
#include <string>

#include "objects/command_buffer.hpp"

namespace mpsnn_loss::metal {

std::shared_ptr<Queue> make_queue(std::shared_ptr<Device> device, const std::string& label);
/// On a queue made elsewhere, retained.
std::shared_ptr<Queue> adopt_queue(std::shared_ptr<Device> device, id<MTLCommandQueue> queue);
/// Of a queue of Metal's, borrowed.
id<MTLCommandQueue> queue_object(const Queue& queue);

}  // namespace mpsnn_loss::metal
