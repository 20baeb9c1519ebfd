// MPSCNNKernel: one source image, one destination.
#pragma once
#include <softmetal/mps_kernel.h>

NS_ASSUME_NONNULL_BEGIN
SOFTMETAL_EXPORT
@interface MPSCNNKernel : MPSKernel {
 @private
  MPSOffset _offset;
  MTLRegion _clipRect;
  NSUInteger _destinationFeatureChannelOffset;
  NSUInteger _sourceFeatureChannelOffset, _sourceFeatureChannelMaxCount;
  MPSImageEdgeMode _edgeMode;
  id<MPSNNPadding> _padding;
  id<MPSImageAllocator> _destinationImageAllocator;
}
- (instancetype)initWithDevice:(id<MTLDevice>)device;
- (nullable instancetype)initWithCoder:(NSCoder*)aDecoder device:(id<MTLDevice>)device;
@property(readwrite, nonatomic) MPSOffset offset;
@property(readwrite, nonatomic) MTLRegion clipRect;
@property(readwrite, nonatomic) NSUInteger destinationFeatureChannelOffset;
@property(readwrite, nonatomic) NSUInteger sourceFeatureChannelOffset;
@property(readwrite, nonatomic) NSUInteger sourceFeatureChannelMaxCount;
@property(readwrite, nonatomic) MPSImageEdgeMode edgeMode;
@property(readonly, nonatomic) NSUInteger kernelWidth;
@property(readonly, nonatomic) NSUInteger kernelHeight;
@property(readonly, nonatomic) NSUInteger strideInPixelsX;
@property(readonly, nonatomic) NSUInteger strideInPixelsY;
@property(readonly, nonatomic) NSUInteger dilationRateX;
@property(readonly, nonatomic) NSUInteger dilationRateY;
@property(readonly, nonatomic) BOOL isBackwards;
@property(readonly, nonatomic) BOOL isStateModified;
@property(readwrite, nonatomic, retain) id<MPSNNPadding> padding;
@property(readwrite, nonatomic, retain) id<MPSImageAllocator> destinationImageAllocator;
- (void)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                  sourceImage:(MPSImage*)sourceImage
             destinationImage:(MPSImage*)destinationImage;
- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                      sourceImages:(MPSImageBatch*)sourceImages
                 destinationImages:(MPSImageBatch*)destinationImages;
- (MPSImage*)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                       sourceImage:(MPSImage*)sourceImage;
- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                sourceImages:(MPSImageBatch*)sourceImages;
- (nullable MPSState*)resultStateForSourceImage:(MPSImage*)sourceImage
                                   sourceStates:(nullable NSArray<MPSState*>*)sourceStates
                               destinationImage:(MPSImage*)destinationImage;
- (nullable MPSStateBatch*)resultStateBatchForSourceImage:(MPSImageBatch*)sourceImage
                                             sourceStates:
                                                 (nullable NSArray<MPSStateBatch*>*)sourceStates
                                         destinationImage:(MPSImageBatch*)destinationImage;
- (nullable MPSState*)temporaryResultStateForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                               sourceImage:(MPSImage*)sourceImage
                                              sourceStates:
                                                  (nullable NSArray<MPSState*>*)sourceStates
                                          destinationImage:(MPSImage*)destinationImage;
- (nullable MPSStateBatch*)
    temporaryResultStateBatchForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                  sourceImage:(MPSImageBatch*)sourceImage
                                 sourceStates:(nullable NSArray<MPSStateBatch*>*)sourceStates
                             destinationImage:(MPSImageBatch*)destinationImage;
- (BOOL)isResultStateReusedAcrossBatch;
- (BOOL)appendBatchBarrier;
- (MPSImageDescriptor*)destinationImageDescriptorForSourceImages:(NSArray<MPSImage*>*)sourceImages
                                                    sourceStates:
                                                        (nullable NSArray<MPSState*>*)sourceStates;
- (NSUInteger)encodingStorageSizeForSourceImage:(MPSImage*)sourceImage
                                   sourceStates:(nullable NSArray<MPSState*>*)sourceStates
                               destinationImage:(nullable MPSImage*)destinationImage;
- (NSUInteger)batchEncodingStorageSizeForSourceImage:(MPSImageBatch*)sourceImage
                                        sourceStates:(nullable NSArray<MPSStateBatch*>*)sourceStates
                                    destinationImage:(nullable MPSImageBatch*)destinationImage;
@end
NS_ASSUME_NONNULL_END
