// The two stock allocators.
#include "command_buffer.hpp"
#include "image.hpp"

@interface SoftmetalImageAllocator : SoftmetalObject <MPSImageAllocator>
+ (instancetype)shared;
@end

@interface SoftmetalTemporaryImageAllocator : SoftmetalImageAllocator
@end

using namespace softmetal;

@implementation SoftmetalImageAllocator

+ (instancetype)shared {
  static SoftmetalImageAllocator* images;
  static SoftmetalImageAllocator* temporaries;
  LifeLock lock;
  const bool temporary = self == [SoftmetalTemporaryImageAllocator class];
  SoftmetalImageAllocator*& one = temporary ? temporaries : images;
  if (!one) {
    one = [[self alloc] init];
    make_immortal(one);
  }
  return one;
}

+ (BOOL)supportsSecureCoding {
  return YES;
}

- (void)encodeWithCoder:(NSCoder*)coder {
  (void)coder;
}

- (id)initWithCoder:(NSCoder*)coder {
  (void)coder;
  id one = [[[self class] shared] retain];
  [self release];
  return one;
}

// "Released when the command buffer completes", says the header of what encodes return.
- (MPSImage*)imageForCommandBuffer:(id<MTLCommandBuffer>)cmdBuf
                   imageDescriptor:(MPSImageDescriptor*)descriptor
                            kernel:(MPSKernel*)kernel {
  (void)kernel;
  MPSImage* image = [[MPSImage alloc] initWithDevice:cmdBuf.device imageDescriptor:descriptor];
  if (image) root_of(cmdBuf)->_state->heap->keep_until_completed(image);
  return [image autorelease];
}

- (MPSImageBatch*)imageBatchForCommandBuffer:(id<MTLCommandBuffer>)cmdBuf
                             imageDescriptor:(MPSImageDescriptor*)descriptor
                                      kernel:(MPSKernel*)kernel
                                       count:(NSUInteger)count {
  NSMutableArray* batch = [NSMutableArray array];
  for (NSUInteger i = 0; i < count; ++i) {
    MPSImage* image = [self imageForCommandBuffer:cmdBuf imageDescriptor:descriptor kernel:kernel];
    if (!image) return nil;
    [batch addObject:image];
  }
  return batch;
}

@end

@implementation SoftmetalTemporaryImageAllocator

- (MPSImage*)imageForCommandBuffer:(id<MTLCommandBuffer>)cmdBuf
                   imageDescriptor:(MPSImageDescriptor*)descriptor
                            kernel:(MPSKernel*)kernel {
  (void)kernel;
  return [MPSTemporaryImage temporaryImageWithCommandBuffer:cmdBuf imageDescriptor:descriptor];
}

@end

@implementation MPSImage (Allocator)
+ (id<MPSImageAllocator>)defaultAllocator {
  return [SoftmetalImageAllocator shared];
}
@end

@implementation MPSTemporaryImage (Allocator)
+ (id<MPSImageAllocator>)defaultAllocator {
  return [SoftmetalTemporaryImageAllocator shared];
}
@end
