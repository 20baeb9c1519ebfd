#include "cpu/thread_count.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include "core/error.hpp"
#include "core/floating_point.hpp"

namespace mpsnn_loss::cpu {
namespace {

constexpr int kMost = 1024;

/// The leading integer of a variable ("4" and "4,2"), or 0 where it is unset or no positive number.
int from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return 0;
  int count = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), count);
  const bool whole = error == std::errc() && (*end == '\0' || *end == ',');
  return whole && count > 0 ? std::min(count, kMost) : 0;
}

int from_affinity() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

/// Processors that the cgroup's quota is worth, or kMost.
int from_quota() {
  double quota = 0, period = 0;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");  // "max 100000" or "150000 100000"
  if (!(v2 >> quota >> period)) {
    std::ifstream quota_v1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        period_v1("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    quota_v1 >> quota;
    period_v1 >> period;
  }
  if (quota <= 0 || period <= 0) return kMost;
  return std::max(1, static_cast<int>(std::ceil(quota / period)));
}

}  // namespace

int default_thread_count() {
  if (const char* text = std::getenv("MPSNN_LOSS_NUM_THREADS")) {
    const int count = from_environment("MPSNN_LOSS_NUM_THREADS");
    if (count > 0) return count;
    throw ValueError(
        refusal("MPSNN_LOSS_NUM_THREADS", "be a positive integer", "'" + std::string(text) + "'"));
  }
  // A malformed OMP_NUM_THREADS is another library's affair.
  if (const int count = from_environment("OMP_NUM_THREADS")) return count;
  return std::max(1, std::min(from_affinity(), in_default_floating_point(from_quota)));
}

}  // namespace mpsnn_loss::cpu
