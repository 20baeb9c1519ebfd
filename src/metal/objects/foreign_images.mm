// Images that were made elsewhere: returned by a kernel, or handed over by another library.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "core/error.hpp"
#include "metal/mps/channel_format.hpp"
#include "metal/mps/objc_guard.hpp"
#include "metal/objects/foreign_objects.hpp"
#include "metal/objects/images.hpp"

namespace mpsnn_loss::metal {
namespace {

/// Temporary images first, as only they have private storage by definition and asking an image for
/// its texture allocates it.
Access access_to(MPSImage* image) {
  if ([image isKindOfClass:[MPSTemporaryImage class]]) return Access::temporary;
  const id<MTLTexture> texture = [image texture];
  if (texture == nil) return Access::no_storage;
  return [texture storageMode] == MTLStorageModePrivate ? Access::private_storage : Access::host;
}

Format format_of(MPSImage* image) {
  for (const FormatInfo& row : kFormats) {
    if (has_channel_format(row.format) &&
        channel_format(row.format) == [image featureChannelFormat])
      return row.format;
  }
  throw TypeError(refusal("pointer", "be of images of float16 or float32",
                          "channel format " + std::to_string([image featureChannelFormat])));
}

Shape shape_of(MPSImage* image) {
  return {1, static_cast<std::int64_t>([image height]), static_cast<std::int64_t>([image width]),
          static_cast<std::int64_t>([image featureChannels])};
}

/// Images of one shape and format, each a single image.
ImageArray single_images(ForeignKind kind, id object) {
  if (kind == ForeignKind::image) {
    auto* const image = (MPSImage*)object;
    if ([image numberOfImages] == 1) return [NSArray arrayWithObject:image];
    throw ValueError(refusal("pointer",
                             "be an MPSImage of one image (MPSImageBatch.from_objc_pointer takes "
                             "those of more)",
                             std::to_string([image numberOfImages]) + " images"));
  }
  if ([object isKindOfClass:[MPSImage class]]) return [(MPSImage*)object batchRepresentation];
  for (MPSImage* image in (ImageArray)object) {
    if ([image numberOfImages] != 1) {
      throw ValueError(refusal("pointer", "be an array of MPSImage of one image each",
                               std::to_string([image numberOfImages]) + " images"));
    }
  }
  return (ImageArray)object;
}

}  // namespace

std::shared_ptr<ImageBatch> adopt_images(std::shared_ptr<Device> device, ForeignKind kind,
                                         id object) {
  std::shared_ptr<ImageBatch> batch;
  guarded("adopting images", [&] {
    // A copy, as an array of others may change.
    auto images = objc_ptr<ImageArray>::adopted(
        [not_nil(single_images(kind, object), "batchRepresentation") copy]);
    MPSImage* const first = [images.get() objectAtIndex:0];
    BatchDescriptor descriptor{shape_of(first), format_of(first)};
    const Access access = access_to(first);
    for (MPSImage* image in images.get()) {
      if (shape_of(image) != descriptor.shape || format_of(image) != descriptor.format) {
        throw ValueError(
            refusal("pointer", "be of images of one shape and format",
                    to_string(descriptor.shape) + " and " + to_string(shape_of(image))));
      }
      if (access_to(image) != access) {
        throw ValueError(
            refusal("pointer", "be of images with one kind of storage", "images of two"));
      }
    }
    descriptor.shape.images = static_cast<std::int64_t>([images.get() count]);
    batch = std::make_shared<MetalImages>(std::move(device), descriptor, std::move(images), true,
                                          access);
  });
  return batch;
}

}  // namespace mpsnn_loss::metal
