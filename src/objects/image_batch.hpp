// Images: batches that own their storage, and batches put together from images of others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/computation.hpp"
#include "objects/image_uses.hpp"

namespace mpsnn_loss {

class Device;
class ImageBatch;

/// Whether the host can read and write images, and if not, why.
enum class Access : std::uint8_t { host, temporary, private_storage, no_storage };

/// One image of a batch that owns its storage, never of a view: views of views would grow with
/// every step of a loop.
struct Image {
  std::shared_ptr<ImageBatch> batch;
  std::int64_t index = 0;

  friend bool operator==(const Image&, const Image&) = default;
};

/// N images of one shape and format.
class ImageBatch {
 public:
  virtual ~ImageBatch() = default;
  ImageBatch(const ImageBatch&) = delete;
  ImageBatch& operator=(const ImageBatch&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }
  const BatchDescriptor& descriptor() const { return descriptor_; }
  const Shape& shape() const { return descriptor_.shape; }
  bool writable() const { return writable_; }
  Access access() const { return access_; }
  ImageRange all() const { return {0, shape().images}; }

  /// Copies images out of or into their storage, in the storage format.
  virtual void download(std::int64_t first, std::int64_t count, std::byte* to) const = 0;
  virtual void upload(std::int64_t first, std::int64_t count, const std::byte* from) = 0;
  /// The work that writes images is done: a device that borrowed host memory for the results
  /// fills it now.
  virtual void work_ended(ImageRange) {}

  /// The host memory of all images, C-contiguous; null where they are not so in memory.
  std::byte* data() const { return data_; }
  /// They lie in host memory, in one stretch or in one each.
  bool on_host() const { return on_host_; }
  /// As an argument of that name. The batch must live as long as the operand.
  Operand operand(const char* name) const;

  /// A batch put together from images of others.
  bool is_view() const { return !images_.empty(); }
  /// The storage that the image occupies, and its place in it; null where it is this batch's own.
  const Image* source(std::int64_t image) const {
    return is_view() ? &images_[static_cast<std::size_t>(image)] : nullptr;
  }
  /// The same as addresses: two images are one where these are equal.
  std::pair<const ImageBatch*, std::int64_t> storage(std::int64_t image) const {
    const Image* const other = source(image);
    return other != nullptr ? std::pair{other->batch.get(), other->index} : std::pair{this, image};
  }

  /// Calls f(uses, images) with the uses of each storage that the images lie in, and their places
  /// there.
  template <class F>
  void for_each_use(ImageRange images, F f) const {
    if (!is_view()) return f(uses_, images);
    if (images == all()) {
      for (const Run& run : runs_) f(run.storage->uses_, run.images);
      return;
    }
    for (std::int64_t i = images.first; i < images.end(); ++i) {
      const Image& image = *source(i);
      f(image.batch->uses_, ImageRange{image.index, 1});
    }
  }
  // The rules of objects/image_uses.hpp. Reading also needs access.
  void check_readable(ImageRange images) const;
  void check_readable() const { check_readable(all()); }
  void check_usable() const;

  std::string label(std::int64_t image) const;
  void set_label(std::int64_t image, const std::string& label);

 protected:
  /// Images of our own in host memory.
  ImageBatch(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, std::byte* data,
             bool writable);
  /// Images that a device keeps; `extents` tell which of them overlap.
  ImageBatch(std::shared_ptr<Device> device, const BatchDescriptor& descriptor,
             std::vector<MemoryRange> extents, bool writable, Access access);
  /// Images of others, which all fit the descriptor.
  ImageBatch(const BatchDescriptor& descriptor, bool writable, std::vector<Image> images);

 private:
  /// Neighbouring images of one storage.
  struct Run {
    ImageBatch* storage;
    ImageRange images;
  };
  static std::vector<Run> runs_of(const std::vector<Image>& images);
  MemoryRange extent(std::int64_t image) const;

  const std::shared_ptr<Device> device_;
  const BatchDescriptor descriptor_;
  const bool writable_;
  Access access_ = Access::host;
  bool on_host_ = true;
  std::byte* data_ = nullptr;
  std::vector<MemoryRange> extents_;  // of each image, where `data` is null
  const std::vector<Image> images_;   // of a view
  const std::vector<Run> runs_;       // the same
  mutable std::mutex mutex_;
  mutable ImageUses uses_;
  std::map<std::int64_t, std::string> labels_;
};

/// The image at a place of any batch.
inline Image image_at(const std::shared_ptr<ImageBatch>& batch, std::int64_t index) {
  const Image* const source = batch->source(index);
  return source != nullptr ? *source : Image{batch, index};
}

/// The images as one batch without copying them. All have one device, shape and format, else
/// StateError, ValueError or TypeError. Images that are a whole batch in order give that batch
/// back.
std::shared_ptr<ImageBatch> gather_images(const char* argument, std::vector<Image> images);

}  // namespace mpsnn_loss
