#include "objects/image_batch.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss {
namespace {

const char* why_unreadable(Access access) {
  switch (access) {
    case Access::host: return "";
    case Access::temporary:
      return "these images are temporary: only kernels of their command buffer can read them";
    case Access::private_storage:
      return "these images are in private storage, which the host cannot see";
    case Access::no_storage: return "these images have no storage";
  }
  return "";
}

MemoryRange range_of(const std::byte* data, std::int64_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  return {begin, begin + static_cast<std::uintptr_t>(bytes)};
}

class View final : public ImageBatch {
 public:
  View(const BatchDescriptor& descriptor, bool writable, std::vector<Image> images)
      : ImageBatch(descriptor, writable, std::move(images)) {}

  void download(std::int64_t first, std::int64_t count, std::byte* to) const override {
    for (std::int64_t i = 0; i < count; ++i) {
      const Image& image = *source(first + i);
      image.batch->download(image.index, 1, to + i * descriptor().image_bytes());
    }
  }
  void upload(std::int64_t first, std::int64_t count, const std::byte* from) override {
    for (std::int64_t i = 0; i < count; ++i) {
      const Image& image = *source(first + i);
      image.batch->upload(image.index, 1, from + i * descriptor().image_bytes());
    }
  }
  void work_ended(ImageRange images) override {
    for (std::int64_t i = images.first; i < images.end(); ++i) {
      const Image& image = *source(i);
      image.batch->work_ended({image.index, 1});
    }
  }
};

}  // namespace

ImageBatch::ImageBatch(std::shared_ptr<Device> device, const BatchDescriptor& descriptor,
                       std::byte* data, bool writable)
    : device_(std::move(device)),
      descriptor_(descriptor),
      writable_(writable),
      data_(data),
      uses_(descriptor.shape.images) {}

ImageBatch::ImageBatch(std::shared_ptr<Device> device, const BatchDescriptor& descriptor,
                       std::vector<MemoryRange> extents, bool writable, Access access)
    : device_(std::move(device)),
      descriptor_(descriptor),
      writable_(writable),
      access_(access),
      on_host_(false),
      extents_(std::move(extents)),
      uses_(descriptor.shape.images) {}

ImageBatch::ImageBatch(const BatchDescriptor& descriptor, bool writable, std::vector<Image> images)
    : device_(images.front().batch->device()),
      descriptor_(descriptor),
      writable_(writable),
      images_(std::move(images)),
      runs_(runs_of(images_)),
      uses_(0) {
  bool follows = true;  // each image its predecessor in memory
  for (const auto& [batch, index] : images_) {
    const MemoryRange next = batch->extent(index);
    follows = follows && (extents_.empty() || extents_.back().end == next.begin);
    extents_.push_back(next);
    on_host_ = on_host_ && batch->on_host();
    if (access_ == Access::host) access_ = batch->access();
  }
  if (on_host_ && follows) data_ = reinterpret_cast<std::byte*>(extents_.front().begin);
}

std::vector<ImageBatch::Run> ImageBatch::runs_of(const std::vector<Image>& images) {
  std::vector<std::pair<ImageBatch*, std::int64_t>> sorted;
  for (const Image& image : images) sorted.emplace_back(image.batch.get(), image.index);
  std::ranges::sort(sorted);
  std::vector<Run> runs;
  for (const auto& [batch, index] : sorted) {
    if (!runs.empty() && runs.back().storage == batch && index <= runs.back().images.end()) {
      runs.back().images.count = index + 1 - runs.back().images.first;
    } else {
      runs.push_back({batch, {index, 1}});
    }
  }
  return runs;
}

MemoryRange ImageBatch::extent(std::int64_t image) const {
  if (data_ == nullptr) return extents_[static_cast<std::size_t>(image)];
  return range_of(data_ + image * descriptor_.image_bytes(), descriptor_.image_bytes());
}

Operand ImageBatch::operand(const char* name) const {
  Operand operand(name, descriptor_, data_, writable_);
  if (data_ == nullptr) operand.extents = extents_.data();
  operand.on_host = on_host_;
  return operand;
}

void ImageBatch::check_readable(ImageRange images) const {
  if (access_ != Access::host) throw StateError(why_unreadable(access_));
  for_each_use(images, [](const ImageUses& uses, ImageRange part) { uses.check_readable(part); });
}

void ImageBatch::check_usable() const {
  for_each_use(all(), [](const ImageUses& uses, ImageRange part) { uses.check_usable(part); });
}

std::string ImageBatch::label(std::int64_t image) const {
  if (const Image* const other = source(image)) return other->batch->label(other->index);
  const std::lock_guard lock(mutex_);
  const auto found = labels_.find(image);
  return found == labels_.end() ? std::string() : found->second;
}

void ImageBatch::set_label(std::int64_t image, const std::string& label) {
  if (const Image* const other = source(image)) return other->batch->set_label(other->index, label);
  const std::lock_guard lock(mutex_);
  if (label.empty()) {
    labels_.erase(image);
  } else {
    labels_[image] = label;
  }
}

namespace {

bool is_whole_batch(const std::vector<Image>& images) {
  const auto& batch = images.front().batch;
  if (batch->shape().images != static_cast<std::int64_t>(images.size())) return false;
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (images[i].batch != batch || images[i].index != static_cast<std::int64_t>(i)) return false;
  }
  return true;
}

}  // namespace

std::shared_ptr<ImageBatch> gather_images(const char* argument, std::vector<Image> images) {
  if (images.empty()) throw ValueError(refusal(argument, "hold at least 1 image", "0"));
  for (Image& image : images) image = image_at(image.batch, image.index);
  const ImageBatch& first = *images.front().batch;
  BatchDescriptor descriptor = first.descriptor();
  const Shape one{1, descriptor.shape.height, descriptor.shape.width, descriptor.shape.channels};
  bool writable = true;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const ImageBatch& batch = *images[i].batch;
    const auto name = [&] { return std::string(argument) + "[" + std::to_string(i) + "]"; };
    if (batch.device() != first.device()) {
      throw StateError(refusal(name(),
                               "be on the device of the first image, " + first.device()->name(),
                               batch.device()->name()));
    }
    Shape shape = batch.shape();
    shape.images = 1;
    if (shape != one) {
      throw ValueError(refusal(name(), "have the shape of the first image, " + to_string(one),
                               to_string(shape)));
    }
    if (batch.descriptor().format != descriptor.format) {
      throw TypeError(refusal(
          name(), std::string("have the dtype of the first image, ") + info(descriptor.format).name,
          info(batch.descriptor().format).name));
    }
    writable = writable && batch.writable();
  }
  if (is_whole_batch(images)) return images.front().batch;
  descriptor.shape.images = static_cast<std::int64_t>(images.size());
  return std::make_shared<View>(descriptor, writable, std::move(images));
}

}  // namespace mpsnn_loss
