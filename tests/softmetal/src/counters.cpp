#include "counters.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "softmetal.h"

namespace softmetal {
namespace {

struct ClassCount {
  std::atomic<const char*> name{nullptr};
  std::atomic<long> live{0};
};

std::array<ClassCount, 64> classes;  // more than the double has

ClassCount& entry(const char* name) {
  for (ClassCount& c : classes) {
    const char* held = c.name.load(std::memory_order_relaxed);
    if (!held && c.name.compare_exchange_strong(held, name, std::memory_order_relaxed)) return c;
    if (std::strcmp(held, name) == 0) return c;
  }
  std::abort();
}

}  // namespace

void count_live(const char* class_name, long change) {
  entry(class_name).live.fetch_add(change, std::memory_order_relaxed);
}

Counters& counters() {
  static Counters it;
  return it;
}

}  // namespace softmetal

using softmetal::classes;
using softmetal::counters;

size_t softmetal_live_objects(const char* class_name) {
  long total = 0;
  for (const auto& c : classes) {
    const char* name = c.name.load(std::memory_order_relaxed);
    if (name && (!class_name || std::strcmp(name, class_name) == 0)) {
      total += c.live.load(std::memory_order_relaxed);
    }
  }
  return static_cast<size_t>(total);
}

size_t softmetal_describe_live_objects(char* text, size_t size) {
  size_t length = 0;
  if (size > 0) *text = 0;
  for (const auto& c : classes) {
    const char* name = c.name.load(std::memory_order_relaxed);
    const long live = c.live.load(std::memory_order_relaxed);
    if (!name || live == 0) continue;
    const size_t room = length < size ? size - length : 0;
    const int wrote = std::snprintf(room ? text + length : nullptr, room, "%s %ld\n", name, live);
    length += static_cast<size_t>(wrote);
  }
  return length;
}

size_t softmetal_images_made() { return counters().images_made; }
size_t softmetal_slices_written() { return counters().slices_written; }
size_t softmetal_encodes() { return counters().encodes; }
size_t softmetal_commits() { return counters().commits; }
size_t softmetal_probes() { return counters().probes; }
size_t softmetal_most_texel_bytes() { return counters().most_texel_bytes; }

void softmetal_reset_counters() {
  counters().images_made = 0;
  counters().slices_written = 0;
  counters().encodes = 0;
  counters().commits = 0;
  counters().probes = 0;
  counters().most_texel_bytes = counters().texel_bytes.load();
}
