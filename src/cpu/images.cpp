#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "cpu/device.hpp"

namespace mpsnn_loss::cpu {
namespace {

class HostImages final : public ImageBatch {
 public:
  HostImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, std::byte* data,
             bool writable, std::shared_ptr<void> owner)
      : ImageBatch(std::move(device), descriptor, writable),
        data_(data),
        owner_(std::move(owner)) {}

  std::byte* data() const override { return data_; }
  std::byte* image_data(std::int64_t image) const override {
    return data_ + image * descriptor().image_bytes();
  }
  void download(std::int64_t first, std::int64_t count, std::byte* to) const override {
    std::memcpy(to, image_data(first), bytes(count));
  }
  void upload(std::int64_t first, std::int64_t count, const std::byte* from) override {
    std::memcpy(image_data(first), from, bytes(count));
  }
  void* native_handle(std::int64_t) const override { return nullptr; }

 private:
  std::size_t bytes(std::int64_t images) const {
    return static_cast<std::size_t>(images * descriptor().image_bytes());
  }

  std::byte* const data_;
  const std::shared_ptr<void> owner_;
};

}  // namespace

std::shared_ptr<ImageBatch> make_images(std::shared_ptr<Device> device,
                                        const BatchDescriptor& descriptor) {
  void* const memory = std::calloc(static_cast<std::size_t>(descriptor.bytes()), 1);
  if (memory == nullptr) throw std::bad_alloc();
  std::shared_ptr<void> owner(memory, std::free);
  return borrow_images(std::move(device), descriptor, static_cast<std::byte*>(memory), true,
                       std::move(owner));
}

std::shared_ptr<ImageBatch> borrow_images(std::shared_ptr<Device> device,
                                          const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, std::shared_ptr<void> owner) {
  return std::make_shared<HostImages>(std::move(device), descriptor, data, writable,
                                      std::move(owner));
}

}  // namespace mpsnn_loss::cpu
