// Another device than the CPU: its images live where the host cannot see them, and it computes
// nothing.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "objects/device.hpp"

namespace mpsnn_loss::test {

class FakeImages final : public ImageBatch {
 public:
  FakeImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, bool writable)
      : ImageBatch(std::move(device), descriptor, extents(descriptor.shape.images), writable,
                   Access::private_storage) {}
  void download(std::int64_t, std::int64_t, std::byte*) const override { refuse(); }
  void upload(std::int64_t, std::int64_t, const std::byte*) override { refuse(); }

 private:
  [[noreturn]] static void refuse() { throw std::logic_error("the fake device holds no values"); }

  /// One address for each image that was ever made.
  static std::vector<MemoryRange> extents(std::int64_t images) {
    static std::uintptr_t next = 1;
    std::vector<MemoryRange> made;
    for (std::int64_t i = 0; i < images; ++i, ++next) made.push_back({next, next + 1});
    return made;
  }
};

class FakeEngine final : public Engine {
 public:
  std::string name() const override { return "Fake"; }
  std::string supports(const Need&) const override { return {}; }
  void compute(const Computation&, Waiting) override {}
};

class FakeDevice final : public Device {
 public:
  FakeDevice() : Device(std::make_shared<FakeEngine>(), "fake") {}
  std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) override {
    return std::make_shared<FakeImages>(shared_from_this(), descriptor, true);
  }
  std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor, std::byte*,
                                          bool writable, MemoryOwner) override {
    return std::make_shared<FakeImages>(shared_from_this(), descriptor, writable);
  }
  std::shared_ptr<Queue> make_queue(const std::string&) override { return nullptr; }

 private:
  std::shared_ptr<Kernel> new_kernel(KernelKind, const LossDescriptor&) override {
    throw std::logic_error("the fake device has no kernels");
  }
};

}  // namespace mpsnn_loss::test
