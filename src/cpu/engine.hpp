// The CPU engine: any processor, host memory.
#pragma once

#include <memory>

#include "core/engine.hpp"

namespace mpsnn_loss::cpu {

std::shared_ptr<Engine> make_engine();

}  // namespace mpsnn_loss::cpu
