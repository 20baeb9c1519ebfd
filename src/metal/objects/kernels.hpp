// A user's kernel: one kernel object of Apple's, written through and read back. For .mm files only,
// after they have imported MetalPerformanceShaders.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metal/mps/encode.hpp"
#include "metal/mps/kernel_objects.hpp"
#include "objects/kernel.hpp"

namespace mpsnn_loss::metal {

/// What a forward encode has captured, with Metal's own state beside it.
struct MetalState final : State {
  using State::State;
  ~MetalState() override {
    const autorelease_pool pool;
    object = {};
  }
  objc_ptr<MPSState*> object;  // nil before an encode, or where Metal made none
};

class MetalKernel final : public Kernel {
 public:
  MetalKernel(std::shared_ptr<Device> device, KernelKind kind, const LossDescriptor& descriptor,
              objc_ptr<MPSKernel*> object, InheritedValues fresh)
      : Kernel(std::move(device), kind, descriptor, std::move(fresh)), object_(std::move(object)) {}
  ~MetalKernel() override {
    const autorelease_pool pool;
    object_ = {};
  }

  MPSKernel* object() const { return object_.get(); }
  const InheritedValues& fresh_values() const { return fresh(); }
  void run(const Computation& computation, Waiting waiting) override;
  std::shared_ptr<State> make_state() const override {
    return std::make_shared<MetalState>(device());
  }
  /// The archive of Apple's keyed archiver.
  std::string archived_data() const;

  /// Calls encode(kernel object) while nobody changes the kernel, with the properties that the
  /// computation captured on it, which are put back afterwards.
  template <class Body>
  void encode_with(const Request& request, Body encode) {
    const std::lock_guard lock(mutex());
    const Restored restored{kind(), object(), dynamic_properties(kind(), object())};
    set_dynamic_properties(kind(), object(),
                           {request.descriptor.parameters, request.wrt == Wrt::labels});
    encode(object());
  }

 private:
  struct Restored {
    const KernelKind kind;
    MPSKernel* const object;
    const DynamicProperties before;
    ~Restored() { set_dynamic_properties(kind, object, before); }
  };

  void store(const KernelProperties& properties) override;
  void load(KernelProperties& properties) const override;

  objc_ptr<MPSKernel*> object_;
};

std::shared_ptr<Kernel> make_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                    const LossDescriptor& descriptor);
std::shared_ptr<Kernel> copy_kernel(std::shared_ptr<Device> device, const MetalKernel& kernel);
/// A kernel from MetalKernel::archived_data. ValueError for anything else.
std::shared_ptr<Kernel> unarchive_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                         std::string_view data);

}  // namespace mpsnn_loss::metal
