// Stretches of memory, for telling whether two arrays overlap.
#pragma once

#include <cstdint>

namespace mpsnn_loss {

/// The addresses [begin, end).
struct MemoryRange {
  std::uintptr_t begin, end;
};

}  // namespace mpsnn_loss
