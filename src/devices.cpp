#include "devices.hpp"

#include <cstdlib>

#include "core/error.hpp"
#include "cpu/device.hpp"
#include "cpu/instruction_sets.hpp"
#include "cpu/thread_pool.hpp"
#if defined(MPSNN_LOSS_METAL)
#include "metal/device.hpp"
#endif

namespace mpsnn_loss {

namespace {

/// Found at the first question, never at import: Metal must not be touched by those who do not use
/// it.
struct Found {
  std::vector<std::shared_ptr<Device>> devices;
  std::string metal_unavailable;

  Found() {
#if defined(MPSNN_LOSS_METAL)
    devices = metal::make_devices(metal_unavailable);
#else
    metal_unavailable = "this build has no Metal backend";
#endif
    devices.push_back(cpu::make_device());
  }
};

const Found& found() {
  static const auto& all = *new Found;  // outlives every Python object that refers to a device
  return all;
}

#if defined(MPSNN_LOSS_METAL)
constexpr bool kHasMetal = true;
#else
constexpr bool kHasMetal = false;
#endif

}  // namespace

const std::vector<std::shared_ptr<Device>>& devices() { return found().devices; }

const std::string& metal_unavailable() { return found().metal_unavailable; }

const std::shared_ptr<Device>& default_device() {
  const char* const wanted = std::getenv("MPSNN_LOSS_DEVICE");
  if (wanted == nullptr || *wanted == '\0') return devices().front();
  std::string names;
  for (const auto& device : devices()) {
    if (device->kind() == wanted || device->name() == wanted) return device;
    names += (names.empty() ? "'" : ", '") + device->name() + "'";
  }
  throw ValueError(refusal("MPSNN_LOSS_DEVICE", "be 'cpu', 'metal' or one of " + names,
                           "'" + std::string(wanted) + "'"));
}

const std::shared_ptr<Device>& cpu_device() { return devices().back(); }

int num_threads() { return cpu::num_threads(); }
void set_num_threads(std::int64_t count) { cpu::set_num_threads(count); }

BuildFacts build_facts() {
#if defined(__clang__)
  const std::string compiler = "clang " __clang_version__;
#else
  const std::string compiler = "gcc " __VERSION__;
#endif
  return {compiler, cpu::compiled_instruction_sets(), cpu::active_instruction_set().name,
          kHasMetal};
}

}  // namespace mpsnn_loss
