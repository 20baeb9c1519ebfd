#include "faults.hpp"
#include "judge.hpp"
#include "kernel.hpp"

using namespace softmetal;

@implementation MPSCNNBinaryKernel

- (instancetype)initWithDevice:(id<MTLDevice>)device {
  return [super initWithDevice:device];
}

- (void)dealloc {
  [_padding release];
  [_destinationImageAllocator release];
  [super dealloc];
}

- (void)softmetalSetDefaults {
  [super softmetalSetDefaults];
  _clipRect = MPSRectNoClip;
  _primarySourceFeatureChannelMaxCount = _secondarySourceFeatureChannelMaxCount = NSUIntegerMax;
  _primaryStrideInPixelsX = _primaryStrideInPixelsY = 1;
  _secondaryStrideInPixelsX = _secondaryStrideInPixelsY = 1;
  _padding = [default_padding() retain];
  _destinationImageAllocator = [[MPSTemporaryImage defaultAllocator] retain];
}

- (void)softmetalTakeFrom:(MPSKernel*)kernel {
  [super softmetalTakeFrom:kernel];
  MPSCNNBinaryKernel* other = (MPSCNNBinaryKernel*)kernel;
  _primaryOffset = other->_primaryOffset;
  _secondaryOffset = other->_secondaryOffset;
  _clipRect = other->_clipRect;
  _destinationFeatureChannelOffset = other->_destinationFeatureChannelOffset;
  _primarySourceFeatureChannelOffset = other->_primarySourceFeatureChannelOffset;
  _secondarySourceFeatureChannelOffset = other->_secondarySourceFeatureChannelOffset;
  _primarySourceFeatureChannelMaxCount = other->_primarySourceFeatureChannelMaxCount;
  _secondarySourceFeatureChannelMaxCount = other->_secondarySourceFeatureChannelMaxCount;
  _primaryEdgeMode = other->_primaryEdgeMode;
  _secondaryEdgeMode = other->_secondaryEdgeMode;
  _primaryStrideInPixelsX = other->_primaryStrideInPixelsX;
  _primaryStrideInPixelsY = other->_primaryStrideInPixelsY;
  _secondaryStrideInPixelsX = other->_secondaryStrideInPixelsX;
  _secondaryStrideInPixelsY = other->_secondaryStrideInPixelsY;
  [self setPadding:other->_padding];
  [self setDestinationImageAllocator:other->_destinationImageAllocator];
}

- (void)encodeWithCoder:(NSCoder*)coder {
  [super encodeWithCoder:coder];
  const MPSOffset offsets[] = {_primaryOffset, _secondaryOffset};
  const NSUInteger numbers[] = {_destinationFeatureChannelOffset,
                                _primarySourceFeatureChannelOffset,
                                _secondarySourceFeatureChannelOffset,
                                _primarySourceFeatureChannelMaxCount,
                                _secondarySourceFeatureChannelMaxCount,
                                _primaryEdgeMode,
                                _secondaryEdgeMode,
                                _primaryStrideInPixelsX,
                                _primaryStrideInPixelsY,
                                _secondaryStrideInPixelsX,
                                _secondaryStrideInPixelsY};
  [coder encodeObject:archived(offsets, sizeof offsets) forKey:@"MPSCNNBinaryKernel.offsets"];
  [coder encodeObject:archived(&_clipRect, sizeof _clipRect) forKey:@"MPSCNNBinaryKernel.clipRect"];
  [coder encodeObject:archived(numbers, sizeof numbers) forKey:@"MPSCNNBinaryKernel.numbers"];
  [coder encodeObject:_padding forKey:@"MPSCNNBinaryKernel.padding"];
  [coder encodeObject:_destinationImageAllocator forKey:@"MPSCNNBinaryKernel.allocator"];
}

- (instancetype)initWithCoder:(NSCoder*)coder device:(id<MTLDevice>)device {
  if (!(self = [super initWithCoder:coder device:device])) return nil;
  MPSOffset offsets[2];
  NSUInteger numbers[11];
  if (!unarchive(coder, @"MPSCNNBinaryKernel.offsets", offsets, sizeof offsets) ||
      !unarchive(coder, @"MPSCNNBinaryKernel.clipRect", &_clipRect, sizeof _clipRect) ||
      !unarchive(coder, @"MPSCNNBinaryKernel.numbers", numbers, sizeof numbers)) {
    [self release];
    return nil;
  }
  _primaryOffset = offsets[0];
  _secondaryOffset = offsets[1];
  _destinationFeatureChannelOffset = numbers[0];
  _primarySourceFeatureChannelOffset = numbers[1];
  _secondarySourceFeatureChannelOffset = numbers[2];
  _primarySourceFeatureChannelMaxCount = numbers[3];
  _secondarySourceFeatureChannelMaxCount = numbers[4];
  _primaryEdgeMode = static_cast<MPSImageEdgeMode>(numbers[5]);
  _secondaryEdgeMode = static_cast<MPSImageEdgeMode>(numbers[6]);
  _primaryStrideInPixelsX = numbers[7];
  _primaryStrideInPixelsY = numbers[8];
  _secondaryStrideInPixelsX = numbers[9];
  _secondaryStrideInPixelsY = numbers[10];
  [self setPadding:[coder decodeObjectForKey:@"MPSCNNBinaryKernel.padding"]];
  [self setDestinationImageAllocator:[coder decodeObjectForKey:@"MPSCNNBinaryKernel.allocator"]];
  return self;
}

- (MPSOffset)primaryOffset {
  return get(self, _primaryOffset);
}
- (void)setPrimaryOffset:(MPSOffset)value {
  set(self, _primaryOffset, value);
}
- (MPSOffset)secondaryOffset {
  return get(self, _secondaryOffset);
}
- (void)setSecondaryOffset:(MPSOffset)value {
  set(self, _secondaryOffset, value);
}
- (MTLRegion)clipRect {
  return get(self, _clipRect);
}
- (void)setClipRect:(MTLRegion)value {
  set(self, _clipRect, value);
}
- (NSUInteger)destinationFeatureChannelOffset {
  return get(self, _destinationFeatureChannelOffset);
}
- (void)setDestinationFeatureChannelOffset:(NSUInteger)value {
  set(self, _destinationFeatureChannelOffset, value);
}
- (NSUInteger)primarySourceFeatureChannelOffset {
  return get(self, _primarySourceFeatureChannelOffset);
}
- (void)setPrimarySourceFeatureChannelOffset:(NSUInteger)value {
  set(self, _primarySourceFeatureChannelOffset, value);
}
- (NSUInteger)secondarySourceFeatureChannelOffset {
  return get(self, _secondarySourceFeatureChannelOffset);
}
- (void)setSecondarySourceFeatureChannelOffset:(NSUInteger)value {
  set(self, _secondarySourceFeatureChannelOffset, value);
}
- (NSUInteger)primarySourceFeatureChannelMaxCount {
  return get(self, _primarySourceFeatureChannelMaxCount);
}
- (void)setPrimarySourceFeatureChannelMaxCount:(NSUInteger)value {
  set(self, _primarySourceFeatureChannelMaxCount, value);
}
- (NSUInteger)secondarySourceFeatureChannelMaxCount {
  return get(self, _secondarySourceFeatureChannelMaxCount);
}
- (void)setSecondarySourceFeatureChannelMaxCount:(NSUInteger)value {
  set(self, _secondarySourceFeatureChannelMaxCount, value);
}
- (MPSImageEdgeMode)primaryEdgeMode {
  return get(self, _primaryEdgeMode);
}
- (void)setPrimaryEdgeMode:(MPSImageEdgeMode)value {
  set(self, _primaryEdgeMode, value);
}
- (MPSImageEdgeMode)secondaryEdgeMode {
  return get(self, _secondaryEdgeMode);
}
- (void)setSecondaryEdgeMode:(MPSImageEdgeMode)value {
  set(self, _secondaryEdgeMode, value);
}
- (NSUInteger)primaryStrideInPixelsX {
  return get(self, _primaryStrideInPixelsX);
}
- (void)setPrimaryStrideInPixelsX:(NSUInteger)value {
  set(self, _primaryStrideInPixelsX, value);
}
- (NSUInteger)primaryStrideInPixelsY {
  return get(self, _primaryStrideInPixelsY);
}
- (void)setPrimaryStrideInPixelsY:(NSUInteger)value {
  set(self, _primaryStrideInPixelsY, value);
}
- (NSUInteger)secondaryStrideInPixelsX {
  return get(self, _secondaryStrideInPixelsX);
}
- (void)setSecondaryStrideInPixelsX:(NSUInteger)value {
  set(self, _secondaryStrideInPixelsX, value);
}
- (NSUInteger)secondaryStrideInPixelsY {
  return get(self, _secondaryStrideInPixelsY);
}
- (void)setSecondaryStrideInPixelsY:(NSUInteger)value {
  set(self, _secondaryStrideInPixelsY, value);
}
- (NSUInteger)primaryKernelWidth {
  return 1;
}
- (NSUInteger)primaryKernelHeight {
  return 1;
}
- (NSUInteger)secondaryKernelWidth {
  return 1;
}
- (NSUInteger)secondaryKernelHeight {
  return 1;
}
- (NSUInteger)primaryDilationRateX {
  return strikes(Fault::other_defaults) ? 0 : 1;
}
- (NSUInteger)primaryDilationRateY {
  return strikes(Fault::other_defaults) ? 0 : 1;
}
- (NSUInteger)secondaryDilationRateX {
  return strikes(Fault::other_defaults) ? 0 : 1;
}
- (NSUInteger)secondaryDilationRateY {
  return strikes(Fault::other_defaults) ? 0 : 1;
}
- (BOOL)isBackwards {
  return strikes(Fault::other_defaults) ? YES : NO;
}
- (BOOL)isStateModified {
  return strikes(Fault::other_defaults) ? YES : NO;
}
- (id<MPSNNPadding>)padding {
  return get(self, _padding);
}
- (void)setPadding:(id<MPSNNPadding>)value {
  set_object(self, &_padding, value, "padding");
}
- (id<MPSImageAllocator>)destinationImageAllocator {
  return get(self, _destinationImageAllocator);
}
- (void)setDestinationImageAllocator:(id<MPSImageAllocator>)value {
  set_object(self, &_destinationImageAllocator, value, "destinationImageAllocator");
}
- (BOOL)isResultStateReusedAcrossBatch {
  return NO;
}
- (BOOL)appendBatchBarrier {
  return NO;
}

- (BOOL)softmetalHasDefaultGeometry {
  if (_destinationFeatureChannelOffset || _primarySourceFeatureChannelOffset ||
      _secondarySourceFeatureChannelOffset || _primaryEdgeMode || _secondaryEdgeMode ||
      _primarySourceFeatureChannelMaxCount != NSUIntegerMax ||
      _secondarySourceFeatureChannelMaxCount != NSUIntegerMax || _primaryStrideInPixelsX != 1 ||
      _primaryStrideInPixelsY != 1 || _secondaryStrideInPixelsX != 1 ||
      _secondaryStrideInPixelsY != 1) {
    broken(rules::sizing_not_default, "%s", object_getClassName(self));
  }
  if (is_zero(_primaryOffset) && is_zero(_secondaryOffset) && is_no_clip(_clipRect)) return YES;
  broken(rules::geometry_not_default, "%s with offsets %ld,%ld,%ld and %ld,%ld,%ld%s",
         object_getClassName(self), (long)_primaryOffset.x, (long)_primaryOffset.y,
         (long)_primaryOffset.z, (long)_secondaryOffset.x, (long)_secondaryOffset.y,
         (long)_secondaryOffset.z, is_no_clip(_clipRect) ? "" : " and a clipRect");
  return NO;
}

- (MPSImageDescriptor*)softmetalResultFor:(NSArray<MPSImage*>*)sources {
  return suggestion_for([sources objectAtIndex:0], false);
}

- (void)softmetalSetOffsets:(MPSOffset)offset {
  _primaryOffset = _secondaryOffset = offset;
}

- (MPSImageDescriptor*)destinationImageDescriptorForSourceImages:(NSArray<MPSImage*>*)sources
                                                    sourceStates:(NSArray<MPSState*>*)states {
  KernelWindow window(self, KernelWindow::change, "sizing a result");
  [self softmetalSetOffsets:disturbed_offset];
  return sized_result(self, _padding, sources, states, [self softmetalResultFor:sources]);
}

@end
