// What the GPU does with a committed command buffer.
#include <chrono>

#include "command_buffer.hpp"
#include "faults.hpp"
#include "judge.hpp"
#include "settings.hpp"

namespace softmetal {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void set_status(BufferState& state, MTLCommandBufferStatus status) {
  std::lock_guard lock(state.mutex);
  state.status = status;
  state.changed.notify_all();
}

void call(std::vector<MTLCommandBufferHandler>& handlers, id<MTLCommandBuffer> buffer) {
  for (MTLCommandBufferHandler handler : handlers) {
    handler(buffer);
    Block_release(handler);
  }
  handlers.clear();
}

NSString* description_of(NSUInteger code) {
  switch (code) {
    case MTLCommandBufferErrorTimeout: return @"Caused GPU Timeout Error";
    case MTLCommandBufferErrorPageFault: return @"Caused GPU Address Fault Error";
    case MTLCommandBufferErrorAccessRevoked: return @"Ignored (for causing prior/excessive errors)";
    case MTLCommandBufferErrorNotPermitted: return @"Insufficient Permission";
    case MTLCommandBufferErrorOutOfMemory: return @"Insufficient Memory";
    case MTLCommandBufferErrorInvalidResource: return @"Invalid Resource";
    case MTLCommandBufferErrorDeviceRemoved: return @"Device Removed";
    case MTLCommandBufferErrorStackOverflow: return @"Stack Overflow";
    default: return @"Internal Error";
  }
}

NSError* error_of(NSUInteger code) {
  NSString* words = [NSString
      stringWithFormat:@"%@ (softmetal: %08lx)", description_of(code), (unsigned long)code];
  return [[NSError alloc]
      initWithDomain:MTLCommandBufferErrorDomain
                code:static_cast<NSInteger>(code)
            userInfo:[NSDictionary dictionaryWithObject:words forKey:NSLocalizedDescriptionKey]];
}

/// Runs the commands; the code of the error that stopped them, or none.
NSUInteger execute(BufferState& state) {
  if (const auto code = strikes(Fault::buffer_error)) return static_cast<NSUInteger>(*code);
  for (const Command& command : state.commands) {
    for (const Access& access : command.accesses) {
      if (access.texels->alive) continue;
      broken(rules::resource_gone, "a texture was released before the buffer that uses it had run");
      return MTLCommandBufferErrorInvalidResource;
    }
    command.run();
    for (const Access& access : command.accesses) {
      if (access.touch == Touch::writes) access.texels->written_by_gpu();
    }
  }
  return MTLCommandBufferErrorNone;
}

/// What the commands would have written is undefined after an error.
void spoil_results(BufferState& state) {
  for (const Command& command : state.commands) {
    for (const Access& access : command.accesses) {
      if (access.touch == Touch::writes) access.texels->poison_gpu();
    }
  }
}

void land(BufferState& state) {
  for (const Command& command : state.commands) {
    for (const Access& access : command.accesses) {
      --(access.touch == Touch::reads ? access.texels->reading : access.texels->writing);
    }
  }
  state.commands.clear();
}

}  // namespace

void run(SoftmetalCommandBuffer* buffer) {
  BufferState& state = *buffer->_state;
  random_delay();
  set_status(state, MTLCommandBufferStatusScheduled);
  call(state.scheduled_handlers, buffer);
  random_delay();
  if (const auto milliseconds = strikes(Fault::completion_late)) {
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(*milliseconds));
  }

  while (is_on(Fault::never_completes)) std::this_thread::sleep_for(std::chrono::milliseconds(5));

  const double start = now();
  const bool silent = strikes(Fault::buffer_error_without_nserror).has_value();
  const NSUInteger code = silent ? MTLCommandBufferErrorInternal : execute(state);
  if (code != MTLCommandBufferErrorNone) spoil_results(state);
  random_delay();
  land(state);
  {
    std::lock_guard lock(state.mutex);
    state.gpu_start = start;
    state.gpu_end = now();
    if (code != MTLCommandBufferErrorNone && !silent) state.error = error_of(code);
    state.status = code == MTLCommandBufferErrorNone ? MTLCommandBufferStatusCompleted
                                                     : MTLCommandBufferStatusError;
    state.changed.notify_all();
  }

  set_in_handler_of(buffer->_queue->_state->get());
  call(state.completed_handlers, buffer);
  set_in_handler_of(nullptr);
  for (id object : state.references) [object release];
  state.references.clear();
  state.heap->release_storage();
  free_slot(**buffer->_queue->_state);
  std::lock_guard lock(state.mutex);
  state.finished = true;
  state.changed.notify_all();
}

}  // namespace softmetal
