// Stretches of memory, for telling whether two arrays overlap.
#pragma once

#include <cstdint>

namespace mpsnn_loss {

/// The addresses [begin, end).
struct MemoryRange {
  std::uintptr_t begin = 0, end = 0;
};

}  // namespace mpsnn_loss
