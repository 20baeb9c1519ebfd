#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "command_buffer.hpp"
#include "judge.hpp"

using namespace softmetal;

@implementation MPSCommandBuffer
@synthesize commandBuffer = _commandBuffer;

+ (instancetype)commandBufferWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer {
  return [[[self alloc] initWithCommandBuffer:commandBuffer] autorelease];
}

+ (instancetype)commandBufferFromCommandQueue:(id<MTLCommandQueue>)commandQueue {
  return [self commandBufferWithCommandBuffer:[commandQueue commandBuffer]];
}

- (instancetype)initWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer {
  Unfinished guard(self);
  if (!commandBuffer) {
    broken(rules::nil_argument, "MPSCommandBuffer: command buffer");
    return nil;
  }
  guard.finished();
  if ((self = [super init])) _commandBuffer = [commandBuffer retain];
  return self;
}

- (void)dealloc {
  [_commandBuffer release];
  [super dealloc];
}

- (id<MTLCommandBuffer>)rootCommandBuffer {
  return root_of(_commandBuffer);
}

// The temporaries move on to the new buffer, as the header promises.
- (void)commitAndContinue {
  if ([_commandBuffer respondsToSelector:@selector(commitAndContinue)]) {
    return [(MPSCommandBuffer*)_commandBuffer commitAndContinue];
  }
  SoftmetalCommandBuffer* old = root_of(_commandBuffer);
  SoftmetalCommandBuffer* next = root_of([old.commandQueue commandBuffer]);
  // Exchanged, so that the old buffer does not give back storage that the new one goes on using.
  std::swap(next->_state->heap, old->_state->heap);
  next->_state->heap->set_buffer(next->_state);
  [old commit];
  [_commandBuffer autorelease];
  _commandBuffer = [next retain];
}

- (void)prefetchHeapForWorkloadSize:(size_t)size {
  (void)size;
}

- (id<MTLDevice>)device {
  return _commandBuffer.device;
}

- (id<MTLCommandQueue>)commandQueue {
  return _commandBuffer.commandQueue;
}

- (BOOL)retainedReferences {
  return _commandBuffer.retainedReferences;
}

- (MTLCommandBufferErrorOption)errorOptions {
  return _commandBuffer.errorOptions;
}

- (NSString*)label {
  return _commandBuffer.label;
}

- (void)setLabel:(NSString*)label {
  _commandBuffer.label = label;
}

- (CFTimeInterval)kernelStartTime {
  return _commandBuffer.kernelStartTime;
}

- (CFTimeInterval)kernelEndTime {
  return _commandBuffer.kernelEndTime;
}

- (CFTimeInterval)GPUStartTime {
  return _commandBuffer.GPUStartTime;
}

- (CFTimeInterval)GPUEndTime {
  return _commandBuffer.GPUEndTime;
}

- (MTLCommandBufferStatus)status {
  return _commandBuffer.status;
}

- (NSError*)error {
  return _commandBuffer.error;
}

- (void)enqueue {
  [_commandBuffer enqueue];
}

- (void)commit {
  [_commandBuffer commit];
}

- (void)addScheduledHandler:(MTLCommandBufferHandler)block {
  [_commandBuffer addScheduledHandler:block];
}

- (void)addCompletedHandler:(MTLCommandBufferHandler)block {
  [_commandBuffer addCompletedHandler:block];
}

- (void)waitUntilScheduled {
  [_commandBuffer waitUntilScheduled];
}

- (void)waitUntilCompleted {
  [_commandBuffer waitUntilCompleted];
}

- (id<MTLBlitCommandEncoder>)blitCommandEncoder {
  return [_commandBuffer blitCommandEncoder];
}

- (void)pushDebugGroup:(NSString*)string {
  [_commandBuffer pushDebugGroup:string];
}

- (void)popDebugGroup {
  [_commandBuffer popDebugGroup];
}

@end
