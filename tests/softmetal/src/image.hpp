// What is inside an MPSImage.
#pragma once
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <memory>
#include <mutex>

#include "heap.hpp"
#import "metal_objects.hpp"

struct SoftmetalImage {
  std::mutex mutex;
  id<MTLDevice> device = nil;
  NSUInteger width = 0, height = 0, channels = 0, images = 0;
  MPSImageFeatureChannelFormat format = MPSImageFeatureChannelFormatNone;
  MTLTextureUsage usage = MTLTextureUsageUnknown;
  MTLStorageMode storage = MTLStorageModeManaged;
  MTLCPUCacheMode cache_mode = MTLCPUCacheModeDefaultCache;
  SoftmetalTexture* texture = nil;  // allocated at first use
  bool made_from_texture = false;
  MPSImage* parent = nil;                 // the image that this one is a view of
  NSUInteger first_slice = 0;             // within the parent's texture
  std::shared_ptr<softmetal::Heap> heap;  // of a temporary
  NSUInteger read_count = 0;              // of a temporary

  ~SoftmetalImage() {
    [device release];
    [texture release];
    [parent release];
  }
  bool is_temporary() const { return heap != nullptr; }
  NSUInteger slices_per_image() const { return (channels + 3) / 4; }
};

@interface MPSImage (Inside)
/// `heap` makes it a temporary.
- (instancetype)softmetalInitWithDevice:(id<MTLDevice>)device
                             descriptor:(const MPSImageDescriptor*)descriptor
                                   heap:(const std::shared_ptr<softmetal::Heap>&)heap;
@end

@interface MPSImageDescriptor (Inside)
/// What the storage mode is on a device if nobody has set it.
- (MTLStorageMode)storageModeOn:(id<MTLDevice>)device;
@end

namespace softmetal {

Channel channel_of(MPSImageFeatureChannelFormat format);
MTLPixelFormat pixel_format_of(MPSImageFeatureChannelFormat format, NSUInteger channels,
                               NSUInteger images);

/// The texture of an image, allocated if need be; nil where that fails. `slice` becomes the first
/// slice of the image in it.
SoftmetalTexture* texture_of(MPSImage* image, NSUInteger* slice);
/// The texture where it exists already, else nil.
SoftmetalTexture* allocated_texture_of(MPSImage* image);
/// One image of the images that an MPSImage holds; no texels where allocation fails.
View view_of(MPSImage* image, NSUInteger index);

/// Judges that a temporary may be read or written on this buffer; true for images that are none.
bool may_use_temporary(MPSImage* image, const std::shared_ptr<Heap>& heap, const char* what);
/// One read of a temporary has been encoded. At zero its memory goes to others.
void lower_read_count(MPSImage* image);

}  // namespace softmetal
