// A user's kernel: one kernel object of Apple's, written through and read back.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <cmath>

#include "core/error.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

MPSCNNLossDescriptor* make_descriptor(const LossDescriptor& d) {
  MPSCNNLossDescriptor* const descriptor =
      not_nil([MPSCNNLossDescriptor
                  cnnLossDescriptorWithType:static_cast<MPSCNNLossType>(d.loss_type)
                              reductionType:static_cast<MPSCNNReductionType>(d.reduction_type)],
              "MPSCNNLossDescriptor");
  if (@available(macOS 11.0, *)) {
    [descriptor setReduceAcrossBatch:d.reduce_across_batch ? YES : NO];
  }
  [descriptor setNumberOfClasses:static_cast<NSUInteger>(d.number_of_classes)];
  [descriptor setWeight:static_cast<float>(d.parameters.weight)];
  [descriptor setLabelSmoothing:static_cast<float>(d.parameters.label_smoothing)];
  [descriptor setEpsilon:static_cast<float>(d.parameters.epsilon)];
  [descriptor setDelta:static_cast<float>(d.parameters.delta)];
  return descriptor;
}

MPSKernel* make_object(const Device& device, KernelKind kind, const LossDescriptor& descriptor) {
  const id<MTLDevice> metal = (id<MTLDevice>)device.native_handle();
  switch (kind) {
    case KernelKind::forward_loss:
      return [[MPSNNForwardLoss alloc] initWithDevice:metal
                                       lossDescriptor:make_descriptor(descriptor)];
    case KernelKind::loss_gradient:
      return [[MPSNNLossGradient alloc] initWithDevice:metal
                                        lossDescriptor:make_descriptor(descriptor)];
    case KernelKind::initial_gradient: return [[MPSNNInitialGradient alloc] initWithDevice:metal];
  }
  return nil;
}

template <class LossKernel>
void set_parameters(LossKernel* kernel, const LossParameters& p) {
  [kernel setWeight:static_cast<float>(p.weight)];
  [kernel setLabelSmoothing:static_cast<float>(p.label_smoothing)];
  [kernel setEpsilon:static_cast<float>(p.epsilon)];
  [kernel setDelta:static_cast<float>(p.delta)];
}

/// What was set stays float64; what somebody else set on the object is read from it.
void read_parameter(float stored, double& known) {
  if (static_cast<float>(known) != stored) known = static_cast<double>(stored);
}

template <class LossKernel>
void get_parameters(LossKernel* kernel, LossParameters& p) {
  read_parameter([kernel weight], p.weight);
  read_parameter([kernel labelSmoothing], p.label_smoothing);
  read_parameter([kernel epsilon], p.epsilon);
  read_parameter([kernel delta], p.delta);
}

// Apple's raw values are the table's (core/loss_type.hpp).
static_assert(MPSCNNLossTypeCount == kLosses.size());
static_assert(MPSCNNReductionTypeCount == kReductions.size());

class KernelObject final : public MetalKernel {
 public:
  KernelObject(std::shared_ptr<Device> device, KernelKind kind, const LossDescriptor& descriptor)
      : MetalKernel(std::move(device), kind, descriptor) {
    guarded("making a kernel", [&] {
      object_ = objc_ptr<MPSKernel*>::adopted(
          not_nil(make_object(*this->device(), kind, descriptor), class_name(kind)));
    });
    stored_.parameters = descriptor.parameters;
  }

  void* native_handle() const override { return object_.get(); }

  void encode_with(const LossCall& call, const std::function<void(void*)>& encode) override {
    const std::lock_guard lock(mutex());
    apply(call->descriptor.parameters, call->wrt == Wrt::labels);
    encode(object_.get());
    apply(stored_.parameters, stored_.compute_label_gradients);
  }

 private:
  void apply(const LossParameters& parameters, bool by_labels) {
    if (kind() == KernelKind::forward_loss) {
      set_parameters((MPSNNForwardLoss*)object_.get(), parameters);
    } else if (kind() == KernelKind::loss_gradient) {
      auto* const gradient = (MPSNNLossGradient*)object_.get();
      set_parameters(gradient, parameters);
      [gradient setComputeLabelGradients:by_labels ? YES : NO];
    }
  }

  void store(const KernelProperties& properties) override {
    guarded("setting a kernel's properties", [&] {
      apply(properties.parameters, properties.compute_label_gradients);
      [object_.get() setOptions:static_cast<MPSKernelOptions>(properties.options)];
      [object_.get() setLabel:properties.has_label
                                  ? [NSString stringWithUTF8String:properties.label.c_str()]
                                  : nil];
      set_inherited(kind(), object_.get(), properties);
    });
    stored_ = properties;
  }

  void load(KernelProperties& properties) const override {
    guarded("reading a kernel's properties", [&] {
      if (kind() == KernelKind::forward_loss) {
        get_parameters((MPSNNForwardLoss*)object_.get(), properties.parameters);
      } else if (kind() == KernelKind::loss_gradient) {
        auto* const gradient = (MPSNNLossGradient*)object_.get();
        get_parameters(gradient, properties.parameters);
        properties.compute_label_gradients = [gradient computeLabelGradients] != NO;
      }
      properties.options = static_cast<std::uint64_t>([object_.get() options]);
      NSString* const label = [object_.get() label];
      properties.has_label = label != nil;
      properties.label = label != nil ? [label UTF8String] : "";
      get_inherited(kind(), object_.get(), properties);
    });
  }

  objc_ptr<MPSKernel*> object_;
  KernelProperties stored_;  // what the user set, while a call's own values are on the object
};

}  // namespace

std::shared_ptr<MetalKernel> make_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                         const LossDescriptor& descriptor) {
  return std::make_shared<KernelObject>(std::move(device), kind, descriptor);
}

}  // namespace mpsnn_loss::metal
