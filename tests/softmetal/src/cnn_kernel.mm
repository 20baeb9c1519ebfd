#include "encode.hpp"
#include "faults.hpp"
#include "judge.hpp"

using namespace softmetal;

@implementation MPSCNNKernel

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
  _sourceFeatureChannelMaxCount = NSUIntegerMax;
  _edgeMode = MPSImageEdgeModeZero;
  _padding = [default_padding() retain];
  _destinationImageAllocator = [[MPSTemporaryImage defaultAllocator] retain];
}

- (void)softmetalTakeFrom:(MPSKernel*)kernel {
  [super softmetalTakeFrom:kernel];
  MPSCNNKernel* other = (MPSCNNKernel*)kernel;
  _offset = other->_offset;
  _clipRect = other->_clipRect;
  _destinationFeatureChannelOffset = other->_destinationFeatureChannelOffset;
  _sourceFeatureChannelOffset = other->_sourceFeatureChannelOffset;
  _sourceFeatureChannelMaxCount = other->_sourceFeatureChannelMaxCount;
  _edgeMode = other->_edgeMode;
  [self setPadding:other->_padding];
  [self setDestinationImageAllocator:other->_destinationImageAllocator];
}

- (void)encodeWithCoder:(NSCoder*)coder {
  [super encodeWithCoder:coder];
  [coder encodeObject:archived(&_offset, sizeof _offset) forKey:@"MPSCNNKernel.offset"];
  [coder encodeObject:archived(&_clipRect, sizeof _clipRect) forKey:@"MPSCNNKernel.clipRect"];
  const NSUInteger numbers[] = {_destinationFeatureChannelOffset, _sourceFeatureChannelOffset,
                                _sourceFeatureChannelMaxCount, _edgeMode};
  [coder encodeObject:archived(numbers, sizeof numbers) forKey:@"MPSCNNKernel.numbers"];
  [coder encodeObject:_padding forKey:@"MPSCNNKernel.padding"];
  [coder encodeObject:_destinationImageAllocator forKey:@"MPSCNNKernel.allocator"];
}

- (instancetype)initWithCoder:(NSCoder*)coder device:(id<MTLDevice>)device {
  if (!(self = [super initWithCoder:coder device:device])) return nil;
  NSUInteger numbers[4];
  if (!unarchive(coder, @"MPSCNNKernel.offset", &_offset, sizeof _offset) ||
      !unarchive(coder, @"MPSCNNKernel.clipRect", &_clipRect, sizeof _clipRect) ||
      !unarchive(coder, @"MPSCNNKernel.numbers", numbers, sizeof numbers)) {
    [self release];
    return nil;
  }
  _destinationFeatureChannelOffset = numbers[0];
  _sourceFeatureChannelOffset = numbers[1];
  _sourceFeatureChannelMaxCount = numbers[2];
  _edgeMode = static_cast<MPSImageEdgeMode>(numbers[3]);
  [self setPadding:[coder decodeObjectForKey:@"MPSCNNKernel.padding"]];
  [self setDestinationImageAllocator:[coder decodeObjectForKey:@"MPSCNNKernel.allocator"]];
  return self;
}

- (MPSOffset)offset {
  return get(self, _offset);
}
- (void)setOffset:(MPSOffset)value {
  set(self, _offset, value);
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
- (NSUInteger)sourceFeatureChannelOffset {
  return get(self, _sourceFeatureChannelOffset);
}
- (void)setSourceFeatureChannelOffset:(NSUInteger)value {
  set(self, _sourceFeatureChannelOffset, value);
}
- (NSUInteger)sourceFeatureChannelMaxCount {
  return get(self, _sourceFeatureChannelMaxCount);
}
- (void)setSourceFeatureChannelMaxCount:(NSUInteger)value {
  set(self, _sourceFeatureChannelMaxCount, value);
}
- (MPSImageEdgeMode)edgeMode {
  return get(self, _edgeMode);
}
- (void)setEdgeMode:(MPSImageEdgeMode)value {
  set(self, _edgeMode, value);
}
- (NSUInteger)kernelWidth {
  return 1;
}
- (NSUInteger)kernelHeight {
  return 1;
}
- (NSUInteger)strideInPixelsX {
  return 1;
}
- (NSUInteger)strideInPixelsY {
  return 1;
}
- (NSUInteger)dilationRateX {
  return strikes(Fault::other_defaults) ? 0 : 1;
}
- (NSUInteger)dilationRateY {
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
  if (_destinationFeatureChannelOffset || _sourceFeatureChannelOffset || _edgeMode ||
      _sourceFeatureChannelMaxCount != NSUIntegerMax) {
    broken(rules::sizing_not_default, "%s", object_getClassName(self));
  }
  if (is_zero(_offset) && is_no_clip(_clipRect)) return YES;
  broken(rules::geometry_not_default, "%s with offset %ld,%ld,%ld%s", object_getClassName(self),
         (long)_offset.x, (long)_offset.y, (long)_offset.z,
         is_no_clip(_clipRect) ? "" : " and a clipRect");
  return NO;
}

- (MPSImageDescriptor*)softmetalResultFor:(MPSImage*)source {
  return suggestion_for(source, false);
}

- (MPSImageDescriptor*)destinationImageDescriptorForSourceImages:(NSArray<MPSImage*>*)sources
                                                    sourceStates:(NSArray<MPSState*>*)states {
  KernelWindow window(self, KernelWindow::change, "sizing a result");
  _offset = disturbed_offset;
  return sized_result(self, _padding, sources, states,
                      [self softmetalResultFor:[sources objectAtIndex:0]]);
}

- (void)softmetalEncode:(MPSImageBatch*)sources
                     to:(MPSImageBatch*)destinations
                 buffer:(id<MTLCommandBuffer>)buffer {
  (void)sources, (void)destinations, (void)buffer;
  broken(rules::wrong_encode, "an inherited encode of %s", object_getClassName(self));
}

- (void)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                  sourceImage:(MPSImage*)sourceImage
             destinationImage:(MPSImage*)destinationImage {
  if (!sourceImage || !destinationImage) return broken(rules::nil_argument, "encode: an image");
  [self encodeBatchToCommandBuffer:commandBuffer
                      sourceImages:@[ sourceImage ]
                 destinationImages:@[ destinationImage ]];
}

- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                      sourceImages:(MPSImageBatch*)sourceImages
                 destinationImages:(MPSImageBatch*)destinationImages {
  KernelWindow window(self, KernelWindow::read, "encoding");
  [self softmetalEncode:sourceImages to:destinationImages buffer:commandBuffer];
}

- (MPSImage*)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                       sourceImage:(MPSImage*)sourceImage {
  if (!sourceImage) {
    broken(rules::nil_argument, "encode: source image");
    return nil;
  }
  return [[self encodeBatchToCommandBuffer:commandBuffer
                              sourceImages:@[ sourceImage ]] objectAtIndex:0];
}

- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                sourceImages:(MPSImageBatch*)sourceImages {
  if (sourceImages.count == 0) {
    broken(rules::nil_argument, "encode: source images");
    return nil;
  }
  KernelWindow window(self, KernelWindow::change, "encoding with a result of its own");
  _offset = {0, 0, 0};  // the policy's choice for a result as large as the source
  MPSImageDescriptor* descriptor = sized_result(
      self, _padding, sourceImages, nil, [self softmetalResultFor:[sourceImages objectAtIndex:0]]);
  MPSImageBatch* results = allocate_results(self, _destinationImageAllocator, commandBuffer,
                                            descriptor, sourceImages.count);
  [self softmetalEncode:sourceImages to:results buffer:commandBuffer];
  _offset = disturbed_offset;
  return results;
}

- (MPSState*)resultStateForSourceImage:(MPSImage*)sourceImage
                          sourceStates:(NSArray<MPSState*>*)sourceStates
                      destinationImage:(MPSImage*)destinationImage {
  (void)sourceImage, (void)sourceStates, (void)destinationImage;
  return nil;
}

- (MPSStateBatch*)resultStateBatchForSourceImage:(MPSImageBatch*)sourceImage
                                    sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                destinationImage:(MPSImageBatch*)destinationImage {
  (void)sourceImage, (void)sourceStates, (void)destinationImage;
  return nil;
}

- (MPSState*)temporaryResultStateForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                      sourceImage:(MPSImage*)sourceImage
                                     sourceStates:(NSArray<MPSState*>*)sourceStates
                                 destinationImage:(MPSImage*)destinationImage {
  (void)commandBuffer, (void)sourceImage, (void)sourceStates, (void)destinationImage;
  return nil;
}

- (MPSStateBatch*)temporaryResultStateBatchForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                                sourceImage:(MPSImageBatch*)sourceImage
                                               sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                           destinationImage:(MPSImageBatch*)destinationImage {
  (void)commandBuffer, (void)sourceImage, (void)sourceStates, (void)destinationImage;
  return nil;
}

- (NSUInteger)encodingStorageSizeForSourceImage:(MPSImage*)sourceImage
                                   sourceStates:(NSArray<MPSState*>*)sourceStates
                               destinationImage:(MPSImage*)destinationImage {
  (void)sourceImage, (void)sourceStates, (void)destinationImage;
  return 0;
}

- (NSUInteger)batchEncodingStorageSizeForSourceImage:(MPSImageBatch*)sourceImage
                                        sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                    destinationImage:(MPSImageBatch*)destinationImage {
  (void)sourceImage, (void)sourceStates, (void)destinationImage;
  return 0;
}

@end
