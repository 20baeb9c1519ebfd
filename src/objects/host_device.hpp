// Apple's object model on host memory, over any engine.
#pragma once

#include <memory>

#include "core/engine.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss {

/// A device whose images lie in host memory, and whose queues hand computations to the engine in
/// order. `kind` is a literal.
std::shared_ptr<Device> make_host_device(std::shared_ptr<Engine> engine, const char* kind);

}  // namespace mpsnn_loss
