// Images that were made elsewhere: returned by a kernel, or handed over by another library.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "core/error.hpp"
#include "metal/channel_format.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

using ImageArray = NSArray<MPSImage*>*;

class HeldImages final : public ImageBatch {
 public:
  HeldImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, ImageArray images,
             bool writable, std::string unreadable)
      : ImageBatch(std::move(device), descriptor, writable),
        images_(objc_ptr<ImageArray>::retained(images)),
        unreadable_(std::move(unreadable)) {}
  ~HeldImages() override {
    const autorelease_pool pool;
    images_ = {};
  }

  std::string unreadable() const override { return unreadable_; }
  std::byte* data() const override { return nullptr; }
  std::byte* image_data(std::int64_t) const override { return nullptr; }
  void* native_handle(std::int64_t i) const override {
    return [images_.get() objectAtIndex:static_cast<NSUInteger>(i)];
  }
  void download(std::int64_t first, std::int64_t count, std::byte* to) const override {
    guarded("reading an MPSImage", [&] {
      for (std::int64_t i = 0; i < count; ++i) {
        [(MPSImage*)native_handle(first + i) readBytes:to + i * descriptor().image_bytes()
                                            dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
                                            imageIndex:0];
      }
    });
  }
  void upload(std::int64_t first, std::int64_t count, const std::byte* from) override {
    guarded("writing an MPSImage", [&] {
      for (std::int64_t i = 0; i < count; ++i) {
        [(MPSImage*)native_handle(first + i) writeBytes:from + i * descriptor().image_bytes()
                                             dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
                                             imageIndex:0];
      }
    });
  }

 private:
  objc_ptr<ImageArray> images_;
  const std::string unreadable_;
};

/// Temporary images first, as only they have private storage by definition and asking an image for
/// its texture allocates it.
std::string why_unreadable(MPSImage* image) {
  if ([image isKindOfClass:[MPSTemporaryImage class]]) {
    return "these images are temporary: only kernels of their command buffer can read them";
  }
  const id<MTLTexture> texture = [image texture];
  if (texture == nil) return "these images have no storage";
  return [texture storageMode] == MTLStorageModePrivate
             ? "these images are in private storage, which the host cannot see"
             : "";
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

std::shared_ptr<ImageBatch> hold_images(std::shared_ptr<Device> device,
                                        const BatchDescriptor& descriptor, void* images,
                                        bool writable, std::string unreadable) {
  return std::make_shared<HeldImages>(std::move(device), descriptor, (ImageArray)images, writable,
                                      std::move(unreadable));
}

std::shared_ptr<ImageBatch> adopt_images(std::shared_ptr<Device> device, ForeignKind kind,
                                         void* object) {
  std::shared_ptr<ImageBatch> batch;
  guarded("adopting images", [&] {
    const ImageArray images = not_nil(single_images(kind, (id)object), "batchRepresentation");
    MPSImage* const first = [images objectAtIndex:0];
    BatchDescriptor descriptor{shape_of(first), format_of(first)};
    for (MPSImage* image in images) {
      if (shape_of(image) == descriptor.shape && format_of(image) == descriptor.format) continue;
      throw ValueError(refusal("pointer", "be of images of one shape and format",
                               to_string(descriptor.shape) + " and " + to_string(shape_of(image))));
    }
    descriptor.shape.images = static_cast<std::int64_t>([images count]);
    batch = hold_images(std::move(device), descriptor, images, true, why_unreadable(first));
  });
  return batch;
}

}  // namespace mpsnn_loss::metal
