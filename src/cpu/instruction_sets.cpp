#include "cpu/instruction_sets.hpp"

#include <cstdlib>

#include "core/error.hpp"

namespace mpsnn_loss::cpu {

#if defined(MPSNN_X86_64_V4)
namespace x86_64_v4 {
extern const KernelSet kernel_set;
}
#endif
#if defined(MPSNN_X86_64_V3)
namespace x86_64_v3 {
extern const KernelSet kernel_set;
}
#endif
namespace baseline {
extern const KernelSet kernel_set;
}

namespace {

struct Candidate {
  const KernelSet& set;
  bool (*runs_here)();
};

/// Best first, the baseline last.
const Candidate kCandidates[] = {
#if defined(MPSNN_X86_64_V4)
    {x86_64_v4::kernel_set,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl");
     }},
#endif
#if defined(MPSNN_X86_64_V3)
    {x86_64_v3::kernel_set,
     [] {
       return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
     }},
#endif
    {baseline::kernel_set, [] { return true; }},
};

const KernelSet& choose() {
  const char* const wanted = std::getenv("MPSNN_LOSS_ISA");
  std::string names;
  for (const Candidate& candidate : kCandidates) {
    if (!candidate.runs_here()) continue;
    if (wanted == nullptr || candidate.set.name == std::string(wanted)) return candidate.set;
    names += (names.empty() ? "" : ", ") + std::string(candidate.set.name);
  }
  throw ValueError(
      refusal("MPSNN_LOSS_ISA", "be one of " + names, "'" + std::string(wanted) + "'"));
}

}  // namespace

const KernelSet& active_instruction_set() {
  static const KernelSet& active = choose();
  return active;
}

const KernelSet& kernels_for([[maybe_unused]] const Plan& plan) {
  const KernelSet& active = active_instruction_set();
#if defined(MPSNN_X86_64_V4) && defined(MPSNN_X86_64_V3)
  // Of short rows that lie beyond the first caches, vectors of 32 bytes bring more than those of
  // 64, nearly all of which straddle two lines.
  const std::int64_t channels = plan.shape.channels;
  const bool has_short_rows = info(plan.loss_type).couples_channels && !plan.double_precision &&
                              channels > 16 && channels <= kMostInShortRows;
  if (has_short_rows && &active == &x86_64_v4::kernel_set) return x86_64_v3::kernel_set;
#endif
  return active;
}

std::vector<std::string> compiled_instruction_sets() {
  std::vector<std::string> names;
  for (const Candidate& candidate : kCandidates) names.emplace_back(candidate.set.name);
  return names;
}

}  // namespace mpsnn_loss::cpu
