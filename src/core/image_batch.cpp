#include "core/backend.hpp"
#include "core/error.hpp"

namespace mpsnn_loss {

std::pair<std::uintptr_t, std::uintptr_t> ImageBatch::extent(std::int64_t image) const {
  if (const std::byte* memory = image_data(image)) {
    const auto begin = reinterpret_cast<std::uintptr_t>(memory);
    return {begin, begin + static_cast<std::uintptr_t>(descriptor().image_bytes())};
  }
  const auto begin = reinterpret_cast<std::uintptr_t>(native_handle(image));
  return {begin, begin + 1};
}

void ImageBatch::check_readable(ImageRange images) const {
  if (const std::string why = unreadable(); !why.empty()) throw StateError(why);
  for_each_use(images, [](const ImageUses& uses, ImageRange part) { uses.check_readable(part); });
}

void ImageBatch::check_usable() const {
  for_each_use(all(), [](const ImageUses& uses, ImageRange part) { uses.check_usable(part); });
}

std::string ImageBatch::label(std::int64_t image) const {
  const std::lock_guard lock(mutex_);
  const auto found = labels_.find(image);
  return found == labels_.end() ? std::string() : found->second;
}

void ImageBatch::set_label(std::int64_t image, const std::string& label) {
  const std::lock_guard lock(mutex_);
  if (label.empty()) {
    labels_.erase(image);
  } else {
    labels_[image] = label;
  }
}

}  // namespace mpsnn_loss
