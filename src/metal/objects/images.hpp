// Images of Metal as batches, made here or elsewhere. For .mm files only, after they have imported
// MetalPerformanceShaders.
#pragma once

#include <memory>

#include "metal/mps/images.hpp"
#include "objects/image_batch.hpp"

namespace mpsnn_loss::metal {

class MetalImages final : public ImageBatch {
 public:
  MetalImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor,
              objc_ptr<ImageArray> images, bool writable, Access access);
  /// Results are copied to `destination`, so `owner` lives as long as the images.
  MetalImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor,
              objc_ptr<ImageArray> images, std::byte* destination, std::shared_ptr<void> owner);
  ~MetalImages() override;

  void download(std::int64_t first, std::int64_t count, std::byte* to) const override;
  void upload(std::int64_t first, std::int64_t count, const std::byte* from) override;
  void work_ended(ImageRange images) override;

  void fill_with_zeros();

  MPSImage* image(std::int64_t i) const { return nth(images_.get(), i); }
  /// Whether results go to host memory of the caller's.
  bool has_destination() const { return destination_ != nullptr; }

 private:
  objc_ptr<ImageArray> images_;
  std::byte* const destination_ = nullptr;
  const std::shared_ptr<void> owner_;
};

/// The storage of an image of any batch of a Metal device, and its place there.
std::pair<const MetalImages*, std::int64_t> metal_storage(const ImageBatch& batch, std::int64_t i);
/// The images, autoreleased; a batch of one stands for each of `count`.
ImageArray image_array(const ImageBatch& batch, std::int64_t count);

/// New images, not filled.
std::shared_ptr<MetalImages> make_images(const std::shared_ptr<Device>& device,
                                         const BatchDescriptor& descriptor);
/// A copy of host memory, to which results are copied back where it is writable.
std::shared_ptr<MetalImages> upload_images(const std::shared_ptr<Device>& device,
                                           const BatchDescriptor& descriptor, std::byte* data,
                                           bool writable, std::shared_ptr<void> owner);

}  // namespace mpsnn_loss::metal
