// The Metal engine: the interface of core/backend.hpp over Apple's own kernels. Plain C++;
// Objective-C stays in the .mm files. Handles are the objects themselves, borrowed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/backend.hpp"

namespace mpsnn_loss::metal {

/// Every device that MPS supports, the preferred one first. Where there is none, `reason` says why.
std::vector<std::shared_ptr<Device>> make_devices(std::string& reason);

}  // namespace mpsnn_loss::metal
