// The divisor D of a reduction (the forward loss divides by it, and so does the gradient).
#pragma once

#include <cstdint>

#include "core/computation.hpp"
#include "core/per_image.hpp"

namespace mpsnn_loss {

/// D of every image, or one value where it holds for all: the call's own divisor, or N·H·W·C and
/// the like for a mean, the number of non-zero weights, what weights sum up to, or 1. Across the
/// batch it is the sum over the images. 0 where there is nothing to divide. Reads weights, and
/// perhaps labels, in host memory, therefore only when they are final.
PerImage divisors(const Computation& call);

/// What the sum of losses is where D is 0.
double loss_of_nothing(const Request& request);

/// The weight of a pixel's first channel, for each pixel in turn, summed; 1 each without weights.
double sum_of_pixel_weights(const Computation& call, std::int64_t image);

}  // namespace mpsnn_loss
