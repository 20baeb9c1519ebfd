#include "command_buffer.hpp"

#include "counters.hpp"
#include "faults.hpp"
#include "judge.hpp"

#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

NSErrorDomain const MTLCommandBufferErrorDomain = @"MTLCommandBufferErrorDomain";
NSErrorUserInfoKey const MTLCommandBufferEncoderInfoErrorKey =
    @"MTLCommandBufferEncoderInfoErrorKey";

namespace softmetal {
namespace {

/// Judges that the buffer has not been committed; `doing` goes into the text.
bool is_open(SoftmetalCommandBuffer* buffer, const Rule& rule, const char* doing) {
  std::unique_lock lock(buffer->_state->mutex);
  if (!buffer->_state->committed()) return true;
  lock.unlock();
  broken(rule, "%s on a committed command buffer", doing);
  return false;
}

bool has_no_encoder(SoftmetalCommandBuffer* buffer, const char* doing) {
  std::unique_lock lock(buffer->_state->mutex);
  if (!buffer->_state->encoder_open) return true;
  lock.unlock();
  broken(rules::encoder_left_open, "%s while an encoder is open", doing);
  return false;
}

}  // namespace

SoftmetalCommandBuffer* root_of(id<MTLCommandBuffer> buffer) {
  id inner = buffer;
  while ([inner isKindOfClass:[MPSCommandBuffer class]]) inner = [inner commandBuffer];
  if ([inner isKindOfClass:[SoftmetalCommandBuffer class]]) return inner;
  [NSException raise:NSInvalidArgumentException format:@"not a command buffer: %@", inner];
  return nil;
}

BufferWriter::BufferWriter(id<MTLCommandBuffer> buffer, const char* doing) {
  if (!buffer) {
    broken(rules::nil_argument, "%s: command buffer", doing);
    return;
  }
  SoftmetalCommandBuffer* root = root_of(buffer);
  if (!is_open(root, rules::encode_after_commit, doing) || !has_no_encoder(root, doing)) return;
  const std::thread::id self = std::this_thread::get_id();
  std::thread::id before{};
  outermost_ = root->_state->writer.compare_exchange_strong(before, self);
  if (!outermost_ && before != self) {
    broken(rules::written_by_two_threads, "%s while another thread encodes or commits", doing);
  }
  buffer_ = root;
}

BufferWriter::~BufferWriter() {
  if (outermost_) buffer_->_state->writer = std::thread::id{};
}

id<MTLDevice> BufferWriter::device() const { return buffer_.device; }

void BufferWriter::append(Command command, const std::vector<SoftmetalTexture*>& textures) const {
  BufferState& s = state();
  std::lock_guard lock(s.mutex);
  s.commands.push_back(std::move(command));
  if (!s.retains_references) return;
  for (SoftmetalTexture* texture : textures) s.references.push_back([texture retain]);
}

}  // namespace softmetal

using namespace softmetal;

@implementation SoftmetalCommandBuffer
@synthesize label = _label;

- (instancetype)initWithQueue:(SoftmetalQueue*)queue
           retainedReferences:(BOOL)retained
                 errorOptions:(MTLCommandBufferErrorOption)options {
  if (!(self = [super init])) return nil;
  _queue = [queue retain];
  _state = new BufferState;
  _state->retains_references = retained;
  _state->error_options = options;
  _state->heap->set_buffer(_state);
  return self;
}

- (void)dropUncommitted {
  const bool enqueued = _state->status == MTLCommandBufferStatusEnqueued;
  if (enqueued) broken(rules::enqueued_and_dropped, "a command buffer");
  drop(**_queue->_state, self);
  if (strikes(Fault::run_handlers_of_dropped)) {
    for (MTLCommandBufferHandler handler : _state->completed_handlers) handler(self);
  }
  _state->goes = true;
  for (MTLCommandBufferHandler handler : _state->completed_handlers) Block_release(handler);
  for (MTLCommandBufferHandler handler : _state->scheduled_handlers) Block_release(handler);
  for (id object : _state->references) [object release];
  _state->heap->set_buffer(nullptr);
  _state->heap->release_temporaries();
  _state->heap->release_storage();
}

- (void)dealloc {
  if (!_state->committed()) [self dropUncommitted];
  [_state->error release];
  delete _state;
  [_label release];
  [_queue release];
  [super dealloc];
}

- (id<MTLDevice>)device {
  return _queue.device;
}

- (id<MTLCommandQueue>)commandQueue {
  return _queue;
}

- (BOOL)retainedReferences {
  return _state->retains_references;
}

- (MTLCommandBufferErrorOption)errorOptions {
  return _state->error_options;
}

- (MTLCommandBufferStatus)status {
  if (_state->goes)
    broken(rules::used_after_release, "-[SoftmetalCommandBuffer status] sent while it goes");
  std::lock_guard lock(_state->mutex);
  return _state->status;
}

- (NSError*)error {
  std::lock_guard lock(_state->mutex);
  return [[_state->error retain] autorelease];
}

- (CFTimeInterval)GPUStartTime {
  std::lock_guard lock(_state->mutex);
  return _state->gpu_start;
}

- (CFTimeInterval)GPUEndTime {
  std::lock_guard lock(_state->mutex);
  return _state->gpu_end;
}

- (CFTimeInterval)kernelStartTime {
  return self.GPUStartTime;
}

- (CFTimeInterval)kernelEndTime {
  return self.GPUStartTime;
}

- (void)enqueue {
  if (!is_open(self, rules::committed_twice, "enqueue")) return;
  enqueue(**_queue->_state, self);
  std::lock_guard lock(_state->mutex);
  _state->status = MTLCommandBufferStatusEnqueued;
}

- (void)commit {
  if (!is_open(self, rules::committed_twice, "commit")) return;
  BufferWriter writer(self, "commit");
  if (!writer) return;
  {
    std::lock_guard lock(_state->mutex);
    _state->status = MTLCommandBufferStatusCommitted;
    for (const Command& command : _state->commands) {
      for (const Access& access : command.accesses) {
        ++(access.touch == Touch::reads ? access.texels->reading : access.texels->writing);
      }
    }
  }
  ++counters().commits;
  // Alive until the end of this method, which the last release of a caller may overtake.
  [[self retain] autorelease];
  _state->heap->set_buffer(nullptr);
  _state->heap->release_temporaries();
  commit(**_queue->_state, self);
}

- (void)addScheduledHandler:(MTLCommandBufferHandler)block {
  if (!is_open(self, rules::handler_after_commit, "addScheduledHandler:")) return;
  std::lock_guard lock(_state->mutex);
  _state->scheduled_handlers.push_back(Block_copy(block));
}

- (void)addCompletedHandler:(MTLCommandBufferHandler)block {
  if (!is_open(self, rules::handler_after_commit, "addCompletedHandler:")) return;
  std::lock_guard lock(_state->mutex);
  _state->completed_handlers.push_back(Block_copy(block));
}

- (BOOL)mayWait:(const char*)doing {
  std::unique_lock lock(_state->mutex);
  const bool committed = _state->committed(), finished = _state->finished;
  lock.unlock();
  if (!committed) {
    broken(rules::wait_before_commit, "%s", doing);
  } else if (!finished && in_handler_of(**_queue->_state)) {
    broken(rules::wait_in_handler, "%s in a completed handler of the same queue", doing);
  } else {
    return YES;
  }
  return NO;
}

- (void)waitUntilScheduled {
  if (![self mayWait:"waitUntilScheduled"]) return;
  std::unique_lock lock(_state->mutex);
  _state->changed.wait(lock, [&] { return _state->status >= MTLCommandBufferStatusScheduled; });
}

- (void)waitUntilCompleted {
  if (![self mayWait:"waitUntilCompleted"]) return;
  std::unique_lock lock(_state->mutex);
  _state->changed.wait(lock, [&] { return _state->finished; });
}

- (id<MTLBlitCommandEncoder>)blitCommandEncoder {
  BufferWriter writer(self, "blitCommandEncoder");
  if (!writer) return nil;
  return [[[SoftmetalBlitEncoder alloc] initWithBuffer:self] autorelease];
}

- (void)pushDebugGroup:(NSString*)string {
  (void)string;
}

- (void)popDebugGroup {
}

@end
