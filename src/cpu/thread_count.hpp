// How many threads this process should use.
#pragma once

namespace mpsnn_loss::cpu {

/// MPSNN_LOSS_NUM_THREADS, else OMP_NUM_THREADS, else what the machine gives this process.
int default_thread_count();

}  // namespace mpsnn_loss::cpu
