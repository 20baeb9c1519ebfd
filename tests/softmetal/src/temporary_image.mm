// MPSTemporaryImage: one command buffer, no CPU, and a count of the reads to come.
#include "command_buffer.hpp"
#include "image.hpp"
#include "judge.hpp"

namespace softmetal {
namespace {

/// The memory belongs to others from here on in the stream of commands.
void give_back_memory(SoftmetalImage& image) {
  SoftmetalTexture* texture = image.texture;
  if (!texture) return;
  const auto texels = [texture texels];
  image.heap->with_buffer([&](BufferState& buffer) {
    std::lock_guard lock(buffer.mutex);
    buffer.commands.push_back({{{texels, Touch::reads}}, [texels] { texels->poison_gpu(); }});
  });
}

}  // namespace

bool may_use_temporary(MPSImage* image, const std::shared_ptr<Heap>& heap, const char* what) {
  SoftmetalImage& inside = *image->_softmetal;
  if (!inside.is_temporary()) return true;
  std::unique_lock lock(inside.mutex);
  const NSUInteger count = inside.read_count;
  lock.unlock();
  if (inside.heap != heap) {
    broken(rules::temporary_on_other_buffer, "%s", what);
  } else if (count == 0) {
    broken(rules::read_count_zero, "%s is read or written at read count 0", what);
  } else {
    return true;
  }
  return false;
}

void lower_read_count(MPSImage* image) {
  SoftmetalImage& inside = *image->_softmetal;
  if (!inside.is_temporary()) return;
  {
    std::lock_guard lock(inside.mutex);
    if (inside.read_count == 0 || --inside.read_count > 0) return;
  }
  give_back_memory(inside);
}

}  // namespace softmetal

using namespace softmetal;

@implementation MPSTemporaryImage

+ (instancetype)temporaryImageWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                imageDescriptor:(const MPSImageDescriptor*)imageDescriptor {
  BufferWriter writer(commandBuffer, "temporaryImageWithCommandBuffer:");
  if (!writer) return nil;
  const auto heap = writer.state().heap;
  MPSTemporaryImage* image = [[self alloc] softmetalInitWithDevice:writer.device()
                                                        descriptor:imageDescriptor
                                                              heap:heap];
  if (image) heap->keep_until_commit(image);
  return [image autorelease];
}

+ (void)prefetchStorageWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                     imageDescriptorList:(NSArray<MPSImageDescriptor*>*)descriptorList {
  (void)commandBuffer, (void)descriptorList;
}

- (void)dealloc {
  if (_softmetal && _softmetal->read_count > 0) {
    broken(rules::read_count_left_over, "a temporary image goes with read count %lu",
           (unsigned long)_softmetal->read_count);
  }
  [super dealloc];
}

- (NSUInteger)readCount {
  std::lock_guard lock(_softmetal->mutex);
  return _softmetal->read_count;
}

- (void)setReadCount:(NSUInteger)count {
  {
    std::unique_lock lock(_softmetal->mutex);
    if (_softmetal->read_count == 0) {
      lock.unlock();
      return broken(rules::read_count_changed_at_zero, "a temporary image, to %lu",
                    (unsigned long)count);
    }
    _softmetal->read_count = count;
  }
  if (count == 0) give_back_memory(*_softmetal);
}

@end
