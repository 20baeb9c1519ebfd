#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "core/error.hpp"
#include "metal/mps/kernel_objects.hpp"

namespace mpsnn_loss::metal {
namespace {

// Apple's raw values are the table's (core/loss_type.hpp); a later SDK may have more.
static_assert(MPSCNNLossTypeCount >= kApplesLosses);
static_assert(MPSCNNReductionTypeCount >= kApplesReductions);

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

MPSKernel* make_object(id<MTLDevice> device, KernelKind kind, const LossDescriptor& descriptor) {
  switch (kind) {
    case KernelKind::forward_loss: {
      MPSCNNLossDescriptor* const d = make_descriptor(descriptor);  // may throw, so before alloc
      return [[MPSNNForwardLoss alloc] initWithDevice:device lossDescriptor:d];
    }
    case KernelKind::loss_gradient: {
      MPSCNNLossDescriptor* const d = make_descriptor(descriptor);
      return [[MPSNNLossGradient alloc] initWithDevice:device lossDescriptor:d];
    }
    case KernelKind::initial_gradient: return [[MPSNNInitialGradient alloc] initWithDevice:device];
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

template <class LossKernel>
LossParameters parameters(LossKernel* kernel) {
  return {static_cast<double>([kernel weight]), static_cast<double>([kernel labelSmoothing]),
          static_cast<double>([kernel epsilon]), static_cast<double>([kernel delta])};
}

template <class LossKernel>
LossDescriptor descriptor(LossKernel* kernel) {
  LossDescriptor d;
  d.loss_type = static_cast<LossType>([kernel lossType]);
  d.reduction_type = static_cast<ReductionType>([kernel reductionType]);
  if (@available(macOS 11.0, *)) d.reduce_across_batch = [kernel reduceAcrossBatch] != NO;
  d.number_of_classes = static_cast<std::int64_t>([kernel numberOfClasses]);
  d.parameters = parameters(kernel);
  return d;
}

}  // namespace

Class class_of(KernelKind kind) {
  switch (kind) {
    case KernelKind::forward_loss: return [MPSNNForwardLoss class];
    case KernelKind::loss_gradient: return [MPSNNLossGradient class];
    case KernelKind::initial_gradient: return [MPSNNInitialGradient class];
  }
  return Nil;
}

objc_ptr<MPSKernel*> new_kernel_object(id<MTLDevice> device, KernelKind kind,
                                       const LossDescriptor& descriptor) {
  return objc_ptr<MPSKernel*>::adopted(
      not_nil(make_object(device, kind, descriptor), class_name(kind)));
}

DynamicProperties dynamic_properties(KernelKind kind, MPSKernel* kernel) {
  switch (kind) {
    case KernelKind::forward_loss: return {parameters((MPSNNForwardLoss*)kernel), false};
    case KernelKind::loss_gradient: {
      auto* const gradient = (MPSNNLossGradient*)kernel;
      return {parameters(gradient), [gradient computeLabelGradients] != NO};
    }
    case KernelKind::initial_gradient: break;
  }
  return {};
}

void set_dynamic_properties(KernelKind kind, MPSKernel* kernel,
                            const DynamicProperties& properties) {
  switch (kind) {
    case KernelKind::forward_loss:
      set_parameters((MPSNNForwardLoss*)kernel, properties.parameters);
      break;
    case KernelKind::loss_gradient:
      set_parameters((MPSNNLossGradient*)kernel, properties.parameters);
      [(MPSNNLossGradient*)kernel
          setComputeLabelGradients:properties.compute_label_gradients ? YES : NO];
      break;
    case KernelKind::initial_gradient: break;
  }
}

LossDescriptor descriptor_of(KernelKind kind, MPSKernel* kernel) {
  switch (kind) {
    case KernelKind::forward_loss: return descriptor((MPSNNForwardLoss*)kernel);
    case KernelKind::loss_gradient: return descriptor((MPSNNLossGradient*)kernel);
    case KernelKind::initial_gradient: break;
  }
  return {};
}

}  // namespace mpsnn_loss::metal
