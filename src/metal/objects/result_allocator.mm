#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "metal/mps/channel_format.hpp"
#include "metal/objects/result_allocator.hpp"

@interface MpsnnLossResultAllocator : NSObject <MPSImageAllocator> {
  MPSImageFeatureChannelFormat format_;
  NSEnumerator<MPSImage*>* images_;  // nil: they are temporary
}
- (instancetype)initWithFormat:(MPSImageFeatureChannelFormat)format
                        images:(NSArray<MPSImage*>*)images;
@end

@implementation MpsnnLossResultAllocator

- (instancetype)initWithFormat:(MPSImageFeatureChannelFormat)format
                        images:(NSArray<MPSImage*>*)images {
  self = [super init];
  if (self != nil) {
    format_ = format;
    images_ = [[images objectEnumerator] retain];
  }
  return self;
}
- (void)dealloc {
  [images_ release];
  [super dealloc];
}

- (MPSImage*)imageForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                   imageDescriptor:(MPSImageDescriptor*)descriptor
                            kernel:(MPSKernel*)kernel {
  MPSImageDescriptor* const own = [[descriptor copyWithZone:nil] autorelease];
  [own setChannelFormat:format_];
  if (images_ == nil) {
    return [MPSTemporaryImage temporaryImageWithCommandBuffer:commandBuffer imageDescriptor:own];
  }
  MPSImage* const image = [images_ nextObject];
  const bool fits = [image width] == [own width] && [image height] == [own height] &&
                    [image featureChannels] == [own featureChannels];
  if (fits) return image;
  // What the kernel returns is looked at afterwards, in words.
  return [[[MPSImage alloc] initWithDevice:[kernel device] imageDescriptor:own] autorelease];
}

// An allocator is part of a kernel's archive, and this one is never on a kernel outside an encode.
+ (BOOL)supportsSecureCoding {
  return YES;
}
- (void)encodeWithCoder:(NSCoder*)coder {
  [coder encodeInteger:static_cast<NSInteger>(format_) forKey:@"format"];
}
- (instancetype)initWithCoder:(NSCoder*)coder {
  return [self initWithFormat:static_cast<MPSImageFeatureChannelFormat>(
                                  [coder decodeIntegerForKey:@"format"])
                       images:nil];
}

@end

namespace mpsnn_loss::metal {

id<MPSImageAllocator> result_allocator(Format format, ImageArray images) {
  return [[[MpsnnLossResultAllocator alloc] initWithFormat:channel_format(format)
                                                    images:images] autorelease];
}

}  // namespace mpsnn_loss::metal
