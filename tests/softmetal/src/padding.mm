// Padding policies, and what a kernel does with them to size a result.
#include "command_buffer.hpp"
#include "faults.hpp"
#include "judge.hpp"
#include "kernel.hpp"

namespace softmetal {

id<MPSNNPadding> default_padding() {
  if (strikes(Fault::other_defaults))
    return [MPSNNDefaultPadding paddingWithMethod:MPSNNPaddingMethodSizeValidOnly];
  return [MPSNNDefaultPadding paddingWithMethod:MPSNNPaddingMethodAlignCentered |
                                                MPSNNPaddingMethodAddRemainderToTopLeft |
                                                MPSNNPaddingMethodSizeSame];
}

// The format of automatic results is undocumented and "not reliably float32": the double takes the
// narrower one unless told otherwise.
MPSImageDescriptor* suggestion_for(MPSImage* like, bool single_value) {
  const bool follow = strikes(Fault::results_follow_source_format).has_value();
  return [MPSImageDescriptor
      imageDescriptorWithChannelFormat:follow ? like.featureChannelFormat
                                              : MPSImageFeatureChannelFormatFloat16
                                 width:single_value ? 1 : like.width
                                height:single_value ? 1 : like.height
                       featureChannels:single_value ? 1 : like.featureChannels];
}

MPSImageDescriptor* sized_result(MPSKernel* kernel, id<MPSNNPadding> padding,
                                 NSArray<MPSImage*>* sources, NSArray<MPSState*>* states,
                                 MPSImageDescriptor* suggestion) {
  MPSImageDescriptor* descriptor = suggestion;
  for (MPSState* state in states) {
    descriptor = [state destinationImageDescriptorForSourceImages:sources
                                                     sourceStates:states
                                                        forKernel:kernel
                                              suggestedDescriptor:descriptor];
  }
  if (([padding paddingMethod] & MPSNNPaddingMethodCustom) == 0) return descriptor;
  return [padding destinationImageDescriptorForSourceImages:sources
                                               sourceStates:states
                                                  forKernel:kernel
                                        suggestedDescriptor:descriptor];
}

MPSImageBatch* allocate_results(MPSKernel* kernel, id<MPSImageAllocator> allocator,
                                id<MTLCommandBuffer> buffer, MPSImageDescriptor* descriptor,
                                NSUInteger count) {
  if ([allocator
          respondsToSelector:@selector(imageBatchForCommandBuffer:imageDescriptor:kernel:count:)]) {
    return [allocator imageBatchForCommandBuffer:buffer
                                 imageDescriptor:descriptor
                                          kernel:kernel
                                           count:count];
  }
  NSMutableArray* batch = [NSMutableArray array];
  for (NSUInteger i = 0; i < count; ++i) {
    MPSImage* image = [allocator imageForCommandBuffer:buffer
                                       imageDescriptor:descriptor
                                                kernel:kernel];
    if (!image) return nil;
    [batch addObject:image];
  }
  return batch;
}

}  // namespace softmetal

@implementation MPSNNDefaultPadding

+ (instancetype)paddingWithMethod:(MPSNNPaddingMethod)method {
  MPSNNDefaultPadding* padding = [[self alloc] init];
  padding->_method = method;
  return [padding autorelease];
}

+ (instancetype)paddingForTensorflowAveragePooling {
  return [self paddingWithMethod:MPSNNPaddingMethodSizeSame | MPSNNPaddingMethodAlignCentered |
                                 MPSNNPaddingMethodAddRemainderToBottomRight];
}

+ (instancetype)paddingForTensorflowAveragePoolingValidOnly {
  return [self paddingWithMethod:MPSNNPaddingMethodSizeValidOnly | MPSNNPaddingMethodAlignCentered |
                                 MPSNNPaddingMethodAddRemainderToBottomRight];
}

- (MPSNNPaddingMethod)paddingMethod {
  return _method;
}

- (NSString*)label {
  return [NSString stringWithFormat:@"padding method %lu", (unsigned long)_method];
}

+ (BOOL)supportsSecureCoding {
  return YES;
}

- (void)encodeWithCoder:(NSCoder*)coder {
  [coder encodeInt64:static_cast<int64_t>(_method) forKey:@"MPSNNDefaultPadding.method"];
}

- (id)initWithCoder:(NSCoder*)coder {
  if (!(self = [super init])) return nil;
  _method =
      static_cast<MPSNNPaddingMethod>([coder decodeInt64ForKey:@"MPSNNDefaultPadding.method"]);
  return self;
}

@end
