// MPSCommandBuffer: a command buffer around another one, which commitAndContinue replaces.
#pragma once
#include <Metal/Metal.h>

NS_ASSUME_NONNULL_BEGIN
SOFTMETAL_EXPORT
@interface MPSCommandBuffer : SoftmetalObject <MTLCommandBuffer> {
 @private
  id<MTLCommandBuffer> _commandBuffer;
}
@property(readonly, retain, nonatomic) id<MTLCommandBuffer> commandBuffer;
@property(readonly, retain, nonatomic) id<MTLCommandBuffer> rootCommandBuffer;
+ (instancetype)commandBufferWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer;
+ (instancetype)commandBufferFromCommandQueue:(id<MTLCommandQueue>)commandQueue;
- (instancetype)initWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer;
- (instancetype)init SOFTMETAL_UNAVAILABLE;
- (void)commitAndContinue;
- (void)prefetchHeapForWorkloadSize:(size_t)size;
@end
NS_ASSUME_NONNULL_END
