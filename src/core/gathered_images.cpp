#include "core/gathered_images.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

class GatheredImages final : public ImageBatch {
 public:
  GatheredImages(const BatchDescriptor& descriptor, bool writable, std::vector<Image> images)
      : ImageBatch(images.front().batch->device(), descriptor, writable),
        images_(std::move(images)),
        runs_(runs_of(images_)) {}

  std::byte* data() const override {
    // Contiguous where each image follows its predecessor in memory.
    std::byte* const first = image_data(0);
    if (first == nullptr) return nullptr;
    for (std::int64_t i = 1; i < shape().images; ++i) {
      if (image_data(i) != first + i * descriptor().image_bytes()) return nullptr;
    }
    return first;
  }
  std::byte* image_data(std::int64_t i) const override {
    return at(i).batch->image_data(at(i).index);
  }
  const Image* source(std::int64_t i) const override { return &at(i); }
  std::pair<const ImageBatch*, std::int64_t> storage(std::int64_t i) const override {
    return at(i).batch->storage(at(i).index);
  }
  std::pair<std::uintptr_t, std::uintptr_t> extent(std::int64_t i) const override {
    return at(i).batch->extent(at(i).index);
  }
  std::string unreadable() const override {
    for (const Image& image : images_) {
      if (std::string why = image.batch->unreadable(); !why.empty()) return why;
    }
    return {};
  }
  void written() override {
    for (const Image& image : images_) image.batch->written();
  }
  void download(std::int64_t first, std::int64_t count, std::byte* to) const override {
    for (std::int64_t i = 0; i < count; ++i) {
      at(first + i).batch->download(at(first + i).index, 1, to + i * descriptor().image_bytes());
    }
  }
  void upload(std::int64_t first, std::int64_t count, const std::byte* from) override {
    for (std::int64_t i = 0; i < count; ++i) {
      at(first + i).batch->upload(at(first + i).index, 1, from + i * descriptor().image_bytes());
    }
  }
  void* native_handle(std::int64_t i) const override {
    return at(i).batch->native_handle(at(i).index);
  }
  void for_each_use(ImageRange images,
                    const std::function<void(ImageUses&, ImageRange)>& f) const override {
    if (images == all()) {
      for (const Run& run : runs_) run.batch->for_each_use(run.images, f);
    } else {
      for (std::int64_t i = images.first; i < images.first + images.count; ++i)
        at(i).batch->for_each_use({at(i).index, 1}, f);
    }
  }
  std::string label(std::int64_t i) const override { return at(i).batch->label(at(i).index); }
  void set_label(std::int64_t i, const std::string& label) override {
    at(i).batch->set_label(at(i).index, label);
  }

 private:
  /// Neighbouring images of one batch.
  struct Run {
    ImageBatch* batch;
    ImageRange images;
  };

  static std::vector<Run> runs_of(const std::vector<Image>& images) {
    std::vector<std::pair<ImageBatch*, std::int64_t>> sorted;
    for (const Image& image : images) sorted.emplace_back(image.batch.get(), image.index);
    std::ranges::sort(sorted);
    std::vector<Run> runs;
    for (const auto& [batch, index] : sorted) {
      if (!runs.empty() && runs.back().batch == batch &&
          index <= runs.back().images.first + runs.back().images.count) {
        runs.back().images.count = index + 1 - runs.back().images.first;
      } else {
        runs.push_back({batch, {index, 1}});
      }
    }
    return runs;
  }

  const Image& at(std::int64_t i) const { return images_[static_cast<std::size_t>(i)]; }

  const std::vector<Image> images_;
  const std::vector<Run> runs_;
};

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
  return std::make_shared<GatheredImages>(descriptor, writable, std::move(images));
}

}  // namespace mpsnn_loss
