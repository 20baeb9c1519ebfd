// MPSImage batches: made, filled and read in their own storage type.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <cstring>
#include <utility>

#include "core/error.hpp"
#include "metal/channel_format.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

std::string no_room(const BatchDescriptor& descriptor, std::int64_t image) {
  return "the device has no memory for image " + std::to_string(image) + " of " +
         to_string(descriptor.shape) + " " + info(descriptor.format).name + ", " +
         std::to_string(descriptor.image_bytes()) + " bytes each";
}

class MetalImages final : public ImageBatch {
 public:
  MetalImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, bool writable)
      : ImageBatch(std::move(device), descriptor, writable) {
    MPSImageDescriptor* const d = [MPSImageDescriptor
        imageDescriptorWithChannelFormat:channel_format(descriptor.format)
                                   width:static_cast<NSUInteger>(descriptor.shape.width)
                                  height:static_cast<NSUInteger>(descriptor.shape.height)
                         featureChannels:static_cast<NSUInteger>(descriptor.shape.channels)];
    images_.reserve(static_cast<std::size_t>(descriptor.shape.images));
    for (std::int64_t i = 0; i < descriptor.shape.images; ++i) {
      MPSImage* const image =
          [[MPSImage alloc] initWithDevice:(id<MTLDevice>)this->device()->native_handle()
                           imageDescriptor:d];
      images_.push_back(objc_ptr<MPSImage*>::adopted(not_nil(image, "MPSImage")));
      // The storage is made now: MPS would abort where it cannot be.
      if ([image texture] == nil) throw MemoryError(no_room(descriptor, i));
    }
  }

  ~MetalImages() override {
    const autorelease_pool pool;
    images_.clear();
  }

  /// The host memory that the results of these images go to, once they are there.
  void set_destination(std::byte* data, std::shared_ptr<void> owner) {
    destination_ = data;
    owner_ = std::move(owner);
  }

  const std::byte* destination(std::int64_t i) const {
    return destination_ == nullptr ? nullptr : destination_ + i * descriptor().image_bytes();
  }

  std::byte* data() const override { return nullptr; }
  std::byte* image_data(std::int64_t) const override { return nullptr; }
  std::pair<std::uintptr_t, std::uintptr_t> extent(std::int64_t i) const override {
    if (destination_ == nullptr) return ImageBatch::extent(i);
    const auto begin =
        reinterpret_cast<std::uintptr_t>(destination_ + i * descriptor().image_bytes());
    return {begin, begin + static_cast<std::uintptr_t>(descriptor().image_bytes())};
  }
  void* native_handle(std::int64_t i) const override { return at(i); }

  void download(std::int64_t first, std::int64_t count, std::byte* to) const override {
    guarded("reading an MPSImage", [&] {
      for (std::int64_t i = 0; i < count; ++i) {
        [at(first + i) readBytes:to + i * descriptor().image_bytes()
                      dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
                      imageIndex:0];
      }
    });
  }
  void upload(std::int64_t first, std::int64_t count, const std::byte* from) override {
    guarded("writing an MPSImage", [&] {
      for (std::int64_t i = 0; i < count; ++i) {
        [at(first + i) writeBytes:from + i * descriptor().image_bytes()
                       dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
                       imageIndex:0];
      }
    });
  }
  void written() override {
    if (destination_ != nullptr) download(0, shape().images, destination_);
  }

 private:
  MPSImage* at(std::int64_t i) const { return images_[static_cast<std::size_t>(i)].get(); }

  std::vector<objc_ptr<MPSImage*>> images_;
  std::byte* destination_ = nullptr;
  std::shared_ptr<void> owner_;
};

}  // namespace

std::string unsupported_size(const Shape& s) {
  if (s.width <= kMostPixels && s.height <= kMostPixels && s.channels <= kMostChannels) return {};
  return "metal: an image has at most " + std::to_string(kMostPixels) + " pixels a side and " +
         std::to_string(kMostChannels) + " channels";
}

void check_limits(const char* argument, const BatchDescriptor& descriptor) {
  if (!has_channel_format(descriptor.format)) {
    throw TypeError(
        refusal(argument, "have dtype float16 or float32 on Metal", info(descriptor.format).name));
  }
  if (const std::string why = unsupported_size(descriptor.shape); !why.empty()) {
    throw ValueError(
        refusal(argument, "have a size of the device (" + why + ")", to_string(descriptor.shape)));
  }
}

std::shared_ptr<ImageBatch> make_images(std::shared_ptr<Device> device,
                                        const BatchDescriptor& descriptor, bool zero_filled) {
  check_limits("images", descriptor);
  std::shared_ptr<MetalImages> images;
  guarded("making MPSImages",
          [&] { images = std::make_shared<MetalImages>(std::move(device), descriptor, true); });
  if (zero_filled) {
    const std::vector<std::byte> zeros(static_cast<std::size_t>(descriptor.image_bytes()));
    for (std::int64_t i = 0; i < descriptor.shape.images; ++i) images->upload(i, 1, zeros.data());
  }
  return images;
}

std::shared_ptr<ImageBatch> upload_images(std::shared_ptr<Device> device,
                                          const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, std::shared_ptr<void> owner) {
  check_limits("array", descriptor);
  std::shared_ptr<MetalImages> images;
  guarded("making MPSImages",
          [&] { images = std::make_shared<MetalImages>(std::move(device), descriptor, writable); });
  images->upload(0, descriptor.shape.images, data);
  if (writable) images->set_destination(data, std::move(owner));
  return images;
}

const std::byte* host_destination(const ImageBatch& batch, std::int64_t image) {
  const auto [storage, index] = batch.storage(image);
  const auto* const images = dynamic_cast<const MetalImages*>(storage);
  return images != nullptr ? images->destination(index) : nullptr;
}

void* image_array(const ImageBatch& batch, std::int64_t count) {
  NSMutableArray<MPSImage*>* const array =
      [NSMutableArray arrayWithCapacity:static_cast<NSUInteger>(count)];
  const std::int64_t images = batch.shape().images;
  for (std::int64_t i = 0; i < count; ++i) {
    [array addObject:(MPSImage*)batch.native_handle(images == 1 ? 0 : i)];
  }
  return array;
}

}  // namespace mpsnn_loss::metal
