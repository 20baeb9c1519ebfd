// The loss kernels and their descriptor.
#pragma once
#include <softmetal/mps_binary_kernel.h>
#include <softmetal/mps_cnn_kernel.h>

NS_ASSUME_NONNULL_BEGIN
SOFTMETAL_EXPORT
@interface MPSCNNLossDescriptor : SoftmetalObject <NSCopying> {
 @private
  MPSCNNLossType _lossType;
  MPSCNNReductionType _reductionType;
  BOOL _reduceAcrossBatch;
  float _weight, _labelSmoothing, _epsilon, _delta;
  NSUInteger _numberOfClasses;
}
@property(readwrite, nonatomic) MPSCNNLossType lossType;
@property(readwrite, nonatomic) MPSCNNReductionType reductionType;
@property(readwrite, nonatomic) BOOL reduceAcrossBatch;
@property(readwrite, nonatomic) float weight;
@property(readwrite, nonatomic) float labelSmoothing;
@property(readwrite, nonatomic) NSUInteger numberOfClasses;
@property(readwrite, nonatomic) float epsilon;
@property(readwrite, nonatomic) float delta;
- (instancetype)init SOFTMETAL_UNAVAILABLE;
+ (MPSCNNLossDescriptor*)cnnLossDescriptorWithType:(MPSCNNLossType)lossType
                                     reductionType:(MPSCNNReductionType)reductionType;
@end

SOFTMETAL_EXPORT
@interface MPSNNForwardLoss : MPSCNNKernel {
 @private
  MPSCNNLossType _lossType;
  MPSCNNReductionType _reductionType;
  BOOL _reduceAcrossBatch;
  NSUInteger _numberOfClasses;
  float _weight, _labelSmoothing, _epsilon, _delta;
}
@property(readonly, nonatomic) MPSCNNLossType lossType;
@property(readonly, nonatomic) MPSCNNReductionType reductionType;
@property(readonly, nonatomic) BOOL reduceAcrossBatch;
@property(readonly, nonatomic) NSUInteger numberOfClasses;
@property(readwrite, nonatomic) float weight;
@property(readwrite, nonatomic) float labelSmoothing;
@property(readwrite, nonatomic) float epsilon;
@property(readwrite, nonatomic) float delta;
- (instancetype)initWithDevice:(id<MTLDevice>)device SOFTMETAL_UNAVAILABLE;
- (instancetype)initWithDevice:(id<MTLDevice>)device
                lossDescriptor:(MPSCNNLossDescriptor*)lossDescriptor;
- (nullable instancetype)initWithCoder:(NSCoder*)aDecoder device:(id<MTLDevice>)device;
- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                      sourceImages:(MPSImageBatch*)sourceImages
                            labels:(MPSImageBatch*)labels
                           weights:(nullable MPSImageBatch*)weights
                 destinationStates:(nullable MPSStateBatch*)destinationStates
                 destinationImages:(MPSImageBatch*)destinationImages;
- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                sourceImages:(MPSImageBatch*)sourceImages
                                      labels:(MPSImageBatch*)labels
                                     weights:(nullable MPSImageBatch*)weights
                           destinationStates:(MPSStateBatch* _Nullable* _Nullable)outStates
                 destinationStateIsTemporary:(BOOL)isTemporary;
@end

SOFTMETAL_EXPORT
@interface MPSNNLossGradient : MPSCNNBinaryKernel {
 @private
  MPSCNNLossType _lossType;
  MPSCNNReductionType _reductionType;
  BOOL _reduceAcrossBatch, _computeLabelGradients;
  NSUInteger _numberOfClasses;
  float _weight, _labelSmoothing, _epsilon, _delta;
}
@property(readonly, nonatomic) MPSCNNLossType lossType;
@property(readonly, nonatomic) MPSCNNReductionType reductionType;
@property(readonly, nonatomic) BOOL reduceAcrossBatch;
@property(readonly, nonatomic) NSUInteger numberOfClasses;
@property(readwrite, nonatomic) float weight;
@property(readwrite, nonatomic) float labelSmoothing;
@property(readwrite, nonatomic) float epsilon;
@property(readwrite, nonatomic) float delta;
@property(readwrite, nonatomic) BOOL computeLabelGradients;
- (instancetype)initWithDevice:(id<MTLDevice>)device SOFTMETAL_UNAVAILABLE;
- (instancetype)initWithDevice:(id<MTLDevice>)device
                lossDescriptor:(MPSCNNLossDescriptor*)lossDescriptor;
- (nullable instancetype)initWithCoder:(NSCoder*)aDecoder device:(id<MTLDevice>)device;
- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                             sourceGradients:(MPSImageBatch*)sourceGradients
                                sourceImages:(MPSImageBatch*)sourceImages
                                      labels:(MPSImageBatch*)labels
                                     weights:(nullable MPSImageBatch*)weights
                                sourceStates:(nullable MPSStateBatch*)sourceStates;
- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                   sourceGradients:(MPSImageBatch*)sourceGradients
                      sourceImages:(MPSImageBatch*)sourceImages
                            labels:(MPSImageBatch*)labels
                           weights:(nullable MPSImageBatch*)weights
                      sourceStates:(nullable MPSStateBatch*)sourceStates
              destinationGradients:(MPSImageBatch*)destinationGradients;
@end

SOFTMETAL_EXPORT
@interface MPSNNInitialGradient : MPSCNNKernel
- (instancetype)initWithDevice:(id<MTLDevice>)device;
@end
NS_ASSUME_NONNULL_END
