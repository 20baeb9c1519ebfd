// The CPU engine's threads: few, started on first need, asleep when idle.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mpsnn_loss::cpu {

/// How many threads a large call may use: what was set, else MPSNN_LOSS_NUM_THREADS, else
/// OMP_NUM_THREADS, else the smaller of the affinity mask and the cgroup quota. Throws ValueError
/// for a malformed variable.
int num_threads();
/// Throws ValueError below 1.
void set_num_threads(std::int64_t count);

/// Calls run(context, i, scratch) once for every i in [0, count), on the caller and on the pool;
/// which thread does which is not fixed. `scratch` is scratch_bytes that the thread has to itself,
/// aligned to a line of the cache; calling threads keep a moderate amount from call to call.
/// While another caller has the pool, all run here. Works in a child after fork. `run` must not
/// throw; std::bad_alloc comes before it is called. On the pool it runs in the default
/// floating-point environment.
void parallel_for(std::int64_t count, std::int64_t scratch_bytes,
                  void (*run)(void* context, std::int64_t i, std::byte* scratch), void* context);

template <class F>
void parallel_for(std::int64_t count, std::int64_t scratch_bytes, F body) {
  parallel_for(
      count, scratch_bytes,
      [](void* context, std::int64_t i, std::byte* scratch) {
        (*static_cast<F*>(context))(i, scratch);
      },
      &body);
}

}  // namespace mpsnn_loss::cpu
