// Objective-C exceptions as C++ ones. objc_guard.mm is the only file with @try and @catch, and it
// has no C++ handler: the two kinds of handlers do not mix in one file with every runtime.
#pragma once

#include <string>

#include "core/error.hpp"
#include "metal/mps/process.hpp"

namespace mpsnn_loss::metal {

/// Calls run(context); false, and why, where an Objective-C exception ended it. C++ exceptions pass
/// through.
bool run_guarded(void (*run)(void* context), void* context, std::string& why);

/// Calls body() inside an autorelease pool; an NSException becomes a StateError "<action> failed:
/// <why>", and so does a call in a process where Metal does not work.
template <class Body>
void guarded(const char* action, Body body) {
  enter(action);
  std::string why;
  if (run_guarded([](void* context) { (*static_cast<Body*>(context))(); }, &body, why)) return;
  throw StateError(std::string(action) + " failed: " + why);
}

}  // namespace mpsnn_loss::metal
