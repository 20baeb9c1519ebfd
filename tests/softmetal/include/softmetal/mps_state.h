// MPSState and its batches. The double makes one kind: the loss state of MPSNNForwardLoss.
#pragma once
#include <softmetal/mps_image.h>

NS_ASSUME_NONNULL_BEGIN
struct SoftmetalState;

SOFTMETAL_EXPORT
@interface MPSState : SoftmetalObject {
 @package
  struct SoftmetalState* _softmetal;
  NSString* _label;
}
+ (instancetype)temporaryStateWithCommandBuffer:(id<MTLCommandBuffer>)cmdBuf;
- (instancetype)initWithResource:(nullable id<MTLResource>)resource;
- (nullable instancetype)init SOFTMETAL_UNAVAILABLE;
@property(readonly, nonatomic) NSUInteger resourceCount;
@property(readwrite, nonatomic) NSUInteger readCount;
@property(readonly, nonatomic) BOOL isTemporary;
@property(nullable, copy, atomic) NSString* label;
- (nullable id<MTLResource>)resourceAtIndex:(NSUInteger)index allocateMemory:(BOOL)allocateMemory;
- (NSUInteger)bufferSizeAtIndex:(NSUInteger)index;
- (MPSStateTextureInfo)textureInfoAtIndex:(NSUInteger)index;
- (MPSStateResourceType)resourceTypeAtIndex:(NSUInteger)index;
- (NSUInteger)resourceSize;
- (void)synchronizeOnCommandBuffer:(id<MTLCommandBuffer>)commandBuffer;
- (MPSImageDescriptor*)destinationImageDescriptorForSourceImages:(NSArray<MPSImage*>*)sourceImages
                                                    sourceStates:
                                                        (nullable NSArray<MPSState*>*)sourceStates
                                                       forKernel:(MPSKernel*)kernel
                                             suggestedDescriptor:(MPSImageDescriptor*)inDescriptor;
@end

SOFTMETAL_EXPORT
@interface MPSNNGradientState : MPSState
@end

SOFTMETAL_EXPORT
@interface MPSNNBinaryGradientState : MPSState
@end

typedef NSArray<MPSState*> MPSStateBatch;

MTL_EXTERN NSUInteger MPSStateBatchIncrementReadCount(MPSStateBatch* _Nullable batch,
                                                      NSInteger amount);
MTL_EXTERN void MPSStateBatchSynchronize(MPSStateBatch* batch, id<MTLCommandBuffer> cmdBuf);
MTL_EXTERN NSUInteger MPSStateBatchResourceSize(MPSStateBatch* _Nullable batch);
NS_ASSUME_NONNULL_END
