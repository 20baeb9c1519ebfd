#include "command_buffer.hpp"
#include "judge.hpp"

using namespace softmetal;

@implementation SoftmetalBlitEncoder
@synthesize label = _label;

- (instancetype)initWithBuffer:(SoftmetalCommandBuffer*)buffer {
  if (!(self = [super init])) return nil;
  _buffer = [buffer retain];
  std::lock_guard lock(_buffer->_state->mutex);
  _buffer->_state->encoder_open = true;
  return self;
}

- (void)close {
  _ended = YES;
  std::lock_guard lock(_buffer->_state->mutex);
  _buffer->_state->encoder_open = false;
}

- (void)dealloc {
  if (!_ended) {
    broken(rules::encoder_released_open, "a blit encoder");
    [self close];
  }
  [_buffer release];
  [_label release];
  [super dealloc];
}

- (id<MTLDevice>)device {
  return _buffer.device;
}

- (BOOL)isUsable:(const char*)doing {
  if (_ended) broken(rules::encoder_used_after_end, "%s", doing);
  return !_ended;
}

- (void)endEncoding {
  if ([self isUsable:"endEncoding"]) [self close];
}

- (void)synchronizeResource:(id<MTLResource>)resource {
  if (![self isUsable:"synchronizeResource:"]) return;
  if (!resource) return broken(rules::nil_argument, "synchronizeResource:");
  if (!same_device(_buffer.device, resource.device, "synchronizeResource:")) return;
  SoftmetalTexture* texture = (SoftmetalTexture*)resource;
  const auto texels = [texture texels];
  std::lock_guard lock(_buffer->_state->mutex);
  _buffer->_state->commands.push_back(
      {{{texels, Touch::synchronises}}, [texels] { texels->synchronise(); }});
  if (_buffer->_state->retains_references) {
    _buffer->_state->references.push_back([texture retain]);
  }
}

- (void)synchronizeTexture:(id<MTLTexture>)texture slice:(NSUInteger)slice level:(NSUInteger)level {
  (void)slice, (void)level;  // the double knows one state for the whole texture
  [self synchronizeResource:texture];
}

- (void)insertDebugSignpost:(NSString*)string {
  (void)string;
}

- (void)pushDebugGroup:(NSString*)string {
  (void)string;
}

- (void)popDebugGroup {
}

@end
