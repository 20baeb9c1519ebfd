#include "cpu/device.hpp"

#include "cpu/run.hpp"

namespace mpsnn_loss::cpu {
namespace {

class CpuDevice final : public Device {
 public:
  std::string name() const override { return "CPU"; }
  std::string kind() const override { return "cpu"; }
  std::string supports(Format) const override { return {}; }
  std::string supports(const LossDescriptor&) const override { return {}; }

  std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) override {
    return cpu::make_images(shared_from_this(), descriptor);
  }
  std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, std::shared_ptr<void> owner) override {
    return borrow_images(shared_from_this(), descriptor, data, writable, std::move(owner));
  }
  std::shared_ptr<Kernel> make_kernel(KernelKind kind, const LossDescriptor& descriptor) override {
    if (kind != KernelKind::initial_gradient) check(descriptor);
    return std::make_shared<Kernel>(shared_from_this(), kind, descriptor);
  }
  std::shared_ptr<Queue> make_queue(const std::string& label) override {
    return cpu::make_queue(shared_from_this(), label);
  }
  void compute(const LossCall& call, Waiting) override { run(call); }
};

}  // namespace

std::shared_ptr<Device> make_device() { return std::make_shared<CpuDevice>(); }

}  // namespace mpsnn_loss::cpu
