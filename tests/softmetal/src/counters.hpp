// What the double counts: live objects of each class, and the work that kernels do.
#pragma once
#include <atomic>
#include <cstddef>

namespace softmetal {

/// Adds to the live objects of a class. Lock-free, so that it orders no threads of the program.
void count_live(const char* class_name, long change);

struct Counters {
  std::atomic<std::size_t> images_made{0}, slices_written{0}, encodes{0}, commits{0}, probes{0};
  std::atomic<std::size_t> texel_bytes{0}, most_texel_bytes{0};
};
Counters& counters();

}  // namespace softmetal
