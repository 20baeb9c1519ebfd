// The devices of this machine. The only files that name the engines are this pair.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "metal/foreign.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss {

/// Every usable device, best first; the CPU engine is always the last one.
std::vector<std::shared_ptr<Device>> devices();

/// Those of Metal; where there are none, `reason` says why.
std::vector<std::shared_ptr<Device>> metal_devices(std::string& reason);

/// What passes between this package and other users of Metal; null where there is no Metal.
const metal::Foreign* foreign();

/// The first of devices(), or the one that MPSNN_LOSS_DEVICE names by kind or name. Throws
/// ValueError where that names none.
std::shared_ptr<Device> default_device();

/// The device of that kind or name, which `argument` gave. Throws ValueError where there is none.
std::shared_ptr<Device> device_named(const char* argument, const std::string& wanted);

/// Where functions compute that are given no device: on the CPU engine, unless MPSNN_LOSS_DEVICE
/// names another. The variable is read at the first call; ValueError, at every call, where it names
/// none.
const std::shared_ptr<Device>& device_of_functions();

/// The first of that kind, else the default device.
std::shared_ptr<Device> device_of_kind(const std::string& kind);

/// Looks for no other device.
const std::shared_ptr<Device>& cpu_device();

// The CPU engine's threads (cpu/thread_pool.hpp).
int num_threads();
void set_num_threads(std::int64_t count);

/// What was compiled in, by name.
struct BuildFacts {
  std::string compiler;
  std::vector<std::string> instruction_sets;
  std::string instruction_set_in_use;
  bool metal;
};
BuildFacts build_facts();

}  // namespace mpsnn_loss
