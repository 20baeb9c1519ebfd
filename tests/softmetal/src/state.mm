#include "state.hpp"

#include "command_buffer.hpp"
#include "judge.hpp"

namespace softmetal {

MPSState* make_loss_state(id<MTLDevice> device, const LossParameters& made_with,
                          const std::shared_ptr<Heap>& heap) {
  MPSNNGradientState* state = [[MPSNNGradientState alloc] softmetalInitWithDevice:device];
  state->_softmetal->made_by_loss = true;
  state->_softmetal->made_with = made_with;
  state->_softmetal->heap = heap;
  state->_softmetal->read_count = heap ? 1 : 0;
  if (heap) heap->keep_until_commit(state);
  return [state autorelease];
}

bool may_use_temporary(MPSState* state, const std::shared_ptr<Heap>& heap, const char* what) {
  SoftmetalState& inside = *state->_softmetal;
  if (!inside.is_temporary()) return true;
  if (inside.heap != heap) {
    broken(rules::temporary_on_other_buffer, "%s", what);
  } else if (state.readCount == 0) {
    broken(rules::read_count_zero, "%s is read or written at read count 0", what);
  } else {
    return true;
  }
  return false;
}

void lower_read_count(MPSState* state) {
  SoftmetalState& inside = *state->_softmetal;
  std::lock_guard lock(inside.mutex);
  if (inside.read_count > 0) --inside.read_count;
}

}  // namespace softmetal

using namespace softmetal;

@implementation MPSState
@synthesize label = _label;

- (instancetype)softmetalInitWithDevice:(id<MTLDevice>)device {
  if (!(self = [super init])) return nil;
  _softmetal = new SoftmetalState;
  _softmetal->device = [device retain];
  return self;
}

+ (instancetype)temporaryStateWithCommandBuffer:(id<MTLCommandBuffer>)cmdBuf {
  return [[[self alloc] softmetalInitWithDevice:cmdBuf.device] autorelease];
}

- (instancetype)initWithResource:(id<MTLResource>)resource {
  return [self softmetalInitWithDevice:resource.device];
}

- (void)dealloc {
  if (_softmetal && _softmetal->read_count > 0) {
    broken(rules::read_count_left_over, "a temporary state goes with read count %lu",
           (unsigned long)_softmetal->read_count);
  }
  delete _softmetal;
  [_label release];
  [super dealloc];
}

- (NSUInteger)resourceCount {
  return _softmetal->is_temporary() ? 1 : 0;
}

- (BOOL)isTemporary {
  return _softmetal->is_temporary();
}

- (NSUInteger)readCount {
  std::lock_guard lock(_softmetal->mutex);
  return _softmetal->read_count;
}

- (void)setReadCount:(NSUInteger)count {
  std::unique_lock lock(_softmetal->mutex);
  if (_softmetal->read_count > 0) {
    _softmetal->read_count = count;
    return;
  }
  lock.unlock();
  broken(rules::read_count_changed_at_zero, "a%s state, to %lu",
         _softmetal->is_temporary() ? " temporary" : " non-temporary", (unsigned long)count);
}

// What the double's states hold is on the CPU; the private buffer of a temporary is only a name.
- (id<MTLResource>)resourceAtIndex:(NSUInteger)index allocateMemory:(BOOL)allocateMemory {
  (void)index, (void)allocateMemory;
  return nil;
}

- (NSUInteger)bufferSizeAtIndex:(NSUInteger)index {
  return index < self.resourceCount ? sizeof(LossParameters) : 0;
}

- (MPSStateTextureInfo)textureInfoAtIndex:(NSUInteger)index {
  (void)index;
  return {};
}

- (MPSStateResourceType)resourceTypeAtIndex:(NSUInteger)index {
  return index < self.resourceCount ? MPSStateResourceTypeBuffer : MPSStateResourceTypeNone;
}

- (NSUInteger)resourceSize {
  return [self bufferSizeAtIndex:0];
}

- (void)synchronizeOnCommandBuffer:(id<MTLCommandBuffer>)commandBuffer {
  BufferWriter writer(commandBuffer, "-[MPSState synchronizeOnCommandBuffer:]");
}

- (MPSImageDescriptor*)destinationImageDescriptorForSourceImages:(NSArray<MPSImage*>*)sourceImages
                                                    sourceStates:(NSArray<MPSState*>*)sourceStates
                                                       forKernel:(MPSKernel*)kernel
                                             suggestedDescriptor:(MPSImageDescriptor*)inDescriptor {
  (void)sourceImages, (void)sourceStates, (void)kernel;
  return inDescriptor;
}

@end

@implementation MPSNNGradientState
@end

@implementation MPSNNBinaryGradientState
@end
