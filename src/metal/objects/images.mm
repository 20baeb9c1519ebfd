#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>
#include <vector>

#include "metal/mps/objc_guard.hpp"
#include "metal/objects/device.hpp"
#include "metal/objects/images.hpp"

namespace mpsnn_loss::metal {
namespace {

/// Addresses that tell images apart: those of the objects, or of where their results go.
std::vector<MemoryRange> extents_of(const BatchDescriptor& descriptor, ImageArray images,
                                    const std::byte* destination) {
  std::vector<MemoryRange> extents;
  for (std::int64_t i = 0; i < descriptor.shape.images; ++i) {
    const void* const object = nth(images, i);
    const bool has_memory = destination != nullptr;
    const auto begin = reinterpret_cast<std::uintptr_t>(
        has_memory ? destination + i * descriptor.image_bytes() : object);
    const auto size = static_cast<std::uintptr_t>(has_memory ? descriptor.image_bytes() : 1);
    extents.push_back({begin, begin + size});
  }
  return extents;
}

}  // namespace

MetalImages::MetalImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor,
                         objc_ptr<ImageArray> images, bool writable, Access access)
    : ImageBatch(std::move(device), descriptor, extents_of(descriptor, images.get(), nullptr),
                 writable, access),
      images_(std::move(images)) {}

MetalImages::MetalImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor,
                         objc_ptr<ImageArray> images, std::byte* destination,
                         std::shared_ptr<void> owner)
    : ImageBatch(std::move(device), descriptor, extents_of(descriptor, images.get(), destination),
                 true, Access::host),
      images_(std::move(images)),
      destination_(destination),
      owner_(std::move(owner)) {}

MetalImages::~MetalImages() {
  const autorelease_pool pool;
  images_ = {};
}

void MetalImages::download(std::int64_t first, std::int64_t count, std::byte* to) const {
  guarded("reading an MPSImage",
          [&] { read_images(images_.get(), first, count, descriptor().image_bytes(), to); });
}

void MetalImages::upload(std::int64_t first, std::int64_t count, const std::byte* from) {
  guarded("writing an MPSImage",
          [&] { write_images(images_.get(), first, count, descriptor().image_bytes(), from); });
}

void MetalImages::fill_with_zeros() {
  guarded("writing an MPSImage", [&] { metal::fill_with_zeros(images_.get(), descriptor()); });
}

void MetalImages::work_ended(ImageRange images) {
  if (destination_ == nullptr) return;
  download(images.first, images.count, destination_ + images.first * descriptor().image_bytes());
}

std::pair<const MetalImages*, std::int64_t> metal_storage(const ImageBatch& batch, std::int64_t i) {
  const auto [storage, place] = batch.storage(i);
  return {static_cast<const MetalImages*>(storage), place};
}

ImageArray image_array(const ImageBatch& batch, std::int64_t count) {
  NSMutableArray<MPSImage*>* const array =
      [NSMutableArray arrayWithCapacity:static_cast<NSUInteger>(count)];
  const bool one_for_all = batch.shape().images == 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto [storage, place] = metal_storage(batch, one_for_all ? 0 : i);
    [array addObject:storage->image(place)];
  }
  return array;
}

std::shared_ptr<MetalImages> make_images(const std::shared_ptr<Device>& device,
                                         const BatchDescriptor& descriptor) {
  std::shared_ptr<MetalImages> images;
  guarded("making MPSImages", [&] {
    images = std::make_shared<MetalImages>(
        device, descriptor, new_images(metal_device(*device), descriptor), true, Access::host);
  });
  return images;
}

std::shared_ptr<MetalImages> upload_images(const std::shared_ptr<Device>& device,
                                           const BatchDescriptor& descriptor, std::byte* data,
                                           bool writable, std::shared_ptr<void> owner) {
  std::shared_ptr<MetalImages> images;
  guarded("making MPSImages", [&] {
    auto made = new_images(metal_device(*device), descriptor);
    images = writable ? std::make_shared<MetalImages>(device, descriptor, std::move(made), data,
                                                      std::move(owner))
                      : std::make_shared<MetalImages>(device, descriptor, std::move(made), false,
                                                      Access::host);
  });
  images->upload(0, descriptor.shape.images, data);
  return images;
}

}  // namespace mpsnn_loss::metal
