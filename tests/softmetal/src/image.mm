// MPSImage: making images and views, lazy storage, synchronising.
#include "image.hpp"

#include "command_buffer.hpp"
#include "counters.hpp"
#include "faults.hpp"
#include "judge.hpp"

namespace softmetal {
namespace {

bool may_be_made(const MPSImageDescriptor* constant) {
  auto* d = const_cast<MPSImageDescriptor*>(constant);
  const NSUInteger slices = (d.featureChannels + 3) / 4 * d.numberOfImages;
  const bool known = d.channelFormat > MPSImageFeatureChannelFormatNone &&
                     d.channelFormat <= MPSImageFeatureChannelFormatFloat32;
  if (!known) {
    broken(rules::image_format, "channel format %lu", (unsigned long)d.channelFormat);
  } else if (d.width == 0 || d.height == 0 || slices == 0) {
    broken(rules::empty_image, "an image of %lu x %lu x %lu", (unsigned long)d.width,
           (unsigned long)d.height, (unsigned long)d.featureChannels);
  } else if (d.width > 16384 || d.height > 16384) {
    broken(rules::extent_over_limit, "%lu x %lu pixels", (unsigned long)d.width,
           (unsigned long)d.height);
  } else if (slices > 2048) {
    broken(rules::slices_over_limit, "%lu channels in %lu images need %lu slices",
           (unsigned long)d.featureChannels, (unsigned long)d.numberOfImages,
           (unsigned long)slices);
  } else {
    return true;
  }
  return false;
}

MTLTextureDescriptor* texture_descriptor(const SoftmetalImage& image) {
  MTLTextureDescriptor* d = [[[MTLTextureDescriptor alloc] init] autorelease];
  const NSUInteger slices = image.slices_per_image() * image.images;
  d.textureType = slices == 1 ? MTLTextureType2D : MTLTextureType2DArray;
  d.pixelFormat = pixel_format_of(image.format, image.channels, image.images);
  d.width = image.width;
  d.height = image.height;
  d.arrayLength = slices;
  d.storageMode = image.storage;
  d.cpuCacheMode = image.cache_mode;
  d.usage = image.usage;
  return d;
}

MPSImageFeatureChannelFormat format_of(Channel channel) {
  switch (channel) {
    case Channel::unorm8: return MPSImageFeatureChannelFormatUnorm8;
    case Channel::unorm16: return MPSImageFeatureChannelFormatUnorm16;
    case Channel::float16: return MPSImageFeatureChannelFormatFloat16;
    case Channel::float32: return MPSImageFeatureChannelFormatFloat32;
  }
  return MPSImageFeatureChannelFormatNone;
}

}  // namespace

SoftmetalTexture* texture_of(MPSImage* image, NSUInteger* slice) {
  SoftmetalImage& inside = *image->_softmetal;
  if (inside.parent) {
    SoftmetalTexture* texture = texture_of(inside.parent, slice);
    *slice += inside.first_slice;
    return texture;
  }
  *slice = 0;
  std::lock_guard lock(inside.mutex);
  if (!inside.texture) {
    inside.texture = [[SoftmetalTexture alloc] initWithDevice:inside.device
                                                   descriptor:texture_descriptor(inside)];
    if (inside.heap && inside.texture) inside.heap->keep_until_completed(inside.texture);
  }
  return inside.texture;
}

SoftmetalTexture* allocated_texture_of(MPSImage* image) {
  SoftmetalImage& inside = *image->_softmetal;
  if (inside.parent) return allocated_texture_of(inside.parent);
  std::lock_guard lock(inside.mutex);
  return inside.texture;
}

View view_of(MPSImage* image, NSUInteger index) {
  NSUInteger slice = 0;
  SoftmetalTexture* texture = texture_of(image, &slice);
  if (!texture) return {};
  const SoftmetalImage& inside = *image->_softmetal;
  return {[texture texels], slice + index * inside.slices_per_image(), inside.channels};
}

}  // namespace softmetal

using namespace softmetal;

@implementation MPSImage
@synthesize label = _label;

- (instancetype)softmetalBegin {
  if (!(self = [super init])) return nil;
  ++counters().images_made;
  _softmetal = new SoftmetalImage;
  return self;
}

- (instancetype)softmetalInitWithDevice:(id<MTLDevice>)device
                             descriptor:(const MPSImageDescriptor*)constant
                                   heap:(const std::shared_ptr<Heap>&)heap {
  Unfinished guard(self);
  auto* descriptor = const_cast<MPSImageDescriptor*>(constant);
  if (!device || !descriptor) {
    broken(rules::nil_argument, "image: device or descriptor");
  } else if (may_be_made(descriptor) && !strikes(Fault::image_is_nil)) {
    guard.finished();
    self = [self softmetalBegin];
    _softmetal->device = [device retain];
    _softmetal->width = descriptor.width;
    _softmetal->height = descriptor.height;
    _softmetal->channels = descriptor.featureChannels;
    _softmetal->images = descriptor.numberOfImages;
    _softmetal->format = descriptor.channelFormat;
    _softmetal->usage = descriptor.usage;
    _softmetal->cache_mode = descriptor.cpuCacheMode;
    _softmetal->storage = heap ? MTLStorageModePrivate : [descriptor storageModeOn:device];
    _softmetal->heap = heap;
    _softmetal->read_count = heap ? 1 : 0;
    return self;
  }
  return nil;
}

- (instancetype)initWithDevice:(id<MTLDevice>)device
               imageDescriptor:(const MPSImageDescriptor*)imageDescriptor {
  return [self softmetalInitWithDevice:device descriptor:imageDescriptor heap:nullptr];
}

- (instancetype)initWithTexture:(id<MTLTexture>)texture featureChannels:(NSUInteger)channels {
  Unfinished guard(self);
  const NSUInteger slices = (channels + 3) / 4;
  if (!texture) {
    broken(rules::nil_argument, "initWithTexture:");
  } else if (channels == 0 || texture.arrayLength % slices != 0 ||
             channels > slices * texel_format(texture.pixelFormat).channels) {
    broken(rules::texture_shape, "%lu channels in %lu slices", (unsigned long)channels,
           (unsigned long)texture.arrayLength);
  } else {
    guard.finished();
    self = [self softmetalBegin];
    _softmetal->device = [texture.device retain];
    _softmetal->width = texture.width;
    _softmetal->height = texture.height;
    _softmetal->channels = channels;
    _softmetal->images = texture.arrayLength / slices;
    _softmetal->format = format_of(texel_format(texture.pixelFormat).channel);
    _softmetal->usage = texture.usage;
    _softmetal->storage = texture.storageMode;
    _softmetal->texture = [(SoftmetalTexture*)texture retain];
    _softmetal->made_from_texture = true;
    return self;
  }
  return nil;
}

- (instancetype)initWithParentImage:(MPSImage*)parent
                         sliceRange:(NSRange)range
                    featureChannels:(NSUInteger)channels {
  Unfinished guard(self);
  const SoftmetalImage* whole = parent ? parent->_softmetal : nullptr;
  if (!whole) {
    broken(rules::nil_argument, "initWithParentImage:");
  } else if (whole->is_temporary()) {
    [NSException raise:NSInvalidArgumentException
                format:@"softmetal does not model views of temporary images"];
  } else if (channels == 0 || range.length == 0 || range.length % ((channels + 3) / 4) != 0 ||
             NSMaxRange(range) > whole->slices_per_image() * whole->images) {
    broken(rules::texture_shape, "a view of %lu slices with %lu channels",
           (unsigned long)range.length, (unsigned long)channels);
  } else {
    guard.finished();
    self = [self softmetalBegin];
    _softmetal->device = [whole->device retain];
    _softmetal->width = whole->width;
    _softmetal->height = whole->height;
    _softmetal->channels = channels;
    _softmetal->images = range.length / ((channels + 3) / 4);
    _softmetal->format = whole->format;
    _softmetal->usage = whole->usage;
    _softmetal->storage = whole->storage;
    _softmetal->parent = [parent retain];
    _softmetal->first_slice = range.location;
    return self;
  }
  return nil;
}

- (void)dealloc {
  delete _softmetal;
  [_label release];
  [super dealloc];
}

- (id<MTLDevice>)device {
  return _softmetal->device;
}

- (NSUInteger)width {
  return _softmetal->width;
}

- (NSUInteger)height {
  return _softmetal->height;
}

- (NSUInteger)featureChannels {
  return _softmetal->channels;
}

- (NSUInteger)numberOfImages {
  return _softmetal->images;
}

- (MTLTextureType)textureType {
  const bool one = _softmetal->slices_per_image() * _softmetal->images == 1;
  return one ? MTLTextureType2D : MTLTextureType2DArray;
}

- (MTLPixelFormat)pixelFormat {
  if (_softmetal->texture) return _softmetal->texture.pixelFormat;
  return pixel_format_of(_softmetal->format, _softmetal->channels, _softmetal->images);
}

- (NSUInteger)precision {
  switch (_softmetal->format) {
    case MPSImageFeatureChannelFormatUnorm8: return 8;
    case MPSImageFeatureChannelFormatUnorm16: return 16;
    case MPSImageFeatureChannelFormatFloat16: return 11;
    default: return 24;
  }
}

- (MTLTextureUsage)usage {
  return _softmetal->usage;
}

- (MPSImageFeatureChannelFormat)featureChannelFormat {
  return _softmetal->format;
}

- (size_t)pixelSize {
  const TexelFormat format = texel_format(self.pixelFormat);
  return size_of(format.channel) * format.channels;
}

- (id<MTLTexture>)texture {
  NSUInteger slice = 0;
  return texture_of(self, &slice);
}

- (MPSImage*)parent {
  return _softmetal->parent;
}

- (MPSImageBatch*)batchRepresentationWithSubRange:(NSRange)subRange {
  NSMutableArray* batch = [NSMutableArray array];
  const NSUInteger slices = _softmetal->slices_per_image();
  for (NSUInteger i = subRange.location; i < NSMaxRange(subRange); ++i) {
    MPSImage* view = [[MPSImage alloc] initWithParentImage:self
                                                sliceRange:NSMakeRange(i * slices, slices)
                                           featureChannels:_softmetal->channels];
    [batch addObject:view];
    [view release];
  }
  return batch;
}

- (MPSImageBatch*)batchRepresentation {
  return [self batchRepresentationWithSubRange:NSMakeRange(0, _softmetal->images)];
}

- (MPSImage*)subImageWithFeatureChannelRange:(NSRange)range {
  const NSUInteger left = _softmetal->channels - std::min(range.location, _softmetal->channels);
  const NSUInteger channels = std::min(range.length, left);
  if (range.location % 4 != 0 || range.length % 4 != 0 || channels == 0) {
    broken(rules::region_out_of_bounds, "a sub-image of channels %lu to %lu",
           (unsigned long)range.location, (unsigned long)NSMaxRange(range));
    return nil;
  }
  return [[[MPSImage alloc] initWithParentImage:self
                                     sliceRange:NSMakeRange(range.location / 4, (channels + 3) / 4)
                                featureChannels:channels] autorelease];
}

- (NSUInteger)resourceSize {
  if (_softmetal->made_from_texture || _softmetal->parent) return 0;
  const NSUInteger slices = _softmetal->slices_per_image() * _softmetal->images;
  return self.pixelSize * _softmetal->width * _softmetal->height * slices;
}

- (MPSPurgeableState)setPurgeableState:(MPSPurgeableState)state {
  (void)state;
  return allocated_texture_of(self) ? MPSPurgeableStateNonVolatile
                                    : MPSPurgeableStateAllocationDeferred;
}

// Nothing is done for private and shared storage, nor, as the header warns, for a texture that
// does not exist yet.
- (void)synchronizeOnCommandBuffer:(id<MTLCommandBuffer>)commandBuffer {
  BufferWriter writer(commandBuffer, "synchronizeOnCommandBuffer:");
  if (!writer || !same_device(_softmetal->device, writer.device(), "an image to synchronise")) {
    return;
  }
  SoftmetalTexture* texture = allocated_texture_of(self);
  if (!texture || texture.storageMode != MTLStorageModeManaged) return;
  const auto texels = [texture texels];
  writer.append({{{texels, Touch::synchronises}}, [texels] { texels->synchronise(); }}, {texture});
}

@end
