#include "devices.hpp"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "core/error.hpp"
#include "cpu/engine.hpp"
#include "cpu/instruction_sets.hpp"
#include "cpu/thread_pool.hpp"
#include "objects/completion.hpp"
#include "objects/host_device.hpp"
#if defined(MPSNN_LOSS_METAL)
#include "metal/device.hpp"
#endif

namespace mpsnn_loss {

namespace {

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);

using Devices = std::vector<std::shared_ptr<Device>>;

std::string wanted_device() {
  const char* const wanted = std::getenv("MPSNN_LOSS_DEVICE");
  return wanted == nullptr ? "" : wanted;
}

#if defined(MPSNN_LOSS_METAL)
constexpr bool kHasMetal = true;
#else
constexpr bool kHasMetal = false;
#endif

/// The engines on host memory, best first; the CPU engine stays the last one. They outlive every
/// Python object that refers to one.
const Devices& host_devices() {
  static const auto& all = *new Devices{
      make_host_device(cpu::make_engine(), "cpu"),
  };
  return all;
}

}  // namespace

/// The Metal devices, or why there are none. Looked for at the first question, never at import:
/// Metal must not be touched by those who do not use it. An answer without devices is not kept, as
/// the next may be another.
Devices metal_devices(std::string& reason) {
#if defined(MPSNN_LOSS_METAL)
  static std::mutex mutex;
  static auto& known = *new Devices;  // outlives every Python object that refers to a device
  const std::lock_guard lock(mutex);
  if (known.empty()) known = metal::make_devices(reason);
  return known;
#else
  reason = "this build has no Metal backend";
  return {};
#endif
}

const metal::Foreign* foreign() {
#if defined(MPSNN_LOSS_METAL)
  return &metal::kForeign;
#else
  return nullptr;
#endif
}

Devices devices() {
  std::string reason;
  Devices all = metal_devices(reason);
  all.insert(all.end(), host_devices().begin(), host_devices().end());
  return all;
}

std::shared_ptr<Device> default_device() {
  const std::string wanted = wanted_device();
  return wanted.empty() ? devices().front() : device_named("MPSNN_LOSS_DEVICE", wanted);
}

std::shared_ptr<Device> device_named(const char* argument, const std::string& wanted) {
  const auto is_wanted = [&](const auto& device) {
    return device->kind() == wanted || device->name() == wanted;
  };
  for (const auto& device : host_devices()) {  // before Metal is looked for
    if (is_wanted(device)) return device;
  }
  std::string reason, names;
  for (const auto& device : metal_devices(reason)) {
    if (is_wanted(device)) return device;
    names += std::string(names.empty() ? "'metal', " : ", ") + "'" + device->name() + "'";
  }
  for (const auto& device : host_devices())
    names += (names.empty() ? "'" : ", '") + std::string(device->kind()) + "'";
  throw ValueError(refusal(argument,
                           "name a device that is here: " + names +
                               (reason.empty() ? "" : " (no Metal device: " + reason + ")"),
                           "'" + wanted + "'"));
}

std::shared_ptr<Device> device_of_kind(const std::string& kind) {
  const auto is_of_kind = [&](const auto& device) { return device->kind() == kind; };
  const auto host = std::ranges::find_if(host_devices(), is_of_kind);
  if (host != host_devices().end()) return *host;
  for (const auto& device : devices()) {
    if (is_of_kind(device)) return device;
  }
  return default_device();
}

const std::shared_ptr<Device>& device_of_functions() {
  // Looking the variable up in each call would take a tenth of a small one.
  static const auto& device =
      *new std::shared_ptr<Device>(wanted_device().empty() ? cpu_device() : default_device());
  return device;
}

const std::shared_ptr<Device>& cpu_device() {
  static const auto& device = host_devices().back();
  return device;
}

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
