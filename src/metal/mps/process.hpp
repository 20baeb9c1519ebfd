// Which process Metal works in. A child of a fork has the objects of its parent and none of its
// connections to the GPU: what sends them a message hangs or crashes.
#pragma once

#include <string>

namespace mpsnn_loss::metal {

/// Before Metal is used. Throws StateError in a child of a process that has used it.
void enter(const char* action);
/// False in such a child, whose destructors must leave all objects alone.
bool is_usable() noexcept;

}  // namespace mpsnn_loss::metal
