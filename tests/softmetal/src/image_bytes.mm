// MPSImage, bytes in and out: packing and unpacking slices of four channels.
#include "image.hpp"

#include "judge.hpp"

namespace softmetal {
namespace {

/// One call of the readBytes and writeBytes family. Exactly the bytes of the region are touched, in
/// the storage type, so a buffer of the wrong element type is overrun where a guard page sees it.
struct Transfer {
  MPSDataLayout layout;
  NSUInteger bytes_per_column, bytes_per_row, bytes_per_image;  // 0: dense
  MTLRegion region;
  NSUInteger first_channel, channels;
  NSUInteger image;
};

bool may_touch(MPSImage* image, const Transfer& t, const char* what) {
  const SoftmetalImage& inside = *image->_softmetal;
  const MTLRegion& r = t.region;
  const bool channels_fit = t.channels > 0 && t.first_channel % 4 == 0 &&
                            (t.first_channel == 0 || t.channels % 4 == 0) &&
                            t.first_channel + t.channels <= inside.channels;
  if (inside.is_temporary()) {
    broken(rules::temporary_cpu_access, "%s", what);
  } else if (inside.storage == MTLStorageModePrivate) {
    broken(rules::private_cpu_access, "%s", what);
  } else if (r.size.width == 0 || r.size.height == 0 || r.size.depth == 0 ||
             r.origin.x + r.size.width > inside.width ||
             r.origin.y + r.size.height > inside.height ||
             t.image + r.origin.z + r.size.depth > inside.images || !channels_fit) {
    broken(rules::region_out_of_bounds, "%s of region %lu,%lu,%lu + %lu,%lu,%lu, image %lu", what,
           (unsigned long)r.origin.x, (unsigned long)r.origin.y, (unsigned long)r.origin.z,
           (unsigned long)r.size.width, (unsigned long)r.size.height, (unsigned long)r.size.depth,
           (unsigned long)t.image);
  } else {
    return true;
  }
  return false;
}

void make_dense(Transfer& t, NSUInteger size) {
  const bool chunky = t.layout == MPSDataLayoutHeightxWidthxFeatureChannels;
  if (t.bytes_per_column == 0) t.bytes_per_column = chunky ? t.channels * size : size;
  if (t.bytes_per_row == 0) t.bytes_per_row = t.bytes_per_column * t.region.size.width;
  if (t.bytes_per_image == 0) {
    t.bytes_per_image = t.bytes_per_row * t.region.size.height * (chunky ? 1 : t.channels);
  }
}

/// Calls `touch(x, y, channel, image, offset in the buffer)` for every value of the region.
template <class Function>
void for_each_value(const Transfer& t, NSUInteger size, Function&& touch) {
  const bool chunky = t.layout == MPSDataLayoutHeightxWidthxFeatureChannels;
  const NSUInteger channel_step = chunky ? size : t.bytes_per_row * t.region.size.height;
  for (NSUInteger d = 0; d < t.region.size.depth; ++d) {
    for (NSUInteger y = 0; y < t.region.size.height; ++y) {
      for (NSUInteger x = 0; x < t.region.size.width; ++x) {
        const NSUInteger pixel =
            d * t.bytes_per_image + y * t.bytes_per_row + x * t.bytes_per_column;
        for (NSUInteger c = 0; c < t.channels; ++c) {
          touch(t.region.origin.x + x, t.region.origin.y + y, t.first_channel + c,
                t.image + t.region.origin.z + d, pixel + c * channel_step);
        }
      }
    }
  }
}

/// What lies behind the last channel in its texel becomes 0, so that it is finite.
void clear_padding(MPSImage* image, const Transfer& t) {
  const SoftmetalImage& inside = *image->_softmetal;
  if (t.first_channel + t.channels != inside.channels) return;
  for (NSUInteger d = 0; d < t.region.size.depth; ++d) {
    const View view = view_of(image, t.image + t.region.origin.z + d);
    const NSUInteger size = size_of(view.texels->format.channel);
    const NSUInteger used = ((inside.channels - 1) % 4 + 1) * size;
    const NSUInteger padding =
        view.texels->texel_size() - std::min(used, view.texels->texel_size());
    const std::byte zeros[16] = {};
    for (NSUInteger y = 0; padding > 0 && y < t.region.size.height; ++y) {
      for (NSUInteger x = 0; x < t.region.size.width; ++x) {
        view.texels->write_from_cpu(t.region.origin.x + x, t.region.origin.y + y,
                                    view.first_slice + view.slices() - 1, used, zeros, padding);
      }
    }
  }
}

bool is_whole_texture(MPSImage* image, const Transfer& t) {
  const SoftmetalImage& inside = *image->_softmetal;
  return !inside.parent && t.region.size.width == inside.width &&
         t.region.size.height == inside.height && t.region.size.depth == inside.images &&
         t.channels == inside.channels;
}

void read(MPSImage* image, Transfer t, void* bytes) {
  if (!bytes) return broken(rules::nil_argument, "readBytes:");
  if (!may_touch(image, t, "readBytes:")) return;
  const View first = view_of(image, 0);
  if (!first.texels) return;
  const Texels& texels = *first.texels;
  if (!texels.written()) broken(rules::read_unwritten, "readBytes:");
  if (texels.writing > 0) broken(rules::access_in_flight, "readBytes:");
  if (texels.gpu_is_newer()) broken(rules::read_unsynchronised, "readBytes:");
  const NSUInteger size = size_of(texels.format.channel);
  const NSUInteger slices = image->_softmetal->slices_per_image();
  make_dense(t, size);
  for_each_value(
      t, size,
      [&](NSUInteger x, NSUInteger y, NSUInteger channel, NSUInteger index, NSUInteger offset) {
        const std::byte* texel =
            texels.cpu_texel(x, y, first.first_slice + index * slices + channel / 4);
        std::copy_n(texel + channel % 4 * size, size, static_cast<std::byte*>(bytes) + offset);
      });
}

void write(MPSImage* image, Transfer t, const void* bytes) {
  if (!bytes) return broken(rules::nil_argument, "writeBytes:");
  if (!may_touch(image, t, "writeBytes:")) return;
  const View first = view_of(image, 0);
  if (!first.texels) return;
  Texels& texels = *first.texels;
  if (texels.in_flight()) broken(rules::access_in_flight, "writeBytes:");
  const NSUInteger size = size_of(texels.format.channel);
  const NSUInteger slices = image->_softmetal->slices_per_image();
  make_dense(t, size);
  for_each_value(
      t, size,
      [&](NSUInteger x, NSUInteger y, NSUInteger channel, NSUInteger index, NSUInteger offset) {
        texels.write_from_cpu(x, y, first.first_slice + index * slices + channel / 4,
                              channel % 4 * size, static_cast<const std::byte*>(bytes) + offset,
                              size);
      });
  clear_padding(image, t);
  if (is_whole_texture(image, t)) texels.replaced_by_cpu();
}

Transfer whole(MPSImage* image, MPSDataLayout layout, NSUInteger index) {
  const MTLRegion region = MTLRegionMake2D(0, 0, image.width, image.height);
  return {layout, 0, 0, 0, region, 0, image.featureChannels, index};
}

}  // namespace
}  // namespace softmetal

@implementation MPSImage (Bytes)

- (void)readBytes:(void*)dataBytes
       dataLayout:(MPSDataLayout)dataLayout
       imageIndex:(NSUInteger)imageIndex {
  softmetal::read(self, softmetal::whole(self, dataLayout, imageIndex), dataBytes);
}

- (void)writeBytes:(const void*)dataBytes
        dataLayout:(MPSDataLayout)dataLayout
        imageIndex:(NSUInteger)imageIndex {
  softmetal::write(self, softmetal::whole(self, dataLayout, imageIndex), dataBytes);
}

- (void)readBytes:(void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)info
            imageIndex:(NSUInteger)imageIndex {
  softmetal::read(self,
                  {dataLayout, 0, bytesPerRow, 0, region, info.featureChannelOffset,
                   info.numberOfFeatureChannelsToReadWrite, imageIndex},
                  dataBytes);
}

- (void)writeBytes:(const void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)info
            imageIndex:(NSUInteger)imageIndex {
  softmetal::write(self,
                   {dataLayout, 0, bytesPerRow, 0, region, info.featureChannelOffset,
                    info.numberOfFeatureChannelsToReadWrite, imageIndex},
                   dataBytes);
}

- (void)readBytes:(void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
         bytesPerImage:(NSUInteger)bytesPerImage
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)info
            imageIndex:(NSUInteger)imageIndex {
  softmetal::read(self,
                  {dataLayout, 0, bytesPerRow, bytesPerImage, region, info.featureChannelOffset,
                   info.numberOfFeatureChannelsToReadWrite, imageIndex},
                  dataBytes);
}

- (void)writeBytes:(const void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
         bytesPerImage:(NSUInteger)bytesPerImage
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)info
            imageIndex:(NSUInteger)imageIndex {
  softmetal::write(self,
                   {dataLayout, 0, bytesPerRow, bytesPerImage, region, info.featureChannelOffset,
                    info.numberOfFeatureChannelsToReadWrite, imageIndex},
                   dataBytes);
}

- (void)writeBytes:(const void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
        bytesPerColumn:(NSUInteger)bytesPerColumn
           bytesPerRow:(NSUInteger)bytesPerRow
         bytesPerImage:(NSUInteger)bytesPerImage
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)info
            imageIndex:(NSUInteger)imageIndex {
  softmetal::write(self,
                   {dataLayout, bytesPerColumn, bytesPerRow, bytesPerImage, region,
                    info.featureChannelOffset, info.numberOfFeatureChannelsToReadWrite, imageIndex},
                   dataBytes);
}

@end
