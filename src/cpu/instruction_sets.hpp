// Which compiled kernels this processor runs.
#pragma once

#include <string>
#include <vector>

#include "cpu/plan.hpp"

namespace mpsnn_loss::cpu {

/// The best compiled set that this processor has, or the one that MPSNN_LOSS_ISA names (which still
/// leaves to the one below what is faster there). Throws ValueError where that names none.
const KernelSet& active_instruction_set();

/// The one that serves a plan: that, but where the next one is faster. It depends on the loss, the
/// channels and the precision alone, as a row has the same bits in any batch.
const KernelSet& kernels_for(const Plan& plan);

/// Names of all compiled sets, best first.
std::vector<std::string> compiled_instruction_sets();

}  // namespace mpsnn_loss::cpu
