// Whether two arrays share memory: exactly, also where their elements only alternate.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/memory_range.hpp"
#include "core/shape.hpp"
#include "core/strided_array.hpp"

namespace mpsnn_loss {

/// `undecided`: the answer would take too long. Whoever asks takes it for an overlap.
enum class Overlap { none, some, undecided };

/// Whether any element of one lies in memory of an element of the other.
Overlap overlap(const StridedArray& a, const StridedArray& b);
/// Whether two elements of one array lie in the same memory.
Overlap self_overlap(const StridedArray& array);

}  // namespace mpsnn_loss
