// Where the work of a call is done: with the GIL or without it.
#pragma once

#include <cstdint>

#include "bindings/gil.hpp"
#include "core/engine.hpp"
#include "core/floating_point.hpp"

namespace mpsnn_loss::bindings {

/// Calls on at least so many elements release the GIL: below, that costs more than the call.
inline constexpr std::int64_t kLongCall = 8192;

/// Calls run(waiting), without the GIL where it is long or may wait for a device.
template <class Run>
void compute(const Computation& computation, bool on_cpu, Run run) {
  if (on_cpu && computation->predictions.shape().elements() < kLongCall) return run(nullptr);
  const WithoutGil released;
  const DefaultFloatingPoint environment;
  run(let_interrupts_through);
}

}  // namespace mpsnn_loss::bindings
