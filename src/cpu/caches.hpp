// The caches of this processor.
#pragma once

#include <unistd.h>

#include <cstdint>

namespace mpsnn_loss::cpu {

/// Bytes of the largest cache, as far as the system tells.
inline std::int64_t last_level_cache() {
  static const std::int64_t bytes = [] {
    constexpr std::int64_t kUsual = 32 << 20;
#if defined(_SC_LEVEL3_CACHE_SIZE)
    const long found = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (found > 0) return static_cast<std::int64_t>(found);
#endif
    return kUsual;
  }();
  return bytes;
}

}  // namespace mpsnn_loss::cpu
