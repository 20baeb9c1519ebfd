// Another device than the CPU: its images live where the host cannot see them, and it computes
// nothing.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/backend.hpp"

namespace mpsnn_loss::test {

class FakeImages final : public ImageBatch {
 public:
  FakeImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, bool writable)
      : ImageBatch(std::move(device), descriptor, writable),
        handles_(static_cast<std::size_t>(descriptor.shape.images)) {}
  std::byte* data() const override { return nullptr; }
  std::byte* image_data(std::int64_t) const override { return nullptr; }
  void download(std::int64_t, std::int64_t, std::byte*) const override { refuse(); }
  void upload(std::int64_t, std::int64_t, const std::byte*) override { refuse(); }
  void* native_handle(std::int64_t image) const override {
    return &handles_[static_cast<std::size_t>(image)];
  }

 private:
  [[noreturn]] static void refuse() { throw std::logic_error("the fake device holds no values"); }

  mutable std::vector<char> handles_;  // the objects that stand for the images
};

class FakeDevice final : public Device {
 public:
  std::string name() const override { return "Fake"; }
  std::string kind() const override { return "fake"; }
  std::string supports(Format) const override { return {}; }
  std::string supports(const LossDescriptor&) const override { return {}; }
  std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) override {
    return std::make_shared<FakeImages>(shared_from_this(), descriptor, true);
  }
  std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor, std::byte*,
                                          bool writable, std::shared_ptr<void>) override {
    return std::make_shared<FakeImages>(shared_from_this(), descriptor, writable);
  }
  std::shared_ptr<Kernel> make_kernel(KernelKind kind, const LossDescriptor& descriptor) override {
    return std::make_shared<Kernel>(shared_from_this(), kind, descriptor);
  }
  std::shared_ptr<Queue> make_queue(const std::string&) override { return nullptr; }
  void compute(const LossCall&, Waiting) override {}
};

}  // namespace mpsnn_loss::test
