#include <cstring>

#include "counters.hpp"
#include "faults.hpp"
#include "judge.hpp"
#import "metal_objects.hpp"

namespace softmetal {
namespace {

struct Pairing {
  MTLPixelFormat pixel;
  TexelFormat texel;
};

constexpr Pairing pairings[] = {
    {MTLPixelFormatR8Unorm, {Channel::unorm8, 1}},
    {MTLPixelFormatRG8Unorm, {Channel::unorm8, 2}},
    {MTLPixelFormatRGBA8Unorm, {Channel::unorm8, 4}},
    {MTLPixelFormatR16Unorm, {Channel::unorm16, 1}},
    {MTLPixelFormatRG16Unorm, {Channel::unorm16, 2}},
    {MTLPixelFormatRGBA16Unorm, {Channel::unorm16, 4}},
    {MTLPixelFormatR16Float, {Channel::float16, 1}},
    {MTLPixelFormatRG16Float, {Channel::float16, 2}},
    {MTLPixelFormatRGBA16Float, {Channel::float16, 4}},
    {MTLPixelFormatR32Float, {Channel::float32, 1}},
    {MTLPixelFormatRG32Float, {Channel::float32, 2}},
    {MTLPixelFormatRGBA32Float, {Channel::float32, 4}},
};

Storage storage_of(MTLStorageMode mode) {
  if (mode == MTLStorageModeManaged) return Storage::managed;
  return mode == MTLStorageModeShared ? Storage::shared : Storage::privately;
}

bool may_be_made(MTLTextureDescriptor* d) {
  const bool array = d.textureType == MTLTextureType2DArray;
  if (texel_format(d.pixelFormat).channels == 0) {
    broken(rules::image_format, "pixel format %lu", (unsigned long)d.pixelFormat);
  } else if (d.width == 0 || d.height == 0 || d.arrayLength == 0) {
    broken(rules::empty_image, "a texture of %lu x %lu x %lu", (unsigned long)d.width,
           (unsigned long)d.height, (unsigned long)d.arrayLength);
  } else if (d.width > 16384 || d.height > 16384) {
    broken(rules::extent_over_limit, "%lu x %lu pixels", (unsigned long)d.width,
           (unsigned long)d.height);
  } else if (d.arrayLength > 2048) {
    broken(rules::slices_over_limit, "%lu slices", (unsigned long)d.arrayLength);
  } else if ((!array && d.textureType != MTLTextureType2D) || (!array && d.arrayLength != 1) ||
             d.depth != 1 || d.mipmapLevelCount != 1 || d.sampleCount != 1) {
    broken(rules::texture_shape, "texture type %lu with %lu slices", (unsigned long)d.textureType,
           (unsigned long)d.arrayLength);
  } else {
    return true;
  }
  return false;
}

/// Judges a rectangle that the CPU wants to touch.
bool may_touch(SoftmetalTexture* texture, MTLRegion region, NSUInteger level, NSUInteger slice) {
  const Texels& texels = *[texture texels];
  if (texels.storage == Storage::privately) {
    broken(rules::private_cpu_access, "getBytes or replaceRegion");
    return false;
  }
  const bool inside = level == 0 && slice < texels.slices && region.origin.z == 0 &&
                      region.size.depth == 1 &&
                      region.origin.x + region.size.width <= texels.width &&
                      region.origin.y + region.size.height <= texels.height;
  if (!inside) broken(rules::region_out_of_bounds, "a region of a texture");
  return inside;
}

}  // namespace

TexelFormat texel_format(MTLPixelFormat format) {
  for (const Pairing& pairing : pairings) {
    if (pairing.pixel == format) return pairing.texel;
  }
  return {Channel::float32, 0};
}

MTLPixelFormat pixel_format(TexelFormat format) {
  for (const Pairing& pairing : pairings) {
    if (pairing.texel == format) return pairing.pixel;
  }
  return MTLPixelFormatInvalid;
}

}  // namespace softmetal

using namespace softmetal;

@implementation SoftmetalTexture
@synthesize label = _label;

- (instancetype)initWithDevice:(id<MTLDevice>)device descriptor:(MTLTextureDescriptor*)descriptor {
  Unfinished guard(self);
  if (!may_be_made(descriptor) || strikes(Fault::texture_is_nil)) return nil;
  guard.finished();
  if (!(self = [super init])) return nil;
  _device = [device retain];
  _descriptor = [descriptor copy];
  _texels = new std::shared_ptr<Texels>(std::make_shared<Texels>(
      texel_format(descriptor.pixelFormat), descriptor.width, descriptor.height,
      descriptor.arrayLength, storage_of(descriptor.storageMode)));
  return self;
}

- (void)dealloc {
  if (_texels) (*_texels)->alive = false;
  delete _texels;
  [_descriptor release];
  [_device release];
  [_label release];
  [super dealloc];
}

- (const std::shared_ptr<Texels>&)texels {
  return *_texels;
}

- (id<MTLDevice>)device {
  return _device;
}

- (MTLTextureType)textureType {
  return _descriptor.textureType;
}

- (MTLPixelFormat)pixelFormat {
  return _descriptor.pixelFormat;
}

- (NSUInteger)width {
  return _descriptor.width;
}

- (NSUInteger)height {
  return _descriptor.height;
}

- (NSUInteger)depth {
  return 1;
}

- (NSUInteger)mipmapLevelCount {
  return 1;
}

- (NSUInteger)sampleCount {
  return 1;
}

- (NSUInteger)arrayLength {
  return _descriptor.arrayLength;
}

- (MTLTextureUsage)usage {
  return _descriptor.usage;
}

- (MTLCPUCacheMode)cpuCacheMode {
  return _descriptor.cpuCacheMode;
}

- (MTLStorageMode)storageMode {
  return _descriptor.storageMode;
}

- (NSUInteger)allocatedSize {
  return (*_texels)->slice_size() * (*_texels)->slices;
}

- (MTLPurgeableState)setPurgeableState:(MTLPurgeableState)state {
  (void)state;
  return MTLPurgeableStateNonVolatile;
}

- (void)getBytes:(void*)pixelBytes
      bytesPerRow:(NSUInteger)bytesPerRow
    bytesPerImage:(NSUInteger)bytesPerImage
       fromRegion:(MTLRegion)region
      mipmapLevel:(NSUInteger)level
            slice:(NSUInteger)slice {
  (void)bytesPerImage;
  if (!may_touch(self, region, level, slice)) return;
  const Texels& texels = **_texels;
  if (texels.writing > 0) broken(rules::access_in_flight, "getBytes");
  if (texels.gpu_is_newer()) broken(rules::read_unsynchronised, "getBytes");
  for (NSUInteger row = 0; row < region.size.height; ++row) {
    std::memcpy(static_cast<std::byte*>(pixelBytes) + row * bytesPerRow,
                texels.cpu_texel(region.origin.x, region.origin.y + row, slice),
                region.size.width * texels.texel_size());
  }
}

- (void)getBytes:(void*)pixelBytes
     bytesPerRow:(NSUInteger)bytesPerRow
      fromRegion:(MTLRegion)region
     mipmapLevel:(NSUInteger)level {
  [self getBytes:pixelBytes
        bytesPerRow:bytesPerRow
      bytesPerImage:0
         fromRegion:region
        mipmapLevel:level
              slice:0];
}

- (void)replaceRegion:(MTLRegion)region
          mipmapLevel:(NSUInteger)level
                slice:(NSUInteger)slice
            withBytes:(const void*)pixelBytes
          bytesPerRow:(NSUInteger)bytesPerRow
        bytesPerImage:(NSUInteger)bytesPerImage {
  (void)bytesPerImage;
  if (!may_touch(self, region, level, slice)) return;
  Texels& texels = **_texels;
  if (texels.in_flight()) broken(rules::access_in_flight, "replaceRegion");
  for (NSUInteger row = 0; row < region.size.height; ++row) {
    texels.write_from_cpu(region.origin.x, region.origin.y + row, slice, 0,
                          static_cast<const std::byte*>(pixelBytes) + row * bytesPerRow,
                          region.size.width * texels.texel_size());
  }
}

- (void)replaceRegion:(MTLRegion)region
          mipmapLevel:(NSUInteger)level
            withBytes:(const void*)pixelBytes
          bytesPerRow:(NSUInteger)bytesPerRow {
  [self replaceRegion:region
          mipmapLevel:level
                slice:0
            withBytes:pixelBytes
          bytesPerRow:bytesPerRow
        bytesPerImage:0];
}

@end
