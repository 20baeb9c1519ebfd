// One call of the functions, its pixels packed into few images. For .mm files only, after they have
// imported MetalPerformanceShaders.
#pragma once

#include "metal/arrays/engine.hpp"

namespace mpsnn_loss::metal {

/// Inside of `guarded`.
void compute_packed(MetalEngine& engine, const Computation& computation, Waiting waiting);

}  // namespace mpsnn_loss::metal
