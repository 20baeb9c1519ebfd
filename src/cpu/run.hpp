// Runs one call on the CPU engine.
#pragma once

#include "core/computation.hpp"

namespace mpsnn_loss::cpu {

/// Computes the call and writes its outputs, in the default floating-point environment whatever the
/// caller's is. Everything was checked when the call was made; throws std::bad_alloc alone.
void run(const Computation& call);

}  // namespace mpsnn_loss::cpu
