// Metal devices: Apple's object model and the functions, over Apple's own kernels. Plain C++;
// Objective-C stays in the .mm files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../objects/device.hpp"  // beside this folder, not in it

namespace mpsnn_loss::metal {

/// Every device that MPS supports, the preferred one first. Where there is none, `reason` says why.
std::vector<std::shared_ptr<Device>> make_devices(std::string& reason);

}  // namespace mpsnn_loss::metal
