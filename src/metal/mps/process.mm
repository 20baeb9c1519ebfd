#include "metal/mps/process.hpp"

#include <atomic>

#include "core/error.hpp"
#include "objects/completion.hpp"

namespace mpsnn_loss::metal {
namespace {

constexpr int kNoProcess = -1;
std::atomic<int> used_in{kNoProcess};  // the first process that used Metal, by number of forks

}  // namespace

bool is_usable() noexcept {
  const int process = used_in;
  return process == kNoProcess || process == forks();
}

void enter(const char* action) {
  if (!is_usable()) {
    throw StateError(std::string(action) +
                     " failed: this process was forked from one that had used Metal, which does "
                     "not work in a child (multiprocessing has the start method 'spawn' for that)");
  }
  used_in = forks();
}

}  // namespace mpsnn_loss::metal
