#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <vector>

#include "core/error.hpp"
#include "metal/mps/channel_format.hpp"
#include "metal/mps/images.hpp"

namespace mpsnn_loss::metal {
namespace {

std::string no_room(const BatchDescriptor& descriptor, std::int64_t image) {
  return "the device has no memory for image " + std::to_string(image) + " of " +
         to_string(descriptor.shape) + " " + info(descriptor.format).name + ", " +
         std::to_string(descriptor.image_bytes()) + " bytes each";
}

}  // namespace

objc_ptr<ImageArray> new_images(id<MTLDevice> device, const BatchDescriptor& descriptor) {
  MPSImageDescriptor* const d = [MPSImageDescriptor
      imageDescriptorWithChannelFormat:channel_format(descriptor.format)
                                 width:static_cast<NSUInteger>(descriptor.shape.width)
                                height:static_cast<NSUInteger>(descriptor.shape.height)
                       featureChannels:static_cast<NSUInteger>(descriptor.shape.channels)];
  const std::int64_t count = descriptor.shape.images;
  NSMutableArray<MPSImage*>* const images =
      [NSMutableArray arrayWithCapacity:static_cast<NSUInteger>(count)];
  for (std::int64_t i = 0; i < count; ++i) {
    const auto image = objc_ptr<MPSImage*>::adopted(
        not_nil([[MPSImage alloc] initWithDevice:device imageDescriptor:d], "MPSImage"));
    // The storage is made now: MPS would abort where it cannot be.
    if ([image.get() texture] == nil) throw MemoryError(no_room(descriptor, i));
    [images addObject:image.get()];
  }
  return objc_ptr<ImageArray>::retained(images);
}

void fill_with_zeros(ImageArray images, const BatchDescriptor& descriptor) {
  const std::vector<std::byte> zeros(static_cast<std::size_t>(descriptor.image_bytes()));
  for (MPSImage* image in images) write_image(image, zeros.data());
}

void read_images(ImageArray images, std::int64_t first, std::int64_t count,
                 std::int64_t image_bytes, std::byte* to) {
  for (std::int64_t i = 0; i < count; ++i) read_image(nth(images, first + i), to + i * image_bytes);
}

void write_images(ImageArray images, std::int64_t first, std::int64_t count,
                  std::int64_t image_bytes, const std::byte* from) {
  for (std::int64_t i = 0; i < count; ++i)
    write_image(nth(images, first + i), from + i * image_bytes);
}

ImageArray repeated(MPSImage* image, std::int64_t count) {
  NSMutableArray<MPSImage*>* const images =
      [NSMutableArray arrayWithCapacity:static_cast<NSUInteger>(count)];
  for (std::int64_t i = 0; i < count; ++i) [images addObject:image];
  return images;
}

}  // namespace mpsnn_loss::metal
