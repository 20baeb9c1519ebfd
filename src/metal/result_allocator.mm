// What makes the images of a returning encode: as the kernel asks, but in the format that the
// caller was promised, which automatic results need not have.
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "metal/parts.hpp"

@interface MpsnnLossResultAllocator : NSObject <MPSImageAllocator> {
  MPSImageFeatureChannelFormat format_;
  BOOL temporary_;
}
- (instancetype)initWithFormat:(MPSImageFeatureChannelFormat)format temporary:(BOOL)temporary;
@end

@implementation MpsnnLossResultAllocator

- (instancetype)initWithFormat:(MPSImageFeatureChannelFormat)format temporary:(BOOL)temporary {
  self = [super init];
  if (self != nil) {
    format_ = format;
    temporary_ = temporary;
  }
  return self;
}

- (MPSImage*)imageForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                   imageDescriptor:(MPSImageDescriptor*)descriptor
                            kernel:(MPSKernel*)kernel {
  MPSImageDescriptor* const own = [[descriptor copyWithZone:nil] autorelease];
  [own setChannelFormat:format_];
  if (temporary_) {
    return [MPSTemporaryImage temporaryImageWithCommandBuffer:commandBuffer imageDescriptor:own];
  }
  return [[[MPSImage alloc] initWithDevice:[kernel device] imageDescriptor:own] autorelease];
}

// An allocator is part of a kernel's archive, and this one is never on a kernel outside an encode.
+ (BOOL)supportsSecureCoding {
  return YES;
}
- (void)encodeWithCoder:(NSCoder*)coder {
  [coder encodeInteger:static_cast<NSInteger>(format_) forKey:@"format"];
  [coder encodeBool:temporary_ forKey:@"temporary"];
}
- (instancetype)initWithCoder:(NSCoder*)coder {
  return [self initWithFormat:static_cast<MPSImageFeatureChannelFormat>(
                                  [coder decodeIntegerForKey:@"format"])
                    temporary:[coder decodeBoolForKey:@"temporary"]];
}

@end

namespace mpsnn_loss::metal {

void* result_allocator(ResultAllocator kind, Format format) {
  const auto channel_format = format == Format::float16 ? MPSImageFeatureChannelFormatFloat16
                                                        : MPSImageFeatureChannelFormatFloat32;
  return [[[MpsnnLossResultAllocator alloc]
      initWithFormat:channel_format
           temporary:kind == ResultAllocator::temporary_image ? YES : NO] autorelease];
}

}  // namespace mpsnn_loss::metal
