// The CPU engine's threads: few, started on first need, asleep when idle.
#pragma once

#include <cstdint>

namespace mpsnn_loss::cpu {

/// How many threads a large call may use: what was set, else MPSNN_LOSS_NUM_THREADS, else
/// OMP_NUM_THREADS, else the smaller of the affinity mask and the cgroup quota. Throws ValueError
/// for a malformed variable.
int num_threads();
/// Throws ValueError below 1.
void set_num_threads(std::int64_t count);

/// Calls run(context, i) once for every i in [0, count), on the caller and on the pool. Which
/// thread gets which i is fixed by count and num_threads alone. While another caller has the pool,
/// all run here. Works in a child after fork. `run` must not throw.
void parallel_for(std::int64_t count, void (*run)(void* context, std::int64_t i), void* context);

template <class F>
void parallel_for(std::int64_t count, F body) {
  parallel_for(count, [](void* context, std::int64_t i) { (*static_cast<F*>(context))(i); }, &body);
}

}  // namespace mpsnn_loss::cpu
