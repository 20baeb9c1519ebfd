// The classes behind Metal's protocols, and the C++ that they are made of.
#pragma once
#import <Metal/Metal.h>

#include <memory>

#include "object.hpp"
#include "texels.hpp"

namespace softmetal {
struct BufferState;
struct QueueState;

TexelFormat texel_format(MTLPixelFormat format);  // channels 0 where the double has no such format
MTLPixelFormat pixel_format(TexelFormat format);
}  // namespace softmetal

@interface SoftmetalDevice : SoftmetalObject <MTLDevice> {
 @package
  unsigned _index;
  BOOL _managed;
}
@end

@interface SoftmetalTexture : SoftmetalObject <MTLTexture> {
 @package
  std::shared_ptr<softmetal::Texels>* _texels;
  MTLTextureDescriptor* _descriptor;
  id<MTLDevice> _device;
  NSString* _label;
}
/// Nil under the fault texture_is_nil. The descriptor has been judged.
- (instancetype)initWithDevice:(id<MTLDevice>)device descriptor:(MTLTextureDescriptor*)descriptor;
- (const std::shared_ptr<softmetal::Texels>&)texels;
@end

@interface SoftmetalQueue : SoftmetalObject <MTLCommandQueue> {
 @package
  std::shared_ptr<softmetal::QueueState>* _state;
  id<MTLDevice> _device;
  NSString* _label;
}
- (instancetype)initWithDevice:(id<MTLDevice>)device limit:(NSUInteger)limit;
@end

@interface SoftmetalCommandBuffer : SoftmetalObject <MTLCommandBuffer> {
 @package
  softmetal::BufferState* _state;
  SoftmetalQueue* _queue;
  NSString* _label;
}
/// Takes over one slot of the queue, and gives it back when it has finished or is dropped.
- (instancetype)initWithQueue:(SoftmetalQueue*)queue
           retainedReferences:(BOOL)retained
                 errorOptions:(MTLCommandBufferErrorOption)options;
@end

@interface SoftmetalBlitEncoder : SoftmetalObject <MTLBlitCommandEncoder> {
  SoftmetalCommandBuffer* _buffer;
  NSString* _label;
  BOOL _ended;
}
- (instancetype)initWithBuffer:(SoftmetalCommandBuffer*)buffer;
@end

namespace softmetal {

/// Judges that `object`, which belongs to `device`, may meet something of `other`.
bool same_device(id<MTLDevice> device, id<MTLDevice> other, const char* what);

/// The device of this index, new or the one that lives; +1 retained.
SoftmetalDevice* device_at(unsigned index);

}  // namespace softmetal
