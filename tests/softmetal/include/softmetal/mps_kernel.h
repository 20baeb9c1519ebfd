// MPSKernel and the padding policies of kernels that size their own results.
#pragma once
#include <softmetal/mps_state.h>

NS_ASSUME_NONNULL_BEGIN
struct SoftmetalKernelUse;

SOFTMETAL_EXPORT
@interface MPSKernel : SoftmetalObject <NSCopying, NSSecureCoding> {
 @package
  struct SoftmetalKernelUse* _use;
 @private
  id<MTLDevice> _device;
  MPSKernelOptions _options;
  NSString* _label;
}
@property(readwrite, nonatomic) MPSKernelOptions options;
@property(readonly, retain, nonatomic) id<MTLDevice> device;
@property(copy, atomic, nullable) NSString* label;
- (instancetype)initWithDevice:(id<MTLDevice>)device;
- (instancetype)init SOFTMETAL_UNAVAILABLE;
- (instancetype)copyWithZone:(nullable NSZone*)zone;
- (instancetype)copyWithZone:(nullable NSZone*)zone device:(nullable id<MTLDevice>)device;
- (nullable instancetype)initWithCoder:(NSCoder*)aDecoder;
- (nullable instancetype)initWithCoder:(NSCoder*)aDecoder device:(id<MTLDevice>)device;
@end

@protocol MPSNNPadding <NSObject, NSSecureCoding>
@required
- (MPSNNPaddingMethod)paddingMethod;
@optional
- (NSString*)label;
- (MPSImageDescriptor*)destinationImageDescriptorForSourceImages:(NSArray<MPSImage*>*)sourceImages
                                                    sourceStates:
                                                        (nullable NSArray<MPSState*>*)sourceStates
                                                       forKernel:(MPSKernel*)kernel
                                             suggestedDescriptor:(MPSImageDescriptor*)inDescriptor;
- (nullable instancetype)inverse;
@end

SOFTMETAL_EXPORT
@interface MPSNNDefaultPadding : SoftmetalObject <MPSNNPadding> {
 @private
  MPSNNPaddingMethod _method;
}
+ (instancetype)paddingWithMethod:(MPSNNPaddingMethod)method;
+ (instancetype)paddingForTensorflowAveragePooling;
+ (instancetype)paddingForTensorflowAveragePoolingValidOnly;
- (NSString*)label;
@end
NS_ASSUME_NONNULL_END
