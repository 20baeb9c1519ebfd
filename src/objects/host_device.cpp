#include "objects/host_device.hpp"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "objects/host_queue.hpp"

namespace mpsnn_loss {
namespace {

class HostImages final : public ImageBatch {
 public:
  HostImages(std::shared_ptr<Device> device, const BatchDescriptor& descriptor, std::byte* data,
             bool writable, MemoryOwner owner)
      : ImageBatch(std::move(device), descriptor, data, writable), owner_(std::move(owner)) {}

  void download(std::int64_t first, std::int64_t count, std::byte* to) const override {
    std::memcpy(to, data() + first * descriptor().image_bytes(), bytes(count));
  }
  void upload(std::int64_t first, std::int64_t count, const std::byte* from) override {
    std::memcpy(data() + first * descriptor().image_bytes(), from, bytes(count));
  }

 private:
  std::size_t bytes(std::int64_t images) const {
    return static_cast<std::size_t>(images * descriptor().image_bytes());
  }

  const MemoryOwner owner_;
};

InheritedValues default_values(KernelKind kind) {
  InheritedValues values;
  for (const InheritedProperty& row : inherited_properties(kind))
    values.push_back(row.default_value);
  return values;
}

class HostKernel final : public Kernel {
 public:
  HostKernel(std::shared_ptr<Device> device, KernelKind kind, const LossDescriptor& descriptor)
      : Kernel(std::move(device), kind, descriptor, default_values(kind)) {}

  void run(const Computation& computation, Waiting waiting) override {
    device()->engine().compute(computation, waiting);
  }
};

class HostDevice final : public Device {
 public:
  HostDevice(std::shared_ptr<Engine> engine, const char* kind) : Device(std::move(engine), kind) {}

  std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) override {
    void* const memory = std::calloc(static_cast<std::size_t>(descriptor.bytes()), 1);
    if (memory == nullptr) throw std::bad_alloc();
    return wrap_images(descriptor, static_cast<std::byte*>(memory), true, {memory, std::free});
  }
  std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, MemoryOwner owner) override {
    return std::make_shared<HostImages>(shared_from_this(), descriptor, data, writable,
                                        std::move(owner));
  }
  std::shared_ptr<Queue> make_queue(const std::string& label) override {
    return std::make_shared<HostQueue>(shared_from_this(), label);
  }

 private:
  std::shared_ptr<Kernel> new_kernel(KernelKind kind, const LossDescriptor& descriptor) override {
    return std::make_shared<HostKernel>(shared_from_this(), kind, descriptor);
  }
};

}  // namespace

std::shared_ptr<Device> make_host_device(std::shared_ptr<Engine> engine, const char* kind) {
  return std::make_shared<HostDevice>(std::move(engine), kind);
}

}  // namespace mpsnn_loss
