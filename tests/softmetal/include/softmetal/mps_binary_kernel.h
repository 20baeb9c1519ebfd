// MPSCNNBinaryKernel: two source images, one destination.
#pragma once
#include <softmetal/mps_kernel.h>

NS_ASSUME_NONNULL_BEGIN
SOFTMETAL_EXPORT
@interface MPSCNNBinaryKernel : MPSKernel {
 @private
  MPSOffset _primaryOffset, _secondaryOffset;
  MTLRegion _clipRect;
  NSUInteger _destinationFeatureChannelOffset;
  NSUInteger _primarySourceFeatureChannelOffset, _secondarySourceFeatureChannelOffset;
  NSUInteger _primarySourceFeatureChannelMaxCount, _secondarySourceFeatureChannelMaxCount;
  MPSImageEdgeMode _primaryEdgeMode, _secondaryEdgeMode;
  NSUInteger _primaryStrideInPixelsX, _primaryStrideInPixelsY;
  NSUInteger _secondaryStrideInPixelsX, _secondaryStrideInPixelsY;
  id<MPSNNPadding> _padding;
  id<MPSImageAllocator> _destinationImageAllocator;
}
- (instancetype)initWithDevice:(id<MTLDevice>)device;
- (nullable instancetype)initWithCoder:(NSCoder*)aDecoder device:(id<MTLDevice>)device;
@property(readwrite, nonatomic) MPSOffset primaryOffset;
@property(readwrite, nonatomic) MPSOffset secondaryOffset;
@property(readwrite, nonatomic) MTLRegion clipRect;
@property(readwrite, nonatomic) NSUInteger destinationFeatureChannelOffset;
@property(readwrite, nonatomic) NSUInteger primarySourceFeatureChannelOffset;
@property(readwrite, nonatomic) NSUInteger secondarySourceFeatureChannelOffset;
@property(readwrite, nonatomic) NSUInteger primarySourceFeatureChannelMaxCount;
@property(readwrite, nonatomic) NSUInteger secondarySourceFeatureChannelMaxCount;
@property(readwrite, nonatomic) MPSImageEdgeMode primaryEdgeMode;
@property(readwrite, nonatomic) MPSImageEdgeMode secondaryEdgeMode;
@property(readonly, nonatomic) NSUInteger primaryKernelWidth;
@property(readonly, nonatomic) NSUInteger primaryKernelHeight;
@property(readonly, nonatomic) NSUInteger secondaryKernelWidth;
@property(readonly, nonatomic) NSUInteger secondaryKernelHeight;
@property(readwrite, nonatomic) NSUInteger primaryStrideInPixelsX;
@property(readwrite, nonatomic) NSUInteger primaryStrideInPixelsY;
@property(readwrite, nonatomic) NSUInteger secondaryStrideInPixelsX;
@property(readwrite, nonatomic) NSUInteger secondaryStrideInPixelsY;
@property(readonly, nonatomic) NSUInteger primaryDilationRateX;
@property(readonly, nonatomic) NSUInteger primaryDilationRateY;
@property(readonly, nonatomic) NSUInteger secondaryDilationRateX;
@property(readonly, nonatomic) NSUInteger secondaryDilationRateY;
@property(readonly, nonatomic) BOOL isBackwards;
@property(readonly, nonatomic) BOOL isStateModified;
@property(readwrite, nonatomic, retain) id<MPSNNPadding> padding;
@property(readwrite, nonatomic, retain) id<MPSImageAllocator> destinationImageAllocator;
- (BOOL)isResultStateReusedAcrossBatch;
- (BOOL)appendBatchBarrier;
- (MPSImageDescriptor*)destinationImageDescriptorForSourceImages:(NSArray<MPSImage*>*)sourceImages
                                                    sourceStates:
                                                        (nullable NSArray<MPSState*>*)sourceStates;
@end

@interface MPSCNNBinaryKernel (Encodes)
- (void)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                 primaryImage:(MPSImage*)primaryImage
               secondaryImage:(MPSImage*)secondaryImage
             destinationImage:(MPSImage*)destinationImage;
- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                     primaryImages:(MPSImageBatch*)primaryImages
                   secondaryImages:(MPSImageBatch*)secondaryImages
                 destinationImages:(MPSImageBatch*)destinationImages;
- (MPSImage*)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                      primaryImage:(MPSImage*)primaryImage
                    secondaryImage:(MPSImage*)secondaryImage;
- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                               primaryImages:(MPSImageBatch*)primaryImages
                             secondaryImages:(MPSImageBatch*)secondaryImages;
- (nullable MPSState*)resultStateForPrimaryImage:(MPSImage*)primaryImage
                                  secondaryImage:(MPSImage*)secondaryImage
                                    sourceStates:(nullable NSArray<MPSState*>*)sourceStates
                                destinationImage:(MPSImage*)destinationImage;
- (nullable MPSStateBatch*)resultStateBatchForPrimaryImage:(MPSImageBatch*)primaryImage
                                            secondaryImage:(MPSImageBatch*)secondaryImage
                                              sourceStates:
                                                  (nullable NSArray<MPSStateBatch*>*)sourceStates
                                          destinationImage:(MPSImageBatch*)destinationImage;
- (nullable MPSState*)temporaryResultStateForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                              primaryImage:(MPSImage*)primaryImage
                                            secondaryImage:(MPSImage*)secondaryImage
                                              sourceStates:
                                                  (nullable NSArray<MPSState*>*)sourceStates
                                          destinationImage:(MPSImage*)destinationImage;
- (nullable MPSStateBatch*)
    temporaryResultStateBatchForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                 primaryImage:(MPSImageBatch*)primaryImage
                               secondaryImage:(MPSImageBatch*)secondaryImage
                                 sourceStates:(nullable NSArray<MPSStateBatch*>*)sourceStates
                             destinationImage:(MPSImageBatch*)destinationImage;
- (NSUInteger)encodingStorageSizeForPrimaryImage:(MPSImage*)primaryImage
                                  secondaryImage:(MPSImage*)secondaryImage
                                    sourceStates:(nullable NSArray<MPSState*>*)sourceStates
                                destinationImage:(nullable MPSImage*)destinationImage;
- (NSUInteger)batchEncodingStorageSizeForPrimaryImage:(MPSImageBatch*)primaryImage
                                       secondaryImage:(MPSImageBatch*)secondaryImage
                                         sourceStates:
                                             (nullable NSArray<MPSStateBatch*>*)sourceStates
                                     destinationImage:(nullable MPSImageBatch*)destinationImage;
@end
NS_ASSUME_NONNULL_END
